"""Which folders are classes, which are parts of a split, which are neither."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobilenet_hub.errors import InputError
from mobilenet_hub.evaluation.class_folders import list_class_folders
from mobilenet_hub.evaluation.dataset import read_dataset


def fill(folder, *files):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def photos(*folders, count=3):
    return [f"{folder}/{number}.jpg" for folder in folders for number in range(count)]


def found(folder):
    listing = list_class_folders(folder)
    return {(p.split, p.label) for p in listing.photos}, listing.warnings


PARTS = {("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *[("train", "test"), ("training_set", "test_set"), ("seg_train", "seg_test"), ("Training", "Testing")],
        *[("train_data", "test_data"), ("trainset", "testset"), ("images_train", "images_test"), ("TRAIN", "TEST")],
        *[
            ("train1", "test1"),
            ("train/images", "test/images"),
            ("x/y/train", "x/y/test"),
            ("training-set", "test set"),
        ],
    ],
)
def test_folders_that_hold_the_same_folders_are_parts(tmp_path, train, test):
    places = photos(*(f"{part}/{label}" for part in (train, test) for label in "ab"))
    assert found(fill(tmp_path, *places))[0] == PARTS
    # Also nested as an archive nests it that is unpacked into a folder of its own name.
    deeper = fill(tmp_path / "deeper", *(f"set/set/{place}" for place in places))
    assert found(deeper)[0] == PARTS


@pytest.mark.parametrize("name", ["val", "valid", "dev", "validation", "val_set"])
def test_a_part_to_validate_has_many_names(tmp_path, name):
    files = photos(*(f"{part}/{label}" for part in ("train", name) for label in "ab"))
    assert {split for split, _ in found(fill(tmp_path, *files))[0]} == {"train", "validation"}


def test_what_is_beside_the_parts_is_left_out_by_name(tmp_path):
    files = photos(
        *(f"{part}/{label}" for part in ("seg_train", "seg_test") for label in "ab"), "seg_pred", "unlabeled"
    )
    fill(tmp_path, *files, "logs/events.txt", *photos("seg_train/unsup"))
    classes, warnings = found(tmp_path)
    assert classes == PARTS
    assert any("'logs', 'seg_pred', 'unlabeled', 'unsup'" in warning for warning in warnings)
    assert any("'seg_train' as train" in warning for warning in warnings)


def test_classes_that_have_their_parts_inside(tmp_path):
    assert found(fill(tmp_path, *photos("a/train", "a/test", "b/train", "b/test")))[0] == PARTS


def test_the_classes_once_more_are_left_out(tmp_path):
    classes, warnings = found(fill(tmp_path, *photos("a", "b", "pets/a", "pets/b")))
    assert classes == {(None, "a"), (None, "b")}
    assert any("'pets' holds the classes once more" in warning for warning in warnings)


def test_folders_whose_names_say_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="'fold1', 'fold2'"):
        list_class_folders(fill(tmp_path / "folds", *photos("fold1/a", "fold1/b", "fold2/a", "fold2/b")))
    with pytest.raises(InputError, match="'test', 'train'"):
        list_class_folders(fill(tmp_path / "flat", *photos("train", "test")))
    with pytest.raises(InputError, match="none of them is to train"):
        read_dataset(fill(tmp_path / "held", *photos("val/a", "val/b", "test/a", "test/b")))


def test_classes_may_have_folders(tmp_path):
    files = photos("cats/indoor", "cats/outdoor", "dogs/park", "dogs", "test tubes", "training shoes")
    classes, warnings = found(fill(tmp_path, *files, *photos("unlabelled")))
    assert classes == {(None, label) for label in ("cats", "dogs", "test tubes", "training shoes")}
    assert any("'unlabelled'" in warning for warning in warnings)


def test_a_systems_own_is_no_class_and_no_word(tmp_path):
    own = [f"{place}/{name}" for place in ("", "a/", "a/@eaDir/") for name in ("@eaDir/1.jpg", "#recycle/2.jpg")]
    fill(
        tmp_path, *photos("a", "b"), *own, "$RECYCLE.BIN/S-1/3.jpg", "lost+found/4.jpg", "a/Thumbs.db", "b/desktop.ini"
    )
    listing = list_class_folders(tmp_path)
    assert {p.label for p in listing.photos} == {"a", "b"}
    assert len(listing.photos) == 6
    assert not listing.skipped
    assert not listing.warnings


def test_labels_that_are_nought_are_labels(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    fill(tmp_path, *photos("p", count=8))
    paths = [f"p/{number}.jpg" for number in range(8)]
    columns = {
        "whole": ([0, 1, 0, 1, 0, 1, None, None], ("0", "1")),
        "truth": ([False, True] * 3 + [None, None], ("False", "True")),
        "floats": ([0.0, 1.0] * 3 + [float("nan"), None], ("0.0", "1.0")),
        "texts": (["0", "no"] * 3 + ["", " "], ("0", "no")),
    }
    for values, labels in columns.values():
        pq.write_table(pa.table({"path": paths, "label": values}), tmp_path / "t.parquet")
        dataset = read_dataset(tmp_path / "t.parquet", validation=0, test=0)
        assert dataset.labels == labels
        assert dataset.counts() == (3, 3)
        assert len(dataset.skipped) == 2


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    fill(tmp_path, *photos("a", "b", "a/more"))
    (tmp_path / "a/more").chmod(0)
    if os.access(tmp_path / "a/more", os.R_OK):  # as root
        code = "import sys; from mobilenet_hub.evaluation.class_folders import Path, list_class_folders as found\n"
        code += "print(found(Path(sys.argv[1])).skipped)"
        without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable, "-c", code]
        without.append(str(tmp_path))
        try:
            said = subprocess.run(without, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("one may read everything here, and setpriv does not take that away")
    else:
        said = str(list_class_folders(tmp_path).skipped)
    (tmp_path / "a/more").chmod(0o755)
    assert "a/more" in said and "cannot be read (Permission denied)" in said


def test_the_reference_folders(shared, tmp_path):
    script = shared("oddfiles/make_folders.py")
    subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
    for name, split in (("training_set_test_set", "test"), ("train_val_and_logs", "validation")):
        assert found(tmp_path / name)[0] == {(part, label) for part in ("train", split) for label in ("red", "blue")}
    nas, plain = (list_class_folders(tmp_path / name) for name in ("nas_thumbnails", "plain"))
    assert [Path(p.label, p.inner) for p in nas.photos] == [Path(p.label, p.inner) for p in plain.photos]
    assert read_dataset(tmp_path / "integer_labels.parquet").labels == ("0", "1", "2")
    (tmp_path / "unreadable/red/more").chmod(0o755)


def test_the_only_part_held_out_is_said_to_be_the_test_part(tmp_path):
    fill(tmp_path, *photos("train_images/a", "train_images/b", "val_images/a", "val_images/b"))
    dataset = read_dataset(tmp_path)
    assert any("'val_images' as test, as it is the only part held out" in warning for warning in dataset.warnings)
    assert len(dataset.part("test")) == 6
