"""Labels beside a file and inside it: taken where they are as many as the classes, without numbers that only count."""

import io
import json
import zipfile

import pytest

from mobilenet_hub.weights.labels import labels_beside, labels_inside, plain_labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("0 Cat\n1 Dog\n", ("Cat", "Dog")),
        ("0 Cat\r\n1 Dog  \r\n\r\n", ("Cat", "Dog")),
        ("500\n100\n10\n", ("500", "100", "10")),
        ("0\n1\n2\n", ("0", "1", "2")),
        ("0 0\n1 1\n", ("0", "1")),
        ("1 Cat\n2 Dog\n", ("1 Cat", "2 Dog")),
        ("0 Cat\nDog\n", ("0 Cat", "Dog")),
        ("61326 scratch\n61326 dent\n", ("61326 scratch", "61326 dent")),
        ("0: Cat\n1: Dog", ("Cat", "Dog")),
        ("\ufeff0 Katze\n1 H\u00fcnd\n", ("Katze", "H\u00fcnd")),
    ],
)
def test_numbers_go_where_every_line_begins_with_its_own(text, labels):
    assert plain_labels(text) == labels


def test_the_file_beside_must_fit(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    (tmp_path / "retrained_labels.txt").write_text("x\ny\n")
    (tmp_path / "metadata.json").write_text(json.dumps({"labels": ["p", "q", "r", "s"]}))
    found = {number: labels_beside(tmp_path / "net.pb", number) for number in (2, 3, 4, 5)}
    assert found == {2: ("x", "y"), 3: ("a", "b", "c"), 4: ("p", "q", "r", "s"), 5: None}


def test_what_is_no_list_of_labels_is_none(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\xff\x00\x81")
    (tmp_path / "metadata.json").write_text("[1, 2")
    assert labels_beside(tmp_path / "net.pb", 2) is None


def test_labels_attached_to_a_file():
    data = io.BytesIO(b"a model")
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("labels.txt", "a\nb\n")
    assert labels_inside(data.getvalue(), 2) == ("a", "b")
    assert labels_inside(data.getvalue(), 3) is None
    assert labels_inside(b"a model", 2) is None
