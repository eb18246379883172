"""The split: stable under growth, honest about copies and leaks, clear about folders that cannot be used."""

import os
import shutil
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenet_hub.errors import InputError
from mobilenet_hub.evaluation.dataset import SPLITS, Skipped, read_dataset, read_examples


def fill(folder, files):
    """Write files whose content is their name, or what a dictionary says."""
    contents = files if isinstance(files, dict) else {name: name for name in files}
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def numbered(label, count, start=0):
    return [f"{label}/{i}.jpg" for i in range(start, start + count)]


def splits(dataset):
    return {example.name: example.split for example in dataset.examples}


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "photos", [*numbered("cat", 150), *numbered("dog", 150)])


def test_pipes_are_left_out(folder):
    os.mkfifo(folder / "cat" / "pipe.jpg")
    assert read_dataset(folder).skipped == (Skipped(str(folder / "cat" / "pipe.jpg"), "not a regular file"),)


def test_shares_seed_and_order(folder):
    dataset = read_dataset(folder)
    assert dataset.labels == ("cat", "dog")
    counts = Counter(example.split for example in dataset.examples)
    assert counts["test"] == pytest.approx(60, abs=25)  # 3.6 standard deviations
    assert counts["validation"] == pytest.approx(30, abs=19)
    assert read_dataset(folder) == dataset
    assert splits(read_dataset(folder, seed=1)) != splits(dataset)
    assert [e.name for e in dataset.examples] == sorted(e.name for e in dataset.examples)
    assert dataset.counts() == (150, 150)


def test_adding_photos_moves_none(folder):
    before = splits(read_dataset(folder))
    fill(folder, [*numbered("cat", 90, 500), *numbered("emu", 40), "dog/new/deep.png"])
    after = splits(read_dataset(folder))
    assert before.items() <= after.items()


def test_moving_the_folder_moves_none(folder, tmp_path):
    before = splits(read_dataset(folder))
    shutil.move(folder, tmp_path / "elsewhere")
    assert splits(read_dataset(tmp_path / "elsewhere")) == before


@given(st.sets(st.text("abcdefgh_-é ", min_size=1).filter(str.strip), min_size=1, max_size=8))
def test_variants_stay_together(tmp_path_factory, stems):
    folder = tmp_path_factory.mktemp("photos")
    fill(folder, numbered("other", 40))
    fill(folder, [f"cat/x{stem}{end}" for stem in stems for end in (".jpg", "_nohash_1.jpg", "_nohash_2_b.png")])
    found = splits(read_dataset(folder))
    for stem in stems:
        group = {split for name, split in found.items() if name.startswith((f"cat/x{stem}.", f"cat/x{stem}_nohash_"))}
        assert len(group) == 1


def test_a_planted_leak_is_caught(folder):
    clean = read_dataset(folder)
    held_out = [example for example in clean.examples if example.split != "train"]
    for number, example in enumerate(held_out):
        shutil.copy(
            example.path,
            folder / "cat" / f"copy {number}.jpg" if example.label == 0 else folder / "dog" / f"copy {number}.jpg",
        )
    leaked = read_dataset(folder)
    training = {example.digest for example in leaked.part("train")}
    assert not training & {example.digest for example in held_out}
    assert training == {example.digest for example in clean.part("train")}
    assert len({example.digest for example in leaked.examples}) == len(leaked.examples)
    assert f"{len(held_out)} photos are copies" in leaked.warnings[0]
    assert "leaked" not in leaked.warnings[0]  # by its content a copy falls into the part of what it is a copy of


def test_a_photo_in_two_classes_is_left_out_and_named(folder):
    shutil.copy(folder / "cat/3.jpg", folder / "dog/three.jpg")
    dataset = read_dataset(folder)
    assert {skip.path.name for skip in dataset.skipped} == {"3.jpg", "three.jpg"}
    assert "'cat', 'dog'" in dataset.skipped[0].reason
    assert "cat/3.jpg" not in splits(dataset)


