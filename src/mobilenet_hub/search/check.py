"""What is wrong with a labelled folder, before one trains on it: `check`. Nothing is changed."""

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mobilenet_hub.errors import InputError
from mobilenet_hub.evaluation.dataset import TEST_SHARE, VALIDATION_SHARE, Split, list_photos, read_dataset
from mobilenet_hub.host.progress import OnProgress, Stage, silent
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.probabilities import softmax
from mobilenet_hub.search.dedupe import Kind, kind_of
from mobilenet_hub.search.embedding import embed_photos, hash_columns, look_columns
from mobilenet_hub.search.features import Features, directions
from mobilenet_hub.search.stars import find_stars
from mobilenet_hub.search.threshold import Threshold, measure_threshold
from mobilenet_hub.training.head import fit_head

Flaw = Literal["dark", "bright", "flat", "blurred", "tiny", "oddly shaped"]

_FEW_PHOTOS = 20  # of a class; `train` warns at the same number
_FOLDS = 5
_NEIGHBOURS = 10
_STRENGTH = 0.1  # of the classifier's regularisation
_SURE = 0.5  # by how much another class must be likelier than the label
_SHOWN_NEIGHBOURS = 4
# Of some 770 photographs as they are, fewer than one in a hundred is beyond any of these; docs/search.md.
_DARK, _BRIGHT = 60, 200  # all but 5 % of the gray values are below, or above
_FLAT = 8  # standard deviation of the gray values
_BLURRED = 20  # 99th percentile of the differences between neighbouring pixels, at the network's size
_TINY = 0.5  # of the network's input, either side
_ODD_SHAPE = 3  # longer side to shorter side


@dataclass(frozen=True, slots=True)
class Copy:
    """A photo that is a copy of another, or nearly."""

    path: str
    label: str
    split: Split | None  # the part that `train` would give it; None: none, it is left out
    of: str
    of_label: str
    of_split: Split | None
    kind: Kind
    similarity: float

    @property
    def across_classes(self) -> bool:
        """Whether the two have different labels."""
        return self.label != self.of_label

    @property
    def across_split(self) -> bool:
        """Whether one would train and the other judge."""
        return None not in (self.split, self.of_split) and self.split != self.of_split


@dataclass(frozen=True, slots=True)
class Mislabelled:
    """A photo whose label is probably wrong."""

    path: str
    label: str
    suggested: str
    confidence: float  # by how much likelier the suggested class is, 0 to 1
    neighbours: tuple[str, ...]  # the photos nearest to it
    neighbour_labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flawed:
    """A photo that shows little."""

    path: str
    label: str
    flaw: Flaw
    value: float  # what it was told by


@dataclass(frozen=True, slots=True)
class FewPhotos:
    """A class with few photos."""

    label: str
    photos: int


