// The page's second half: classes, photos for them, a module trained on them.
const POLL_MS = 300;
const HELD_MS = 150; // between photos while the camera button is held
const thumbs = new Map(); // class -> the last photos that this page gave it
let holding = false;
let polling = 0;
let asked = 0; // requests that were sent
let latest = 0; // the one whose answer is drawn

function show(teach) {
  $("classify").hidden = teach;
  $("teach").hidden = !teach;
  for (const [id, on] of [["to-classify", !teach], ["to-teach", teach]]) {
    if (on) $(id).setAttribute("aria-current", "page"); else $(id).removeAttribute("aria-current");
  }
  if (!$("camera").hidden) stopCamera();
  if (!$("teach-camera").hidden) closeTeachCamera();
  if (teach) refresh();
}

// Draws the answer, unless that to a later request is drawn: an older one may come after it.
async function drawn(path, options, before = () => {}) {
  const turn = ++asked;
  const state = await (await ask(path, options)).json();
  before();
  if (turn < latest) return;
  latest = turn;
  draw(state);
}

async function teachAsk(path, options) {
  try {
    await drawn(path, options);
    return true;
  } catch (error) {
    say(error.message, "teach-status");
    return false;
  }
}
const refresh = () => teachAsk("/teach");
const named = (name) => `name=${encodeURIComponent(name)}`;

async function give(name, files) {
  let kept = 0;
  for (const file of files) {
    try {
      await drawn(`/teach/photos?class=${encodeURIComponent(name)}`, asBody(file), () => {
        thumbs.set(name, [...(thumbs.get(name) || []), URL.createObjectURL(file)].slice(-8));
        kept++;
      });
      say(`${kept} of ${files.length} photos added to ${name}`, "teach-status");
    } catch (error) { say(`${file.name || "photo"}: ${error.message}`, "teach-status"); }
  }
}

async function hold(name) {
  try { await openCamera($("teach-video")); } catch (error) { say(`No camera: ${error.message}`, "teach-status"); return; }
  $("teach-camera").hidden = false;
  holding = true;
  do {
    if (!stream) break; // it was stopped
    await give(name, [new File([await frame($("teach-video"))], "camera.jpg", { type: "image/jpeg" })]);
    await pause(HELD_MS);
  } while (holding);
}
const release = () => { holding = false; };
function closeTeachCamera() {
  release();
  closeCamera();
  $("teach-camera").hidden = true;
}

function classCard(name) {
  const input = element("input", { type: "file", accept: "image/*", multiple: true, hidden: true });
  input.onchange = () => { give(name, [...input.files]); input.value = ""; };
  const choose = element("button", { type: "button", onclick: () => input.click() }, "Add photos");
  const camera = element("button", { type: "button" }, "Hold for the camera");
  camera.onpointerdown = () => hold(name);
  camera.onpointerup = camera.onpointerleave = camera.onblur = release;
  camera.onkeydown = (event) => { if ([" ", "Enter"].includes(event.key) && !event.repeat) { event.preventDefault(); hold(name); } };
  camera.onkeyup = release;
  const drop = element("button", { type: "button" }, "Remove");
  drop.onclick = () => {
    if (confirm(`Remove the class ${name} and its photos?`)) teachAsk(`/teach/classes?${named(name)}`, { method: "DELETE" });
  };
  for (const [button, what] of [[choose, "Add photos to"], [camera, "Hold for photos of the camera for"], [drop, "Remove"]]) {
    button.setAttribute("aria-label", `${what} ${name}`);
  }
  const shown = element("div", { className: "thumbs" });
  const count = element("p", { className: "quiet" });
  const inside = element("div", {}, element("h3", {}, name), count, shown, element("p", { className: "row" }, choose, camera, drop), input);
  const card = element("li", { className: "card" }, inside);
  takesDrops(card, (files) => give(name, files));
  return card;
}

const cards = new Map(); // class -> its card; kept, so that a held button stays the same button
function draw(state) {
  const list = $("classes");
  for (const [name, card] of cards) {
    if (state.classes.some((entry) => entry.name === name)) continue;
    if (card.contains(document.activeElement)) $("class-name").focus(); // it would go with the card
    card.remove();
    cards.delete(name);
  }
  state.classes.forEach((entry, index) => {
    if (!cards.has(entry.name)) cards.set(entry.name, classCard(entry.name));
    const card = cards.get(entry.name);
    // What is in its place stays there: taken out and put back, it would lose the focus, and a held key with it.
    if (list.children[index] !== card) list.insertBefore(card, list.children[index] || null);
    card.dataset.photos = entry.photos;
    card.querySelector(".quiet").textContent = `${entry.photos} photos`;
    card.querySelector(".thumbs").replaceChildren(...(thumbs.get(entry.name) || []).map((src) => element("img", { src, alt: "" })));
  });
  $("train").disabled = state.training || state.classes.filter((entry) => entry.photos).length < 2;
  $("training").hidden = !state.training;
  if (state.total) { $("training").max = state.total; $("training").value = state.done; } else $("training").removeAttribute("value");
  if (state.training) { say(`Training: ${state.stage}`, "teach-status"); clearTimeout(polling); polling = setTimeout(refresh, POLL_MS); }
  else if (state.failure) say(`Not trained: ${state.failure}`, "teach-status");
  else if (state.stage === "done") say("Trained.", "teach-status");
  $("taught").hidden = !state.module || state.training;
  if (state.module) {
    if (!server.modules.some((module) => module.name === state.module)) {
      server.modules.push({ name: state.module, classifier: true });
      fillModules($("module").value);
    }
    const judged = state.metrics && (state.metrics.test || state.metrics.validation || state.metrics.train);
    const where = state.metrics && (state.metrics.test ? "test photos, which it has not learned from" : "its own photos: give it more for a fair figure");
    $("accuracy").textContent = judged ? `Right for ${(100 * judged.accuracy).toFixed(0)}% of ${judged.images} ${where}.` : "";
  }
}

if (server.teach) {
  $("tabs").hidden = false;
  $("to-classify").onclick = () => show(false);
  $("to-teach").onclick = () => show(true);
  $("add-class").onsubmit = async (event) => {
    event.preventDefault();
    const field = $("class-name");
    const name = field.value;
    field.focus(); // now: when the answer comes, somebody may be elsewhere, or writing the next name
    if (await teachAsk(`/teach/classes?${named(name)}`, { method: "POST" })) {
      say(`Class ${name} added`, "teach-status");
      if (field.value === name) field.value = "";
    }
  };
  $("train").onclick = () => teachAsk("/teach/train", { method: "POST" });
  $("teach-camera-stop").onclick = closeTeachCamera;
  $("try").onclick = () => { show(false); $("module").value = "taught"; $("camera-start").focus(); say("Show it something: drop photos or use the camera."); };
  $("see-report").onclick = async () => {
    try { save(await (await ask("/teach/report")).blob(), "report.html"); } catch (error) { say(error.message, "teach-status"); }
  };
  for (const button of document.querySelectorAll("[data-format]")) {
    button.onclick = async () => {
      const form = button.dataset.format;
      say(`Preparing the ${form} file …`, "teach-status");
      try {
        const blob = await (await ask(`/teach/download?format=${form}`)).blob();
        save(blob, { module: "module.zip", litert: "module.tflite", onnx: "module.onnx" }[form]);
        say("Downloaded.", "teach-status");
      } catch (error) { say(error.message, "teach-status"); }
    };
  }
}
