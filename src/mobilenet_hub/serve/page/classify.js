"use strict";
// The page's first half: photos in, labels out. No library; nothing is fetched but from this server.
const $ = (id) => document.getElementById(id);
const server = JSON.parse($("server").textContent);
const AT_A_TIME = 4; // requests of this page; the server has others to serve
const RETRIES = 20;
const MOST_DROPPED = 20000; // photos of a folder
let token = sessionStorage.getItem("token") || "";
const results = []; // {name, module, labels, scores, error}, in the order in which photos came
const waiting = [];
let running = 0;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
function say(text, where = "status") { $(where).textContent = text; }
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Ask the server; a full queue is waited for, a token asked for. Throws an Error with the server's own words.
async function ask(path, options = {}) {
  for (let turn = 0; ; turn++) {
    const sent = token;
    const headers = { ...(options.headers || {}), ...(sent ? { Authorization: `Bearer ${sent}` } : {}) };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch {
      throw new Error("the server does not answer; is it still running?");
    }
    if (answer.status === 503 && turn < RETRIES) {
      await pause(1000 * (Number(answer.headers.get("Retry-After")) || 1) * (0.5 + Math.random()));
      continue;
    }
    if (answer.status === 401 && token !== sent) continue; // another request has asked for it meanwhile
    if (answer.status === 401 && turn === 0) {
      token = prompt("This server asks for its token") || "";
      sessionStorage.setItem("token", token);
      if (token) continue;
    }
    if (answer.ok) return answer;
    let text = `${answer.status} ${answer.statusText}`;
    try { text = (await answer.json()).error || text; } catch { /* no JSON: the status says it */ }
    throw new Error(text);
  }
}

function fillBars(list, labels, scores) {
  list.replaceChildren(...labels.map((label, index) => {
    const bar = element("span", { className: "bar", ariaHidden: "true" });
    bar.style.width = `${100 * scores[index]}%`;
    const score = element("span", { className: "score" }, `${(100 * scores[index]).toFixed(1)}%`);
    return element("li", {}, element("span", { className: "label" }, label), score, bar);
  }));
}

const current = () => server.modules.find((module) => module.name === $("module").value) || server.modules[0];
function asBody(file) {
  const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  return { method: "POST", body: file, headers: { "Content-Type": type } };
}
async function classify(file, top) {
  const answer = await ask(`/classify?top=${top}&module=${encodeURIComponent(current().name)}`, asBody(file));
  return (await answer.json()).predictions[0];
}

// What spoke for the likeliest label: asked for when somebody wants to see it, and drawn by the server.
function whyButton(file, card, result, module) {
  const image = card.querySelector("img");
  const said = element("p", { className: "quiet" });
  said.setAttribute("aria-live", "polite");
  const button = element("button", { type: "button" }, "Show why");
  button.setAttribute("aria-label", `Show why: which part of ${result.name} spoke for ${result.labels[0]}`);
  button.setAttribute("aria-pressed", "false");
  const path = `/classify?top=1&explain=1&module=${encodeURIComponent(module)}`;
  let why = null;
  button.onclick = async () => {
    const on = button.getAttribute("aria-pressed") === "false";
    try {
      if (on && !why) {
        button.disabled = true;
        why = (await (await ask(path, asBody(file))).json()).predictions[0].explanations[0];
      }
    } catch (error) {
      said.textContent = error.message;
      return;
    } finally { button.disabled = false; }
    button.setAttribute("aria-pressed", String(on));
    image.classList.toggle("why", on);
    image.alt = on ? `What spoke for ${why.label}: ${why.where}` : "";
    said.textContent = on ? `Colored is what spoke for ${why.label}: ${why.where}.` : "";
    if (on) image.src = why.picture;
    else showPhoto(image, file);
    button.focus();
  };
  return [element("p", { className: "row" }, button), said];
}
function showPhoto(image, file) {
  const url = URL.createObjectURL(file);
  image.onload = image.onerror = () => URL.revokeObjectURL(url);
  image.src = url;
}

async function onePhoto({ file, card, result }) {
  const body = card.lastElementChild;
  const list = element("ol", { className: "bars" });
  list.setAttribute("aria-label", `Labels of ${result.name}`);
  try {
    if (current().classifier) {
      const module = current().name;
      const found = await classify(file, 5);
      Object.assign(result, { module, labels: found.labels, scores: found.scores });
      fillBars(list, found.labels, found.scores);
      body.querySelector(".quiet").replaceWith(list, ...whyButton(file, card, result, module));
    } else {
      body.querySelector(".quiet").textContent = "This module gives features, no labels.";
    }
    if (server.similar) await addSimilar(file, body);
  } catch (error) {
    result.error = error.message;
    (body.querySelector(".quiet") || list).replaceWith(element("p", { className: "bad" }, error.message));
  }
}

async function addSimilar(file, body) {
  const answer = await (await ask("/similar?k=5", asBody(file))).json();
  const rows = answer.matches[0].map((m) => element("li", {}, `${m.path} (${m.similarity.toFixed(3)})`));
  body.append(element("h4", {}, "Similar photos"), element("ol", { className: "similar" }, ...rows));
}