@dataclass(frozen=True)
class Findings:
    """What `check` found."""

    source: str
    photos: int  # that can be read
    labels: tuple[str, ...]
    unreadable: tuple[Skipped, ...]
    duplicated: tuple[Copy, ...]
    mislabelled: tuple[Mislabelled, ...]  # the surest first
    flawed: tuple[Flawed, ...]
    few: tuple[FewPhotos, ...]
    threshold: Threshold | None  # of what counts as nearly a copy
    warnings: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.unreadable or self.duplicated or self.mislabelled or self.flawed or self.few)

    def exclusions(self) -> list[tuple[str, str]]:
        """Return (path, reason) of what had better be left out: a proposal, to be looked through."""
        listed = [(skip.name, f"unreadable: {skip.reason}") for skip in self.unreadable]
        for copy in self.duplicated:
            where = f", which is {copy.of_label}" if copy.across_classes else ""
            listed.append((copy.path, f"{copy.kind} as {copy.of}{where}"))
        listed += [(each.path, f"probably {each.suggested}, not {each.label}") for each in self.mislabelled]
        listed += [(each.path, each.flaw) for each in self.flawed if each.flaw in ("dark", "bright", "flat")]
        first = dict(reversed(listed))
        return [(path, first[path]) for path in dict.fromkeys(path for path, _ in listed)]

    def to_json(self) -> dict[str, object]:
        """Return plain values."""

        def plain(value: Any) -> Any:
            if isinstance(value, Skipped):
                return {"path": value.name, "reason": value.reason}
            return {field.name: getattr(value, field.name) for field in fields(value)}

        lists = ("unreadable", "duplicated", "mislabelled", "flawed", "few")
        return {
            "source": self.source,
            "photos": self.photos,
            "labels": list(self.labels),
            **{name: [plain(value) for value in getattr(self, name)] for name in lists},
            "threshold": self.threshold.cosine if self.threshold else None,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class _Photos:
    """The readable photos, in the order of the features' rows."""

    paths: list[str]
    labels: np.ndarray  # int64 [n], into `names`
    names: tuple[str, ...]
    splits: list[Split | None]


def check(
    source: str | os.PathLike[str],
    *,
    module: str | os.PathLike[str] = "starter",
    validation: float = VALIDATION_SHARE,
    test: float = TEST_SHARE,
    seed: int = 0,
    false_pairs: float | None = None,
    work: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    on_progress: OnProgress = silent,
) -> Findings:
    """Look through labelled photos for what harms a classifier, or flatters it.

    Args:
        source: class folders, or a table of path and label, as for `train`.
        module: what to see the photos with.
        validation: the share of the split that `train` would be called with.
        test: likewise.
        seed: likewise.
        false_pairs: as for `dedupe`.
        work: a folder for what a killed run can go on from; None: nothing is kept.
        threads: how many to use; None: as many as there are cores.
        on_progress: told how far it is.

    Returns:
        The findings.

    Raises:
        InputError: no such photos, or an argument that means nothing.

    Example:
        >>> check("photos").mislabelled[0].suggested  # doctest: +SKIP
        'bees'
    """
    listed, skipped, warnings = list_photos(source)
    if not listed:
        raise InputError(f"{source} has no photos in class folders")
    splits = _splits(source, validation, test, seed)
    with tempfile.TemporaryDirectory(prefix="mobilenet-check-") as temporary:
        folder = (Path(work) if work is not None else Path(temporary)) / "features"
        bad, _ = embed_photos([os.fspath(path) for path, _, _ in listed], folder, module, threads, on_progress)
        features = Features(folder)
        known = {os.fspath(path): label for path, _, label in listed}
        names = tuple(sorted(set(known.values())))
        paths = features.files()
        labels = np.array([names.index(known.get(path, names[0])) for path in paths], np.int64)
        photos = _Photos(paths, labels, names, [splits.get(path) for path in paths])
        threshold, centres, copies = None, np.arange(features.rows), ()
        if features.rows:
            hashes = hash_columns(features)
            threshold = measure_threshold(features, false_pairs, None, hashes)
            stars = find_stars(features, _test_first(photos), threshold, hashes, on_progress)
            centres, copies = stars.centre, _copies(photos, stars.centre, stars.similarity)
        counts = Counter(labels.tolist())
        few = [FewPhotos(name, counts[i]) for i, name in enumerate(names) if counts[i] < _FEW_PHOTOS]
        return Findings(
            source=os.fspath(source),
            photos=features.rows,
            labels=names,
            unreadable=(*(Skipped(*each) for each in bad), *skipped),
            duplicated=copies,
            mislabelled=_mislabelled(features, photos, centres, on_progress),
            flawed=_flawed(features, photos),
            few=tuple(few),
            threshold=threshold,
            warnings=tuple(warnings),
        )


def _splits(source: Any, validation: float, test: float, seed: int) -> dict[str, Split]:
    """Return the part of each photo that `train` would use."""
    try:
        dataset = read_dataset(source, validation=validation, test=test, seed=seed)
    except InputError:
        if not (validation >= 0 and test >= 0 and validation + test < 1):
            raise
        return {}  # one class alone, or the like: nothing would be trained, and the rest can still be looked at
    return {os.fspath(example.path): example.split for example in dataset.examples}


def _test_first(photos: _Photos) -> np.ndarray:
    """Return rows with those that judge first: of two copies it is the one that trains which had better go."""
    rank = {"test": 0, "validation": 1, "train": 2, None: 3}
    return np.lexsort((np.arange(len(photos.paths)), np.array([rank[split] for split in photos.splits], np.int64)))


def _copies(photos: _Photos, centre: np.ndarray, similarity: np.ndarray) -> tuple[Copy, ...]:
    found = []
    for row in map(int, np.flatnonzero(centre != np.arange(len(centre)))):
        star = int(centre[row])
        path, of = photos.paths[row], photos.paths[star]
        if Path(path).exists() and Path(of).exists() and Path(path).samefile(of):
            continue  # names of one file
        kind = kind_of(lambda key: key, of, path, float(similarity[row]))
        label, of_label = (photos.names[photos.labels[each]] for each in (row, star))
        near = min(float(similarity[row]), 1.0)
        found.append(Copy(path, label, photos.splits[row], of, of_label, photos.splits[star], kind, near))
    found.sort(key=lambda copy: (not copy.across_classes, not copy.across_split, -copy.similarity, copy.path))
    return tuple(found)


def _mislabelled(
    features: Features, photos: _Photos, centres: np.ndarray, on_progress: OnProgress
) -> tuple[Mislabelled, ...]:
    """Return photos for which a classifier that has not seen them and their neighbours agree on another class."""
    count = len(photos.paths)
    if len(set(photos.labels.tolist())) < 2 or count < 2 * _FOLDS:
        return ()
    vectors = np.concatenate([block for _, block in features.blocks()])
    usable = np.asarray(np.isfinite(vectors).all(axis=1), bool)
    vectors[~usable] = 0
    heads = np.unique(centres)
    fold_of = np.zeros(count, np.int64)  # of a photo and all its copies: each class in all folds
    fold_of[heads[np.lexsort((heads, photos.labels[heads]))]] = np.arange(len(heads)) % _FOLDS
    fold = fold_of[centres]
    likely = np.zeros((count, len(photos.names)))
    for number in range(_FOLDS):
        on_progress(Stage("labels", "fold"), number, _FOLDS)
        seen, held = usable & (fold != number), fold == number
        if seen.any() and held.any():
            head = fit_head(vectors[seen], photos.labels[seen], len(photos.names), strengths=(_STRENGTH,))
            likely[held] = softmax(head.logits(vectors[held]))
    votes, nearest = _votes(directions(vectors), photos, centres)
    score = (likely + votes) / 2
    suggested = score.argmax(1)
    margin = score[np.arange(count), suggested] - score[np.arange(count), photos.labels]
    worst = [int(row) for row in np.argsort(-margin, kind="stable") if margin[row] >= _SURE and usable[row]]
    return tuple(
        Mislabelled(
            photos.paths[row],
            photos.names[photos.labels[row]],
            photos.names[suggested[row]],
            float(margin[row]),
            tuple(photos.paths[int(other)] for other in nearest[row][:_SHOWN_NEIGHBOURS]),
            tuple(photos.names[photos.labels[int(other)]] for other in nearest[row][:_SHOWN_NEIGHBOURS]),
        )
        for row in worst
    )


def _votes(rows: np.ndarray, photos: _Photos, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of each class among a photo's nearest, copies left out, and who they are."""
    count, kept = len(rows), min(_NEIGHBOURS, len(rows) - 1)
    votes = np.zeros((count, len(photos.names)))
    nearest = np.empty((count, kept), np.int64)
    for start in range(0, count, 512):
        part = np.arange(start, min(start + 512, count))
        scores = rows[part] @ rows.T
        scores[centres[part, np.newaxis] == centres] = -np.inf  # itself and its copies
        found = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
        order = np.argsort(-np.take_along_axis(scores, found, 1), axis=1, kind="stable")
        nearest[part] = np.take_along_axis(found, order, 1)
        for column in range(kept):
            np.add.at(votes, (part, photos.labels[nearest[part, column]]), 1 / kept)
    return votes, nearest


def _flawed(features: Features, photos: _Photos) -> tuple[Flawed, ...]:
    looks = look_columns(features)
    if looks is None:
        return ()
    input_side = min(int(side) for side in features.made_with["image_size"].strip("[]").split(","))
    sizes = np.stack([features.column(name).to_numpy() for name in ("width", "height")], axis=1).astype(np.float64)
    shape = sizes.max(1) / np.maximum(sizes.min(1), 1)
    shadows, lights, contrast, sharpness = looks.T
    flat = contrast < _FLAT
    tests: list[tuple[Flaw, np.ndarray, np.ndarray]] = [
        ("dark", lights < _DARK, lights),
        ("bright", shadows > _BRIGHT, shadows),
        ("flat", flat & (lights >= _DARK) & (shadows <= _BRIGHT), contrast),
        ("blurred", ~flat & (lights >= _DARK) & (sharpness < _BLURRED), sharpness),
        ("tiny", sizes.min(1) < _TINY * input_side, sizes.min(1)),
        ("oddly shaped", shape > _ODD_SHAPE, shape),
    ]
    return tuple(
        Flawed(photos.paths[row], photos.names[photos.labels[row]], flaw, float(values[row]))
        for flaw, holds, values in tests
        for row in map(int, np.flatnonzero(holds))
    )


def summary(findings: Findings) -> Sequence[tuple[str, int, str]]:
    """Return (what, how many, what it means) of everything that was found."""
    copies = findings.duplicated
    rows = [
        ("unreadable", len(findings.unreadable), "files that are no photos, and will be left out"),
        ("copies in one class", sum(not c.across_classes for c in copies), "they count more than once"),
        ("copies across classes", sum(c.across_classes for c in copies), "one of the two labels is wrong"),
        ("copies across the split", sum(c.across_split for c in copies), "they flatter the accuracy"),
        ("probably mislabelled", len(findings.mislabelled), "by a classifier that has not seen them, and neighbours"),
    ]
    flaws = Counter(each.flaw for each in findings.flawed)
    rows += [(flaw, number, "little to learn from") for flaw, number in flaws.items()]
    rows.append(("classes with few photos", len(findings.few), f"fewer than {_FEW_PHOTOS}"))
    return [row for row in rows if row[1]]
