"""What the program says to what people type: names that are nearly right, things of another kind, words swapped."""

import shlex
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest
from small_photos import jpeg

import mobilenet_hub as hub
from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.cli.main import main

STARTER = Path(hub.__file__).parent / "starter"
CAT = str(Path(__file__).parents[1] / "examples/cat.jpg")


def said(capsys, *words, status=2):
    assert main(list(words)) == status
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("classify", CAT), "classification"),
        (("evaluate",), "classification"),
        (("embed", CAT, "-o", "out"), "feature_vector"),
        (("train", "photos", "-o", "out"), "feature_vector"),
    ],
)
@pytest.mark.parametrize("name", ["mobilenet_v1_025_128", "google/imagenet/mobilenet_v1_025_128"])
def test_the_name_of_a_network_is_the_kind_of_module_that_a_verb_takes(
    words, kind, name, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for label in ("ant", "bee"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        shutil.copy(CAT, tmp_path / "photos" / label / f"{label}.jpg")
    words = (*words, name, "photos") if words[0] == "evaluate" else (*words, "--module", name)
    handle = f"google/imagenet/mobilenet_v1_025_128/{kind}/5"
    assert handle in said(capsys, *words)  # it is not here, and this is what would be fetched
    with pytest.raises(hub.OfflineError, match=handle):
        hub.Classifier(name) if kind == "classification" else hub.Embedder(name)
    assert "choose mobilenet_v1_025_128/classification, mobilenet_v1_025_128/feature" in said(capsys, "pull", name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mobilenet_v2_1.0_224", "mobilenet_v2_100_224/classification"),
        ("mobilenet_v1_0.25_128", "mobilenet_v1_025_128/classification"),
        ("mobilenet_v1_0.5_160/feature_vector", "mobilenet_v1_050_160/feature_vector"),
        ("MobileNetV2", "mobilenet_v2_100_224/classification"),
        ("mobilenet-v1", "mobilenet_v1_100_224/classification"),
        ("MobileNet V2 1.4 224", "mobilenet_v2_140_224/classification"),
        ("mobilenet_v2_130_224/clasification", "mobilenet_v2_130_224/classification"),
    ],
)
def test_other_spellings_get_the_module_that_is_meant(name, meant, capsys):
    text = said(capsys, "classify", CAT, "--module", name)
    assert meant in text
    assert find_module(meant)


@pytest.mark.parametrize(
    "name",
    [
        "google/nnlm-en-dim50/2",
        "https://tfhub.dev/google/imagenet/efficientnet_v2_imagenet1k_b0/feature_vector/2",
        "https://tfhub.dev/google/imagenet/resnet_v2_50/classification/5",
        "google/imagenet/mobilenet_v3_large_100_224/feature_vector/5",
        "mobilenet_v3",
        "resnet50",
    ],
)
def test_other_families_stay_with_tensorflow_hub(name, capsys):
    text = said(capsys, "classify", CAT, "--module", name)
    assert "is not a MobileNet V1 or V2, and only those are here" in text
    assert "keep tensorflow_hub for this one" in text


@pytest.mark.parametrize("name", ["ants-or-bee", "./ants-or-bee", "ants_or_bees"])
def test_a_folder_that_does_not_exist_is_no_handle(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(STARTER, tmp_path / "ants-or-bees")
    assert "did you mean ./ants-or-bees?" in said(capsys, "classify", CAT, "--module", name)


def test_a_failed_pull_has_a_line_for_each_source_and_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "off")
    nobody = "http://127.0.0.1:9"
    monkeypatch.setenv("MOBILENET_HUB_SOURCES", f"tfhub={nobody},gcs={nobody}/gcs")
    lines = said(capsys, "pull", "mobilenet_v1_025_128/classification").splitlines()
    assert lines[0].endswith("classification/5 could not be fetched:")
    assert lines[1].startswith("  tfhub, http://127.0.0.1:9/")
    assert lines[-1].startswith("Put its module folder")
    assert "MOBILENET_HUB_MIRROR" in lines[-1]
    assert "mobilenet convert" in lines[-1]


def test_the_cache_alone_lists(capsys):
    assert main(["cache"]) == 0
    assert "0 modules" in capsys.readouterr().err


def test_evaluate_with_its_words_swapped_says_the_right_order(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(STARTER, "my module")
    Path("photos/ant").mkdir(parents=True)
    shutil.copy(CAT, "photos/ant")
    for module in ("starter", "my module", "mobilenet_v1_025_128/classification"):
        right = f"`mobilenet evaluate {shlex.quote(module)} photos`"
        assert right in said(capsys, "evaluate", "photos", module)


@pytest.mark.parametrize("address", ["https://example.com/cat.jpg", "http://example.com/photos.zip"])
def test_an_address_is_no_photo_and_no_folder(address, capsys):
    assert f"{address}: an address: download it first" in said(capsys, "classify", address, status=1)
    assert "is an address; download it first" in said(capsys, "train", address, "-o", "out")


def labelled(folder, names=("ant", "bee"), count=3):
    for index, label in enumerate(names):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            (folder / label / f"{number}.jpg").write_bytes(jpeg(1000 * index + number))
    return folder


def test_train_names_its_output_and_says_what_comes_next(capsys, tmp_path, monkeypatch):
    folder = labelled(tmp_path / "my pets")
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or len(opened) > 1)
    assert main(["train", str(folder), "--open", "--views", "1"]) == 0
    module = tmp_path / "my pets-classifier"
    assert (module / "module.json").is_file()
    err = capsys.readouterr().err
    assert f"next: mobilenet classify PHOTOS --module '{module}'\n      mobilenet serve '{module}'" in err
    assert opened == [(module / "report.html").as_uri()]
    assert f"open {opened[0]}" in err.splitlines()[-1]  # where there is no browser
    monkeypatch.chdir(folder)
    assert main(["train", ".", "--views", "1"]) == 2  # beside it, where the first one is
    assert "my pets-classifier exists" in capsys.readouterr().err
    words = ["evaluate", str(module), ".", "--open"]
    assert "-o report.html" in said(capsys, *words)
    assert main([*words, "-o", str(tmp_path / "page.html")]) == 0
    assert opened[1] == (tmp_path / "page.html").as_uri()


@pytest.mark.parametrize("command", ["train", "embed"])
def test_an_interrupt_says_where_the_work_is_and_that_the_same_command_goes_on(command, tmp_path):
    labelled(tmp_path / "photos", count=40)
    code = (
        "import signal, sys, mobilenet_hub.cli.main as main\n"
        "from mobilenet_hub.inference.engine import Engine\n"
        "run, calls = Engine.run, []\n"
        "def interrupted(self, batch):\n"
        "    calls.append(0)\n"
        "    if len(calls) == 2: signal.raise_signal(signal.SIGINT)\n"
        "    return run(self, batch)\n"
        "Engine.run = interrupted\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.exit(main.main())"
    )
    words = [command, "photos", "-o", "out", *(["--views", "1"] if command == "train" else ["--shard-size", "10"])]
    run = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 130
    work = "out.work" if command == "train" else "out"
    assert run.stderr.splitlines()[-1] == f"interrupted; work kept in {work}: the same command goes on from there"
    assert (tmp_path / work).is_dir()
    assert subprocess.run([sys.executable, "-m", "mobilenet_hub.cli.main", *words], cwd=tmp_path).returncode == 0