def test_given_parts_are_kept_and_a_lone_held_out_part_is_the_test(tmp_path):
    files = [
        f"{part}/{name}" for part, n in (("train", 60), ("val", 20)) for name in (*numbered("a", n), *numbered("b", n))
    ]
    dataset = read_dataset(fill(tmp_path, files))
    assert {e.path.relative_to(tmp_path).parts[0] for e in dataset.part("test")} == {"val"}
    assert len(dataset.part("test")) == 40
    assert {e.path.relative_to(tmp_path).parts[0] for e in dataset.part("validation")} == {"train"}
    fill(tmp_path, [*(f"test/{n}" for n in numbered("a", 10)), *(f"test/{n}" for n in numbered("b", 10))])
    assert [len(read_dataset(tmp_path).part(split)) for split in SPLITS] == [120, 40, 20]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables(tmp_path, suffix):
    fill(tmp_path, [f"photos/{i} ü.jpg" for i in range(30)])
    paths, labels = [f"photos/{i} ü.jpg" for i in range(30)], ["Käse", "other one"] * 15
    table = tmp_path / f"table{suffix}"
    if suffix == ".csv":
        lines = "".join(f'"{p}",{label}\n' for p, label in zip(paths, labels, strict=True))
        table.write_text(f"path,label\n{lines}missing.jpg,Käse\n", "utf-8-sig")
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"path": [*paths, "missing.jpg"], "label": [*labels, "Käse"]}), table)
    dataset = read_dataset(table)
    assert dataset.labels == ("Käse", "other one")
    assert dataset.counts() == (15, 15)
    assert [skip.path.name for skip in dataset.skipped] == ["missing.jpg"]


@pytest.mark.parametrize("way", ["relative", "absolute", "elsewhere", "up", "renamed"])
def test_the_same_photo_lands_in_the_same_part_however_its_path_is_written(folder, tmp_path, way):
    expected = {example.digest: example.split for example in read_dataset(folder).examples}
    other = shutil.copytree(folder, tmp_path / "another machine" / "home" / "me")
    table = {"relative": folder, "up": folder / "cat"}.get(way, tmp_path / "far") / "table.csv"
    table.parent.mkdir(exist_ok=True)
    lines = ["path,label"]
    for label in ("cat", "dog"):
        for photo in sorted((folder / label).iterdir()):
            elsewhere = other / label / photo.name
            if way == "renamed":
                elsewhere = elsewhere.rename(elsewhere.with_name(f"photo of {photo.name}"))
            inside = f"{label}/{photo.name}"
            shown = {"relative": inside, "absolute": photo, "up": f"../{inside}"}.get(way, elsewhere)
            lines.append(f"{shown},{label}")
    table.write_text("\n".join(lines))
    found = read_dataset(table)
    assert {example.digest: example.split for example in found.examples} == expected
    assert not any(str(tmp_path) in example.name for example in found.examples)  # whose home it lies in


def test_evaluation_treats_copies_as_training_does(folder):
    shutil.copy(folder / "cat" / "1.jpg", folder / "cat" / "copy.jpg")
    shutil.copy(folder / "cat" / "2.jpg", folder / "dog" / "both.jpg")
    trained, judged = read_dataset(folder), read_examples(folder, ["cat", "dog"])
    assert {e.digest for e in judged.examples} == {e.digest for e in trained.examples}
    assert len(judged.examples) == 299
    assert judged.warnings == trained.warnings
    assert judged.skipped == trained.skipped
    assert len(judged.skipped) == 2


