"""The page in a real browser (Debian's chromium): every way in, by mouse and by keyboard, and nothing leaves it."""

import base64
import os
import shutil
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from serving import CAT, embedded, photos, running

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]
# Where the pictures of docs/serving.md go (docs/pictures, when they are made anew); None: nowhere.
PICTURES = os.environ.get("MOBILENET_HUB_SERVE_PICTURES")

DROP = """([target, kind, files]) => {
  const data = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    data.items.add(new File([bytes], name, {type: "image/jpeg"}));
  }
  const place = document.querySelector(target);
  const event = kind === "paste"
    ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true})
    : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
  place.dispatchEvent(event);
}"""


def hand_over(page, files, target="#drop", kind="drop"):
    page.evaluate(DROP, [target, kind, [[name, base64.b64encode(data).decode()] for name, data in files]])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running("--teach", str(tmp_path_factory.mktemp("teach"))) as started:
        yield started


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tools:
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        started = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield started
        started.close()


@contextmanager
def opened(browser, url, *, answer=None, **options):
    """Open a page; at the end nothing must have gone elsewhere, nothing been complained of, and no dialog come unasked.

    Args:
        browser: the browser.
        url: of the server.
        answer: what is typed into a dialog; None: dialogs are accepted, and those of scripts are errors.
        options: of the window.
    """
    context = browser.new_context(**options)
    page = context.new_page()
    asked, complaints, dialogs = [], [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: complaints.append(str(e)))

    def accept(dialog):
        dialogs.append((dialog.type, dialog.message))
        dialog.accept(answer)

    page.on("dialog", accept)
    page.goto(url)
    page.dialogs = dialogs
    yield page
    context.close()
    assert [each for each in asked if not each.startswith((url, "blob:", "data:"))] == []
    # What Chromium itself notes of an answer with an error status is no error of the page.
    assert [text for text in complaints if "the server responded with a status of 40" not in text] == []
    assert [each for each in dialogs if each[0] == "alert"] == []


@pytest.fixture
def page(browser, server, request):
    """The page, opened."""
    with opened(browser, server.url, **getattr(request, "param", {})) as found:
        yield found


def until(page, expression, arg=None, timeout_s=20):
    """Wait until an expression is true: asked by the debugger, as the page's policy lets nothing be evaluated in it."""
    end = time.monotonic() + timeout_s
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def picture(page, name):
    """Keep what is seen for docs/serving.md, where the environment says so."""
    if PICTURES:
        from PIL import Image

        file = Path(PICTURES) / f"{name}.png"
        page.screenshot(path=file, full_page=True)
        with Image.open(file) as seen:
            few = seen.convert("RGB").quantize(192)
        few.save(file, optimize=True)