function next() {
  while (running < AT_A_TIME && waiting.length) {
    running++;
    onePhoto(waiting.shift()).finally(() => { running--; next(); });
  }
  const bad = results.filter((result) => result.error).length;
  const done = results.length - waiting.length - running;
  const photos = (count) => `${count} ${count === 1 ? "photo" : "photos"}`;
  if (!results.length) say("");
  else if (done < results.length) say(`${done} of ${photos(results.length)} done`);
  else if (results.length === 1 && !bad && results[0].labels) say(`${results[0].name}: ${results[0].labels[0]}`);
  else say(photos(results.length) + " done" + (bad ? `, ${bad} of them could not be read` : ""));
  $("tools").hidden = results.length === 0;
}

function addPhotos(files) {
  for (const file of files) {
    const result = { name: file.name || "photo", module: "", labels: null, scores: null, error: "" };
    results.push(result);
    const image = element("img", { alt: "", decoding: "async" });
    showPhoto(image, file);
    const about = element("div", {}, element("h3", {}, result.name), element("p", { className: "quiet" }, "waiting …"));
    const card = element("li", { className: "card" }, image, about);
    $("photos").append(card);
    waiting.push({ file, card, result });
  }
  next();
}

function csv() {
  const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const rows = [["name", "module", "label", "score", "error"]];
  for (const r of results) rows.push([r.name, r.module, r.labels ? r.labels[0] : "", r.scores ? r.scores[0] : "", r.error]);
  save(new Blob([rows.map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" }), "labels.csv");
}
function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// The photos that were dropped, those in dropped folders, too. To be called while the event lasts.
async function dropped(event) {
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
  const files = [...event.dataTransfer.files];
  if (!entries.some((entry) => entry && entry.isDirectory)) return files;
  const found = [];
  const walk = async (entry) => {
    if (!entry || found.length >= MOST_DROPPED || entry.name.startsWith(".")) return;
    if (entry.isFile) found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    if (!entry.isDirectory) return;
    const reader = entry.createReader(); // gives some at a time, and none at the end
    for (let more = [null]; more.length;) {
      more = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      for (const inner of more) await walk(inner);
    }
  };
  try {
    for (const entry of entries) await walk(entry);
  } catch (error) { say(`The folder cannot be read: ${error.message}`, $("teach").hidden ? "status" : "teach-status"); }
  const isPhoto = (file) => server.suffixes.some((suffix) => file.name.toLowerCase().endsWith(suffix));
  return found.filter(isPhoto).sort((a, b) => a.name.localeCompare(b.name));
}

// A place that takes dropped photos.
function takesDrops(place, take) {
  place.addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("over"); });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    place.classList.remove("over");
    dropped(event).then(take);
  });
}

// The camera: one stream, shown in one of two places.
let stream = null;
async function openCamera(video) {
  if (!navigator.mediaDevices) throw new Error("the browser gives pages the camera only on this machine or over https");
  stream = stream || await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  video.srcObject = stream;
  await video.play();
}
function closeCamera() {
  for (const track of stream ? stream.getTracks() : []) track.stop();
  stream = null;
}
function frame(video) {
  const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}
async function live() {
  while (stream && !$("camera").hidden) {
    if (current().classifier && $("video").videoWidth) {
      try {
        const found = await classify(await frame($("video")), 3);
        fillBars($("live"), found.labels, found.scores);
      } catch (error) { say(error.message); await pause(1000); }
    }
    await pause(50);
  }
}
async function startCamera() {
  if (!$("camera").hidden) { $("shoot").focus(); return; }
  try {
    await openCamera($("video"));
    $("camera").hidden = false;
    $("shoot").focus();
    live();
  } catch (error) { say(`No camera: ${error.message}`); }
}
function stopCamera() {
  closeCamera();
  $("camera").hidden = true;
  $("camera-start").focus();
}

function fillModules(chosen) {
  $("module").replaceChildren(...server.modules.map((m) => element("option", { value: m.name }, m.name)));
  if (chosen) $("module").value = chosen;
}

fillModules();
takesDrops($("drop"), addPhotos);
document.addEventListener("dragover", (event) => event.preventDefault());
// While classes are filled, a photo that misses all of them belongs to none.
const missed = (take) => ($("teach").hidden ? take() : say("Drop photos onto one of the classes.", "teach-status"));
document.addEventListener("drop", (event) => { event.preventDefault(); missed(() => dropped(event).then(addPhotos)); });
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) { event.preventDefault(); missed(() => addPhotos(files)); }
});
$("choose").onclick = () => $("files").click();
$("files").onchange = () => { addPhotos([...$("files").files]); $("files").value = ""; };
$("camera-start").onclick = startCamera;
$("camera-stop").onclick = stopCamera;
$("shoot").onclick = async () => addPhotos([new File([await frame($("video"))], `camera ${results.length + 1}.jpg`, { type: "image/jpeg" })]);
$("csv").onclick = csv;
$("clear").onclick = () => { results.length = waiting.length = 0; $("photos").replaceChildren(); next(); $("choose").focus(); };
