"""Which of a module's classes a folder or a table means by its name."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from mobilenet_hub.catalog.labels import imagenet_labels, wordnet_ids


def class_index(labels: Sequence[str]) -> Callable[[str], int | None]:
    """Return what tells the index of a class by its folder's name.

    In this order: the label itself; regardless of case, `_` and `-`; a WordNet id, of ImageNet's classes; one of the
    synonyms of a label such as "tabby, tabby cat", where no other label has it.

    Example:
        >>> index_of = class_index(["tench, Tinca tinca", "tiger cat", "crane, bird", "crane"])
        >>> index_of("Tiger_Cat"), index_of("tench"), index_of("n01440764"), index_of("bird"), index_of("lynx")
        (1, 0, 0, 2, None)
    """
    numbered = list(enumerate(labels))[::-1]  # of several with one name the first counts
    exact = {label: index for index, label in numbered}
    whole = {_loose(label): index for index, label in numbered}
    parts = _only_one((_loose(part), index) for index, label in enumerate(labels) for part in label.split(","))
    by_id = _ids_of(labels)

    def index_of(name: str) -> int | None:
        loose = _loose(name)
        for known, key in ((exact, name), (whole, loose), (by_id, loose), (parts, loose)):
            if key in known:
                return known[key]
        return None

    return index_of


def _ids_of(labels: Sequence[str]) -> dict[str, int]:
    """Return the index of each WordNet id whose label, whole or its first synonym, is there as often as in ImageNet."""
    known = imagenet_labels()[1:]
    found: dict[str, int] = {}
    for names in (known, [label.partition(",")[0] for label in known]):
        places: defaultdict[str, list[int]] = defaultdict(list)
        for index, label in enumerate(labels):
            places[_loose(label)].append(index)
        wanted: defaultdict[str, list[str]] = defaultdict(list)
        for name, id in zip(names, wordnet_ids(), strict=True):
            wanted[_loose(name)].append(id)
        for name, ids in wanted.items():
            if len(ids) == len(places[name]):
                found |= {id: place for id, place in zip(ids, places[name], strict=True) if id not in found}
    return found


def _only_one(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    meant: defaultdict[str, set[int]] = defaultdict(set)
    for name, index in pairs:
        meant[name].add(index)
    return {name: indices.pop() for name, indices in meant.items() if name and len(indices) == 1}


def _loose(label: str) -> str:
    return re.sub(r"[\s_-]+", " ", label).casefold().strip()
