"""Which class a folder's name means."""

import re
import zipfile

from mobilenet_hub.catalog.labels import imagenet_labels, imagenet_labels_1000, wordnet_ids
from mobilenet_hub.evaluation.classes import class_index


def test_wordnet_ids_are_those_of_the_labels(shared):
    """Tiny ImageNet's list of words, of 202 classes, says the same."""
    ids = wordnet_ids()
    assert len(set(ids)) == 1000
    assert list(ids) == sorted(ids)
    assert all(re.fullmatch(r"n\d{8}", id) for id in ids)
    with zipfile.ZipFile(shared("datasets/tiny_imagenet.zip")) as archive:
        words = next(name for name in archive.namelist() if name.endswith("words.txt"))
        lines = archive.read(words).decode().splitlines()
    known = dict(zip(ids, imagenet_labels_1000(), strict=True))
    compared = [known[id] == label for id, _, label in (line.partition("\t") for line in lines) if id in known]
    assert sum(compared) > 190
    assert all(compared)


def test_every_id_and_label_of_imagenet_finds_its_class():
    for labels, first in ((imagenet_labels(), 1), (imagenet_labels_1000(), 0)):
        index_of = class_index(labels)
        assert [index_of(id) for id in wordnet_ids()] == list(range(first, first + 1000))
        strange = [label for index, label in enumerate(labels) if index_of(label) != index]
        assert strange == ["crane", "maillot"][: len(strange)]  # labels that two classes have
        assert len(strange) <= 2


def test_the_first_synonyms_alone_are_enough():
    labels = [label.partition(",")[0] for label in imagenet_labels()]
    index_of = class_index(labels)
    assert sum(index_of(id) == index for index, id in enumerate(wordnet_ids(), 1)) > 990


def test_an_ambiguous_synonym_means_nothing():
    index_of = class_index(["cock", "drake", "hen, fowl", "duck, fowl"])
    assert index_of("fowl") is None
    assert index_of("Hen") == 2
    names = ("cassette_player", "chain_saw", "church", "english_springer", "french_horn", "garbage_truck", "gas_pump")
    index_of = class_index(imagenet_labels())
    for name in (*names, "golf_ball", "parachute", "tench"):
        index = index_of(name)
        assert index is not None
        assert name.replace("_", " ") in imagenet_labels()[index].lower()