def serious(page):
    """Return what axe-core finds that is serious."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    source = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(source)  # by the debugger: the page's own policy would not let it in
    found = page.evaluate("axe.run()")["violations"]
    return [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]


def test_a_dropped_photo_gets_its_label(page, server):
    hand_over(page, [("cat.jpg", CAT.read_bytes())])
    page.wait_for_selector("#photos .bars li")
    assert page.locator("#photos .bars li").count() == 5
    assert "Egyptian cat" in page.locator("#photos .bars li").first.inner_text()
    assert page.locator("#status").inner_text() == "cat.jpg: Egyptian cat"
    page.wait_for_timeout(400)
    picture(page, "serve_light")
    assert serious(page) == []


def test_a_photo_shows_why_and_itself_again(page):
    hand_over(page, [("cat.jpg", CAT.read_bytes())])
    why = page.get_by_role("button", name="Show why: which part of cat.jpg spoke for Egyptian cat")
    why.focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#photos img').src.startsWith('data:image/jpeg')")
    assert page.locator("#photos img").get_attribute("alt").startswith("What spoke for Egyptian cat: most of it")
    assert "Colored is what spoke for Egyptian cat" in page.locator("#photos").inner_text()
    assert (why.get_attribute("aria-pressed"), page.evaluate("document.activeElement.ariaPressed")) == ("true", "true")
    until(page, "document.querySelector('#photos img').naturalWidth > 0")
    picture(page, "serve_why")
    assert serious(page) == []
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#photos img').src.startsWith('blob:')")
    assert (why.get_attribute("aria-pressed"), page.locator("#photos img").get_attribute("alt")) == ("false", "")


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_many_photos_and_a_broken_one_in_the_dark(page):
    files = [(f"photo {n}.jpg", data) for n, data in enumerate(photos(7))] + [("broken.jpg", b"\xff\xd8\xff broken")]
    hand_over(page, files)
    until(page, "document.querySelectorAll('#photos .bars').length === 7")
    page.wait_for_selector("#photos .bad")
    assert "picture 0" in page.locator("#photos .bad").inner_text()
    until(page, "document.querySelector('#status').textContent.includes('1 of them could not be read')")
    with page.expect_download() as download:
        page.click("#csv")
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0] == '"name","module","label","score","error"'
    assert len(lines) == 9
    assert any(line.startswith('"broken.jpg"') and "JPEG" in line for line in lines)
    page.wait_for_timeout(400)
    picture(page, "serve_dark")
    assert serious(page) == []


@pytest.mark.parametrize("page", [{"viewport": {"width": 375, "height": 740}}], indirect=True)
def test_a_pasted_photo_on_a_phone(page):
    hand_over(page, [("image.png", CAT.read_bytes())], target="body", kind="paste")
    page.wait_for_selector("#photos .bars li")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.wait_for_timeout(400)
    picture(page, "serve_phone")
    assert serious(page) == []


def test_the_keyboard_alone(page, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(CAT.read_bytes())
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "choose":
            break
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(tmp_path / "cat.jpg")
    page.wait_for_selector("#photos .bars li")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the camera
    page.wait_for_selector("#live li")
    assert page.evaluate("document.activeElement.id") == "shoot"
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#photos .card').length === 2")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # stops the camera
    assert page.evaluate("document.activeElement.id") == "camera-start"


def coloured(colour, count, seed):
    """Return JPEGs of one colour with noise."""
    from io import BytesIO

    from PIL import Image

    random = np.random.default_rng(seed)
    files = []
    for number in range(count):
        pixels = np.clip(random.normal(0, 25, (120, 160, 3)) + colour, 0, 255).astype(np.uint8)
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG")
        files.append((f"{number}.jpg", stream.getvalue()))
    return files


def test_teach_two_classes_and_classify_with_them(page):
    page.click("#to-teach")
    for name in ("sky", "grass & moss"):
        page.fill("#class-name", name)
        page.keyboard.press("Enter")
        until(page, "(n) => [...document.querySelectorAll('#classes h3')].some(h => h.textContent === n)", arg=name)
    assert page.locator("#train").is_disabled()
    hand_over(page, coloured((90, 140, 230), 12, 1), target="#classes .card:nth-child(2)")
    hand_over(page, coloured((60, 150, 50), 12, 2), target="#classes .card:nth-child(1)")
    until(page, "[...document.querySelectorAll('#classes .card .quiet')].every(p => p.textContent === '12 photos')")
    page.get_by_label("Hold for photos of the camera for grass & moss").dispatch_event("pointerdown")
    until(page, "[...document.querySelectorAll('#classes .card .quiet')].some(p => p.textContent !== '12 photos')")
    page.get_by_label("Hold for photos of the camera for grass & moss").dispatch_event("pointerup")
    page.click("#train")
    page.wait_for_selector("#taught", timeout=120_000)
    assert "%" in page.locator("#accuracy").inner_text()
    picture(page, "serve_teach")
    assert serious(page) == []
    with page.expect_download() as download:
        page.click("[data-format=module]")
    import zipfile

    with zipfile.ZipFile(download.value.path()) as archive:
        assert {"module/module.json", "module/labels.txt"} <= set(archive.namelist())
    if find_spec("onnx") and find_spec("onnxruntime"):
        with page.expect_download(timeout=120_000) as download:
            page.click("[data-format=onnx]")
        assert download.value.suggested_filename == "module.onnx"
        import onnxruntime

        session = onnxruntime.InferenceSession(download.value.path())
        assert session.get_outputs()[0].shape[-1] == 2
    page.click("#try")
    blue, green = coloured((90, 140, 230), 1, 3)[0][1], coloured((60, 150, 50), 1, 4)[0][1]
    hand_over(page, [("green.jpg", green), ("blue.jpg", blue)])
    until(page, "document.querySelectorAll('#photos .bars').length === 2")
    names = page.locator("#photos h3").all_inner_texts()
    labels = page.locator("#photos .bars li:first-child .label").all_inner_texts()
    assert dict(zip(names, labels, strict=True)) == {"green.jpg": "grass & moss", "blue.jpg": "sky"}


def test_names_are_text_and_nothing_else(browser, tmp_path):
    """Of photos, of modules and of labels: whatever they hold, the page shows it and runs none of it."""
    from dataclasses import replace

    from mobilenet_hub.module import Module
    from mobilenet_hub.module_folder import read_module, write_module
    from mobilenet_hub.store import resolve

    module = read_module(resolve("starter"))
    bad = "<img src=x onerror=alert(1)>"
    folder = tmp_path / f"{bad}<!--<script>"
    labels = tuple(f"{bad}{label}" for label in module.config.labels)
    write_module(folder, Module(replace(module.config, labels=labels), module.weights))
    with running(str(folder)) as server, opened(browser, server.url) as page:
        hand_over(page, [(f"{bad}.jpg", CAT.read_bytes()), (f"{bad}2.jpg", b"broken")])
        until(page, "document.querySelectorAll('#photos .bars').length === 1")
        page.wait_for_selector("#photos .bad")
        assert page.locator("#photos h3").all_inner_texts() == [f"{bad}.jpg", f"{bad}2.jpg"]
        assert page.locator("#photos .label").first.inner_text() == f"{bad}Egyptian cat"
        assert page.locator("#module option").inner_text() == folder.name
        assert page.locator("img[src=x]").count() == 0


def test_without_teach_the_page_teaches_nothing(browser):
    with running() as server, opened(browser, server.url) as page:
        assert not page.locator("#to-teach").is_visible()
        assert not page.locator("#teach").is_visible()


def test_a_token_is_asked_for_once(browser):
    with running("--token", "sesame") as server, opened(browser, server.url, answer="sesame") as page:
        hand_over(page, [(f"{n}.jpg", data) for n, data in enumerate(photos(6))])
        until(page, "document.querySelectorAll('#photos .bars').length === 6")
        assert [kind for kind, _ in page.dialogs] == ["prompt"]


def test_similar_photos_where_there_is_an_index(browser, tmp_path):
    features = embedded(tmp_path, {f"view {index}.jpg": data for index, data in enumerate(photos(6))})
    with running("--index", features) as server, opened(browser, server.url) as page:
        hand_over(page, [("mine.jpg", photos(6)[3])])
        page.wait_for_selector("#photos .similar li")
        found = page.locator("#photos .similar li").all_inner_texts()
        assert len(found) == 5
        assert "view 3.jpg (1.000)" in found[0]
        assert serious(page) == []


def test_a_folder_is_dropped_as_from_the_desktop(page, tmp_path):
    """By the debugger, as a file manager drops: synthetic events cannot carry folders."""
    files = photos(3)
    (tmp_path / "trip" / "day 2").mkdir(parents=True)
    for name, data in zip(("b.jpg", "a.JPG", "day 2/c.png"), files, strict=True):
        (tmp_path / "trip" / name).write_bytes(data)
    (tmp_path / "trip" / "notes.txt").write_text("no photo")
    (tmp_path / "trip" / ".hidden.jpg").write_bytes(b"")
    box = page.locator("#drop").bounding_box()
    place = {"x": box["x"] + 20, "y": box["y"] + 20}
    data = {"items": [], "files": [str(tmp_path / "trip")], "dragOperationsMask": 1}
    debugger = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        debugger.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    until(page, "document.querySelectorAll('#photos .bars').length === 3")
    assert page.locator("#photos h3").all_inner_texts() == ["a.JPG", "b.jpg", "c.png"]


def test_classes_are_taught_by_the_keyboard_alone(page, tmp_path):
    def to(name):
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("[document.activeElement.ariaLabel, document.activeElement.textContent.trim()]").count(
                name
            ):
                return
            if page.evaluate("document.activeElement.id") == name:
                return
        raise AssertionError(f"no {name} by the keyboard")

    to("Teach")
    page.keyboard.press("Enter")
    for name in ("red", "white"):
        until(page, "!document.querySelector('#teach').hidden")
        page.evaluate("document.activeElement.blur()")
        to("class-name")
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        until(page, "(n) => [...document.querySelectorAll('#classes h3')].some(h => h.textContent === n)", arg=name)
    assert serious(page) == []
    hand_over(page, [("lost.jpg", CAT.read_bytes())], target="#teach h2")
    assert "onto one of the classes" in page.locator("#teach-status").inner_text()
    assert page.locator("#photos li").count() == 0
    for name, colour in (("red", (200, 60, 50)), ("white", (230, 230, 225))):
        paths = []
        for file, data in coloured(colour, 6, 5):
            paths.append(tmp_path / f"{name}{file}")
            paths[-1].write_bytes(data)
        chosen = []
        page.once("filechooser", lambda chooser, chosen=chosen: chosen.append(chooser))
        end = time.monotonic() + 60
        while not chosen:  # on a busy machine Chromium has let a key go by
            assert time.monotonic() < end, "no file chooser by the keyboard"
            page.evaluate("document.activeElement.blur()")
            to(f"Add photos to {name}")
            page.keyboard.press("Enter")
            page.wait_for_timeout(3000)
        chosen[0].set_files(paths)
        shown = "(n) => [...document.querySelectorAll('#classes .card')].some("
        shown += "c => c.querySelector('h3').textContent === n && c.dataset.photos !== '' && "
        until(page, shown + "c.querySelector('.quiet').textContent === '6 photos')", arg=name)
    to(f"Hold for photos of the camera for {name}")
    page.keyboard.down("Space")
    page.wait_for_selector("#teach-camera")
    page.keyboard.up("Space")
    to("Remove red")
    page.evaluate("teachAsk('/teach/classes?name=amber', {method: 'POST'})")  # a class before it, as from another tab
    until(page, "[...document.querySelectorAll('#classes h3')].some(h => h.textContent === 'amber')")
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove red"
    page.keyboard.press("Enter")
    until(page, "![...document.querySelectorAll('#classes h3')].some(h => h.textContent === 'red')")
    assert page.evaluate("document.activeElement.id") == "class-name"
    page.click("#to-classify")
    until(page, "stream === null")  # the camera does not go on where nobody sees it


def test_an_answer_that_comes_late_changes_nothing(browser, tmp_path):
    with running("--teach", str(tmp_path)) as server, opened(browser, server.url) as page:
        page.evaluate(
            """() => {
              const real = window.fetch;
              window.fetch = async (path, options) => {
                const answer = await real(path, options);
                if (path === "/teach" && !window.letGo) await new Promise((go) => { window.letGo = go; });
                return answer;
              };
            }"""
        )
        page.click("#to-teach")  # asks what there is, and the answer is held back
        until(page, "!!window.letGo")
        page.fill("#class-name", "newer")
        page.keyboard.press("Enter")
        page.wait_for_selector("#classes h3")
        page.evaluate("async () => { window.letGo(); await new Promise((done) => setTimeout(done, 200)); }")
        assert page.locator("#classes h3").all_inner_texts() == ["newer"]
