"""`classify --explain`: a page with a map for each photo, bounded, whole or not at all, never over a file of others."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_photos import jpeg, make_work

from mobilenet_hub.cli.main import main
from mobilenet_hub.evaluation.explained import ExplainedPage, place
from mobilenet_hub.evaluation.page import MAX_SHOWN
from mobilenet_hub.inference.classify import Classifier

CAT = Path(__file__).resolve().parents[1] / "examples" / "cat.jpg"


class Images(HTMLParser):
    """The pictures of a page: (alt, array)."""

    def __init__(self, text):
        super().__init__()
        self.found, self.fetched = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        source = given.get("src") or given.get("href") or ""
        if tag == "img" and source.startswith("data:image/jpeg;base64,"):
            with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
                self.found.append((given["alt"], np.asarray(image)))
        elif source:
            self.fetched.append(source)


@pytest.fixture
def work(tmp_path, monkeypatch):
    make_work(tmp_path, 6, {"003.jpg": b"no picture"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_page_shows_each_photo_and_its_maps(work, capsys):
    assert main(["classify", "photos", "--module", "m", "--explain", "why.html", "--top", "2", "--json"]) == 1
    out, err = capsys.readouterr()
    said = json.loads(out)["predictions"]
    text = (work / "why.html").read_text("utf-8")
    shown = Images(text)
    assert shown.fetched == []
    assert len(shown.found) == 5 * 3
    for number, prediction in enumerate(said):
        photo, *maps = shown.found[3 * number : 3 * number + 3]
        name = Path(prediction["path"]).name
        assert photo[0] == name and photo[1].shape == (32, 32, 3)
        for (alt, _), label in zip(maps, prediction["labels"], strict=True):
            assert re.fullmatch(rf"What spoke for {label} in {name}: (most of it .+|nowhere)", alt)
        assert f"<strong>{prediction['labels'][0]}</strong>" in text
    assert "003.jpg" in text and "003.jpg" in err  # the unreadable one, with its reason
    assert main(["classify", "photos/000.jpg", "--module", "m", "--explain", "why.html", "--quiet"]) == 0
    assert len(Images((work / "why.html").read_text("utf-8")).found) == 2  # our own page gives way


def test_the_labels_are_those_of_classify(work, capsys):
    main(["classify", "photos", "--module", "m", "--json"])
    plain = json.loads(capsys.readouterr().out)
    main(["classify", "photos", "--module", "m", "--json", "--explain", "why.html"])
    assert json.loads(capsys.readouterr().out) == plain


def test_what_is_colored_lies_where_the_photo_lies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with Image.open(CAT) as image:
        face = image.convert("RGB").resize((160, 160))
    for name, corner in {"ul": (0, 0), "ur": (160, 0), "ll": (0, 160), "lr": (160, 160)}.items():
        sheet = Image.new("RGB", (480, 320), (128, 128, 128))
        sheet.paste(face, (80 + corner[0], corner[1]))
        sheet.save(f"{name}.png")
    assert main(["classify", "ul.png", "ur.png", "ll.png", "lr.png", "--explain", "why.html", "--quiet"]) == 0
    for (alt, drawn), corner in zip(
        Images(Path("why.html").read_text("utf-8")).found[1::2], [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True
    ):
        vivid = drawn.astype(int).max(2) - drawn.min(2)  # the photo beneath is gray
        sums = np.array([[part.sum() for part in np.array_split(h, 2, 1)] for h in np.array_split(vivid, 2, 0)])
        assert np.unravel_index(sums.argmax(), (2, 2)) == corner, alt


def test_too_many_photos_are_counted(work, capsys):
    page = ExplainedPage(top=3)
    (one,) = Classifier("m").explain(jpeg(0), top=3)
    for _ in range(MAX_SHOWN):
        page.add(one)
    assert page.photos == MAX_SHOWN // 4 and page.more == MAX_SHOWN - page.photos
    text = page.render("why", "")
    assert f"and {page.more} more photos" in text and len(Images(text).found) == 4 * page.photos
    assert len(text) < 50_000 * MAX_SHOWN
    alone = ExplainedPage(top=10 * MAX_SHOWN)
    alone.add(one)
    assert alone.photos == 1 and alone.full


def test_an_unsure_photo_has_no_map(work, capsys):
    argv = ["classify", "photos/000.jpg", "--module", "m", "--explain", "why.html", "--min-score", "1", "--top", "3"]
    assert main(argv) == 0
    text = (work / "why.html").read_text("utf-8")
    assert "No answer" in text and len(Images(text).found) == 1


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--explain", "mine.html"], "mine.html exists and was not written by this program"),
        (["--explain", "photos/000.jpg"], "ends in .html"),
        (["--explain", "nowhere/why.html"], "does not exist"),
        (["--explain", "why.html", "-o", "labels.csv"], "one at a time"),
        (["--explain", "why.html", "--precision", "int8"], "int8"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(work, capsys, more, text):
    (work / "mine.html").write_text("my own page")
    before = sorted(work.rglob("*"))
    assert main(["classify", "photos", "--module", "m", *more]) == 2
    assert text in capsys.readouterr().err
    assert sorted(work.rglob("*")) == before and (work / "mine.html").read_text() == "my own page"
    if "mine.html" in more:
        assert main(["classify", "photos/000.jpg", "--module", "m", *more, "--force", "--quiet"]) == 0
        assert "data:image" in (work / "mine.html").read_text("utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_page_that_cannot_be_written_leaves_what_was_there(work, capsys):
    assert main(["classify", "photos", "--module", "m", "--explain", "why.html", "--quiet"]) == 1
    before = (work / "why.html").read_bytes()
    code = (
        "import resource, sys; from mobilenet_hub.cli.main import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "sys.exit(main(['classify', 'photos', '--module', 'm', '--explain', 'why.html', '--precision', 'f32']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "why.html cannot be written" in done.stderr
    assert (work / "why.html").read_bytes() == before
    assert [entry for entry in work.iterdir() if "partial" in entry.name] == []


def test_a_quantized_module_is_refused_with_the_reason(shared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = str(shared("weights/tflite/mobilenet_v1_0.5_160_quant.tflite"))
    assert main(["convert", source, "-o", "q", "--quiet"]) == 0
    assert main(["classify", str(CAT), "--module", "q", "--explain", "why.html"]) == 2
    assert "quantized LiteRT file" in capsys.readouterr().err and not Path("why.html").exists()


def test_names_that_are_no_text_are_shown(work, capsys):
    name = os.fsdecode(b"photos/caf\xe9 <b>.jpg")
    try:
        Path(name).write_bytes(jpeg(1))
    except OSError:
        pytest.skip("this disk takes no such names")
    assert main(["classify", name, "--module", "m", "--explain", "why.html", "--quiet"]) == 0
    text = (work / "why.html").read_text("utf-8")
    assert "\\udce9 &lt;b&gt;" in text and len(Images(text).found) == 2


def test_a_place_is_said_in_words():
    heat = np.zeros((9, 9))
    assert place(heat) == "nowhere"
    heat[0, 8] = 1
    assert place(heat) == "most of it in the upper right"
    heat[8, 8] = 1
    assert place(heat) == "most of it on the right"
    heat[:, 0] = heat[:, 8]
    assert place(heat) == "most of it around the middle"
    heat[0] += 5
    assert place(heat) == "most of it in the upper part"