def test_a_table_may_give_the_parts(tmp_path):
    fill(tmp_path, [f"{i}.jpg" for i in range(12)])
    rows = "".join(f"{i}.jpg,{'ab'[i % 2]},{('train', 'val', 'test')[i // 2 % 3]}\n" for i in range(12))
    (tmp_path / "t.csv").write_text(f"path,label,split\n{rows}")
    assert [read_dataset(tmp_path / "t.csv").counts(split) for split in SPLITS] == [(2, 2)] * 3
    (tmp_path / "bad.csv").write_text("path,label,split\n1.jpg,a,tset\n")
    with pytest.raises(InputError, match="'tset' is none of"):
        read_dataset(tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text("file,class\n1.jpg,a\n")
    with pytest.raises(InputError, match="needs path and label"):
        read_dataset(tmp_path / "bad.csv")


def test_folders_that_cannot_be_used_are_refused_with_the_reason(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no class folder with photos"):
        read_dataset(fill(tmp_path / "flat", ["1.jpg", "2.jpg"]))
    with pytest.raises(InputError, match="only the class 'cat'"):
        read_dataset(fill(tmp_path / "one", numbered("cat", 9)))
    with pytest.raises(InputError, match="below 1 together"):
        read_dataset(tmp_path, validation=0.5, test=0.5)


def test_what_is_no_photo_is_left_out_and_said(folder):
    (folder / "empty class").mkdir()
    fill(folder, ["cat/notes.txt", "loose.jpg", ".hidden/1.jpg", "cat/.thumb.jpg", "__MACOSX/1.jpg"])
    dataset = read_dataset(folder)
    assert dataset.labels == ("cat", "dog")
    assert not dataset.skipped
    assert "1 file that is no picture was passed over: 1 .txt" in dataset.warnings
    assert any("'empty class'" in warning for warning in dataset.warnings)
    assert any("loose.jpg" in warning for warning in dataset.warnings)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_and_lists_in_any_encoding(tmp_path, encoding, end):
    from mobilenet_hub.evaluation.exclusion import read_exclusions

    rows = [(f"{label}/ä {n}.jpg", label) for label in ("Äpfel", "梨") for n in range(9)]
    fill(tmp_path, [path for path, _ in rows])
    table = tmp_path / "photos.csv"
    table.write_bytes(end.join(["path,label", *(f"{path},{label}" for path, label in rows), ""]).encode(encoding))
    dataset = read_dataset(table)
    assert dataset.labels == ("Äpfel", "梨") and len(dataset.examples) == 18 and not dataset.skipped
    for name, heading in (("out.csv", ["path,reason"]), ("out.txt", ["# these"])):
        lines = [*heading, rows[0][0] + (",dark" if name == "out.csv" else ""), ""]
        (tmp_path / name).write_bytes(end.join(lines).encode(encoding))
        assert read_exclusions(tmp_path / name, tmp_path) == {tmp_path / rows[0][0]}


def test_tiny_sets_have_something_in_every_part(tmp_path):
    dataset = read_dataset(fill(tmp_path, [*numbered("cat", 4), *numbered("dog", 4), *numbered("single", 1)]))
    assert all(dataset.counts("train"))
    assert dataset.part("validation")
    assert dataset.part("test")
    assert [e.split for e in dataset.examples if e.name.startswith("single")] == ["train"]


def test_two_hundred_classes(tmp_path):
    dataset = read_dataset(fill(tmp_path, [n for c in range(200) for n in numbered(f"class {c}", 3)]))
    assert len(dataset.labels) == 200
    assert all(dataset.counts("train"))


def test_without_drops_files_and_classes_that_they_leave_empty(folder):
    fill(folder, ["emu/only.jpg"])
    dataset = read_dataset(folder)
    left = dataset.without([Skipped(folder / "emu/only.jpg", "broken")])
    assert left.labels == ("cat", "dog")
    assert left.skipped[-1].reason == "broken"
    assert {e.name: left.labels[e.label] for e in left.examples}["dog/3.jpg"] == "dog"


def test_examples_for_evaluation_match_labels_loosely(tmp_path):
    fill(tmp_path, ["gas_pump/1.jpg", "Golf Ball/2.jpg", "unknown thing/3.jpg"])
    dataset = read_examples(tmp_path, ["background", "golf ball", "gas pump"])
    assert {e.name: e.label for e in dataset.examples} == {"gas_pump/1.jpg": 2, "Golf Ball/2.jpg": 1}
    assert [skip.path.name for skip in dataset.skipped] == ["3.jpg"]
    with pytest.raises(InputError, match="no class of"):
        read_examples(tmp_path, ["x", "y"])
