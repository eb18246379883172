"""Photos with labels, and which of them train, validate and test.

The split is a hash of a photo's class and content, so that adding photos moves none of those that are there, and the
same photo lands in the same part through a folder or a table, on any machine. Two rules keep it honest: variants of
one photo (`x.jpg`, `x_nohash_1.jpg`; the convention of TensorFlow's retrain.py) stay together, so they alone go by the
class and the name that they share; and a photo that is there twice, by its bytes, is used once.
"""

import csv
import hashlib
import io
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from mobilenet_hub.errors import InputError
from mobilenet_hub.evaluation.class_folders import GIVEN_SPLITS, Split, list_class_folders, some
from mobilenet_hub.evaluation.classes import class_index
from mobilenet_hub.host.files import is_special, printable
from mobilenet_hub.host.stores import demand_local
from mobilenet_hub.host.text import read_text
from mobilenet_hub.images.decode import DOWNLOAD_IT, is_address
from mobilenet_hub.images.skipped import Skipped

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2  # of the photos, where nothing else is said
TABLE_SUFFIXES = frozenset([".csv", ".parquet"])

_HELD_OUT: tuple[Split, ...] = ("test", "validation")
_SUFFIX = re.compile(r"\.[^./]*$")
_VARIANT = re.compile(r"_nohash_[^/]*$")


@dataclass(frozen=True, slots=True)
class Example:
    """One photo with its label."""

    path: Path
    name: str  # "class/file name", the same on every machine
    label: int  # index into the data set's labels
    split: Split
    digest: str  # SHA-1 of the file's bytes


@dataclass(frozen=True)
class Dataset:
    """Labelled photos in three parts that share none."""

    source: Path
    labels: tuple[str, ...]
    examples: tuple[Example, ...]  # ordered by name
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder's or table's name, also where its path does not say it (".", "..")."""
        return Path(os.path.normpath(self.source.absolute())).name or str(self.source)

    def part(self, split: Split) -> tuple[Example, ...]:
        """Return the examples of one part, ordered by name."""
        return tuple(example for example in self.examples if example.split == split)

    def counts(self, split: Split | None = None) -> tuple[int, ...]:
        """Return the number of photos of each class, in one part or in all."""
        found = Counter(example.label for example in self.examples if split in (None, example.split))
        return tuple(found[label] for label in range(len(self.labels)))

    def without(self, skipped: Iterable[Skipped]) -> "Dataset":
        """Return the data set less files that turned out to be no photos; classes that they leave empty go too.

        Raises:
            InputError: fewer than two classes are left.
        """
        skipped = tuple(skipped)
        bad = {skip.path for skip in skipped}
        left = [example for example in self.examples if example.path not in bad]
        rows = _grouped([_Row(e.path, e.name, self.labels[e.label], e.split, e.digest) for e in left])
        rows = _lend(rows, [split for split in _HELD_OUT if self.part(split)])
        return _assemble(self.source, rows, (*self.skipped, *skipped), self.warnings)


@dataclass(frozen=True, slots=True)
class _Row:
    """A photo on its way into a data set."""

    path: Path
    name: str
    label: str
    split: Split | None = None  # None: by hash
    digest: str = ""
    group: str = ""  # what stays in one part: a photo by its content, variants of one by their name


def read_dataset(
    source: str | os.PathLike[str],
    *,
    validation: float = VALIDATION_SHARE,
    test: float = TEST_SHARE,
    seed: int = 0,
    exclude: Iterable[Path] = (),
) -> Dataset:
    """List labelled photos and split them, stably, into training, validation and test.

    Args:
        source: a folder with one subfolder for each class; or a .csv or .parquet table with the columns `path`
            (relative to the table's folder) and `label`. A folder with `train`, `val` and/or `test` in it, each with
            its class folders, or a third column `split`, gives the parts; if only one of the held-out parts is
            given it is the test part, and validation photos are drawn from the training ones.
        validation: the share of photos that choose between settings, in [0, 1).
        test: the share of photos that measure the result and nothing else, in [0, 1).
        seed: another seed, another split.
        exclude: files that are left out as if they were not there.

    Returns:
        The data set. Photos that exist twice are used once, in the test part rather than the validation part rather
        than the training part; a photo in two classes is left out of both. Where a class would have no training
        photo, or a whole part none, one is lent: the only case in which adding photos can move one back.

    Raises:
        InputError: nothing to train on: no such source, no class folders, fewer than two classes with photos.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg"):
        ...     (folder / name).parent.mkdir(exist_ok=True)
        ...     _ = (folder / name).write_text(name)
        >>> read_dataset(folder).labels
        ('cat', 'dog')
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise InputError(f"shares of validation {validation} and test {test} must be at least 0 and below 1 together")
    source = Path(source)
    rows, skipped, warnings = _list_rows(source)
    excluded = set(exclude)
    rows = [row for row in rows if row.path.absolute() not in excluded] if excluded else rows
    rows, unreadable = _hash_contents(rows)
    rows, ambiguous = _drop_ambiguous(rows)
    if rows and all(row.split and row.split != "train" for row in rows):
        raise InputError(f"{source} has parts of a split and none of them is to train: name it train")
    rows = _grouped(_merge_held_out(rows))
    rows = [row if row.split else replace(row, split=_split_of(row, validation, test, seed)) for row in rows]
    if validation and not any(row.split == "validation" for row in rows):  # all parts given, this one not
        rows = [replace(r, split=_carve(r, validation, seed)) if r.split == "train" else r for r in rows]
    rows, repeated = _drop_repeated(rows)
    rows = _lend(rows, [split for split, share in zip(_HELD_OUT, (test, validation), strict=True) if share])
    return _assemble(source, rows, (*skipped, *unreadable, *ambiguous), (*warnings, *repeated))


def read_examples(source: str | os.PathLike[str], labels: Iterable[str]) -> Dataset:
    """List labelled photos for evaluation with a module that knows `labels`: all of them are test photos.

    A class is matched as `class_index` says: by its label, a synonym or, of ImageNet, its WordNet id.

    Args:
        source: class folders or a table, as for `read_dataset`.
        labels: the module's labels in order.

    Returns:
        The data set with exactly the module's labels; photos of other classes are left out and named. As for training,
        a photo that is there twice counts once, and one in two classes not at all.

    Raises:
        InputError: no class of the source is one of the module's.
    """
    source, labels = Path(source), tuple(labels)
    index_of = class_index(labels)
    rows, skipped, warnings = _list_rows(source)
    found = {row.label: index_of(row.label) for row in rows}
    strange = sorted(label for label, index in found.items() if index is None)
    if rows and len(strange) == len(found):
        raise InputError(
            f"no class of {source} is one of the module's: found {some(strange)}, and the module knows {some(labels)}"
        )
    outside = [
        Skipped(str(row.path), f"{row.label!r} is not a class of the module") for row in rows if row.label in strange
    ]
    if strange:
        warnings.append(f"not classes of the module, and left out: {some(strange)}, {len(outside)} photos")
    rows, unreadable = _hash_contents(row for row in rows if row.label not in strange)
    # Two of ImageNet's labels are one word: here each has its number too.
    counts = Counter(labels)
    unique = [label if counts[label] == 1 else f"{label} {index}" for index, label in enumerate(labels)]
    rows, ambiguous = _drop_ambiguous([replace(row, label=unique[found[row.label] or 0]) for row in rows])
    rows, repeated = _drop_repeated(rows)
    numbers = {label: index for index, label in enumerate(unique)}
    examples = [Example(row.path, row.name, numbers[row.label], "test", row.digest) for row in rows]
    if not examples:
        raise InputError(f"{source} has no photos in class folders")
    left_out = (*skipped, *outside, *unreadable, *ambiguous)
    return Dataset(source, labels, tuple(examples), left_out, (*warnings, *repeated))


def list_photos(source: str | os.PathLike[str]) -> tuple[list[tuple[Path, str, str]], list[Skipped], list[str]]:
    """List labelled photos as they lie there, copies and all: (path, name, label) of each, what is none, warnings."""
    rows, skipped, warnings = _list_rows(Path(source))
    return [(row.path, row.name, row.label) for row in rows], skipped, warnings


def _list_rows(source: Path) -> tuple[list[_Row], list[Skipped], list[str]]:
    demand_local(source, "what holds the labelled photos")
    if source.is_dir():
        rows, skipped, warnings = _list_folder(source)
    elif source.is_file() and source.suffix.lower() in TABLE_SUFFIXES:
        rows, skipped, warnings = _list_table(source)
    elif source.exists():
        raise InputError(f"{source} is neither a folder of class folders nor a .csv or .parquet table")
    elif is_address(source):
        raise InputError(f"{source} is an address; {DOWNLOAD_IT}, and unpack it: a folder for each class")
    else:
        raise InputError(f"{source} does not exist; give a folder with one subfolder of photos for each class")
    return sorted(rows, key=lambda row: row.name), skipped, warnings


def _list_folder(folder: Path) -> tuple[list[_Row], list[Skipped], list[str]]:
    found = list_class_folders(folder)
    rows = [_Row(p.path, _name(_clean(p.label), p.inner), _clean(p.label), p.split) for p in found.photos]
    return rows, [Skipped(str(path), reason) for path, reason in found.skipped], found.warnings


def _list_table(table: Path) -> tuple[list[_Row], list[Skipped], list[str]]:
    rows, skipped = [], []
    for number, record in enumerate(_read_table(table), start=1):
        path, label, part = (_text(record.get(key)) for key in ("path", "label", "split"))
        if not path or not label:
            skipped.append(Skipped(str(table), f"row {number} lacks a path or a label"))
        elif part and part.lower() not in GIVEN_SPLITS:
            raise InputError(f"{table}, row {number}: split {part!r} is none of {', '.join(GIVEN_SPLITS)}")
        else:
            label = _clean(label)
            rows.append(_Row(table.parent / path, path, label, GIVEN_SPLITS.get(part.lower())))
    names = _shown(rows, table)
    return [replace(row, name=_name(row.label, name)) for row, name in zip(rows, names, strict=True)], skipped, []


def _shown(rows: list[_Row], table: Path) -> list[str]:
    """Return paths as seen from the table or, of photos elsewhere, from the folder that holds all of those."""
    paths = [Path(os.path.normpath(row.path.absolute())) for row in rows]
    root = Path(os.path.normpath(table.parent.absolute()))
    outside = {path.parent for path in paths if not path.is_relative_to(root)}
    try:
        other = Path(os.path.commonpath(outside)) if outside else root
    except ValueError:  # on several drives
        other = None
    names = []
    for path in paths:
        base = root if path.is_relative_to(root) else other
        names.append(path.relative_to(base).as_posix() if base is not None else path.name)
    return names


def _text(value: object) -> str:
    """Return a table's value as text; empty where it is missing: None, NaN or an empty text, and nothing else."""
    missing = value is None or (isinstance(value, float) and isnan(value))
    return "" if missing else str(value).strip()


def _read_table(table: Path) -> list[Mapping[str, object]]:
    try:
        if table.suffix.lower() == ".parquet":
            import pyarrow.parquet

            records: list[Mapping[str, object]] = pyarrow.parquet.read_table(table).to_pylist()
        else:
            records = list(csv.DictReader(io.StringIO(read_text(table), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as a table: {error}") from None
    if records and not {"path", "label"} <= records[0].keys():
        raise InputError(f"{table} has the columns {', '.join(map(str, records[0]))}; it needs path and label")
    return records


def _name(label: str, path: str) -> str:
    # Composed Unicode: macOS hands out decomposed names for the same file. What is no Unicode is shown escaped.
    return unicodedata.normalize("NFC", printable(f"{label}/{path}").replace(os.sep, "/"))


def _clean(label: str) -> str:
    return unicodedata.normalize("NFC", " ".join(printable(label).split()))


def _hash_contents(rows: Iterable[_Row]) -> tuple[list[_Row], list[Skipped]]:
    hashed, skipped = [], []
    for row in rows:
        try:
            if is_special(row.path):
                skipped.append(Skipped(str(row.path), "not a regular file"))
                continue
            with row.path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha1").hexdigest()
            hashed.append(replace(row, digest=digest))
        except OSError as error:
            skipped.append(Skipped(str(row.path), error.strerror or str(error)))
    return hashed, skipped


def _drop_ambiguous(rows: list[_Row]) -> tuple[list[_Row], list[Skipped]]:
    """Leave out photos that lie in two classes: each of their labels contradicts the other."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        labels[row.digest].add(row.label)
    skipped = [
        Skipped(str(row.path), f"the same photo is in the classes {some(sorted(labels[row.digest]))}")
        for row in rows
        if len(labels[row.digest]) > 1
    ]
    return [row for row in rows if len(labels[row.digest]) == 1], skipped


def _merge_held_out(rows: list[_Row]) -> list[_Row]:
    """Make the held-out part that is given the test part, if only one is: it must choose nothing."""
    if {row.split for row in rows} == {"train", "validation"}:
        return [replace(row, split="test") if row.split == "validation" else row for row in rows]
    return rows


def _grouped(rows: list[_Row]) -> list[_Row]:
    """Say of each photo what stays together with it."""
    varied = {(row.label, _stem(row)) for row in rows if _VARIANT.search(_SUFFIX.sub("", row.name))}
    return [replace(row, group=_stem(row) if (row.label, _stem(row)) in varied else row.digest) for row in rows]


def _stem(row: _Row) -> str:
    """Return the file's name less its suffix and what tells variants of one photo apart."""
    return _VARIANT.sub("", _SUFFIX.sub("", row.name.rpartition("/")[2]))


def _fraction(row: _Row, seed: int) -> float:
    key = f"{seed}/{row.label}/{row.group}"
    return int(hashlib.sha1(key.encode()).hexdigest()[:13], 16) / 16**13  # in [0, 1)


def _split_of(row: _Row, validation: float, test: float, seed: int) -> Split:
    fraction = _fraction(row, seed)
    return "test" if fraction < test else "validation" if fraction < test + validation else "train"


def _carve(row: _Row, validation: float, seed: int) -> Split:
    return "validation" if _fraction(row, seed) < validation else "train"


def _drop_repeated(rows: list[_Row]) -> tuple[list[_Row], list[str]]:
    """Keep one of each photo, in the part furthest from training: no copy of a test photo is trained on."""
    kept: dict[str, _Row] = {}
    for row in sorted(rows, key=lambda row: (-SPLITS.index(row.split or "train"), row.name)):
        kept.setdefault(row.digest, row)
    unique = set(kept.values())
    copies = [row for row in rows if row not in unique]
    if len(unique) == len(rows):
        return rows, []
    straddling = sum(kept[row.digest].split != row.split for row in copies)
    leak = f"; {straddling} of them would have leaked from one part into another" if straddling else ""
    example = f", e.g. {copies[0].name}" if copies else ""
    warning = f"{len(rows) - len(unique)} photos are copies of others and are left out{example}{leak}"
    return sorted(unique, key=lambda row: row.name), [warning]


def _lend(rows: list[_Row], held_out: Iterable[Split]) -> list[_Row]:
    """Move single photos, with their variants: each class gets one to train on, and no part stays empty if it can."""
    trained = Counter(row.label for row in rows if row.split == "train")
    for label in sorted({row.label for row in rows} - trained.keys()):
        rows = _move(rows, max((row for row in rows if row.label == label), key=lambda row: row.group), "train")
    for split in held_out:
        if not any(row.split == split for row in rows):
            photos = {(row.label, row.group): row for row in rows if row.split == "train"}.values()
            counts = Counter(row.label for row in photos)
            spare = [row for row in rows if row.split == "train" and counts[row.label] > 1]
            if spare:
                rows = _move(rows, min(spare, key=lambda row: (-counts[row.label], row.group)), split)
    return rows


def _move(rows: list[_Row], chosen: _Row, split: Split) -> list[_Row]:
    """Put a photo into another part, with its variants."""
    together = (chosen.label, chosen.group)
    return [replace(row, split=split) if (row.label, row.group) == together else row for row in rows]


def _assemble(source: Path, rows: list[_Row], skipped: Iterable[Skipped], warnings: Iterable[str]) -> Dataset:
    labels = sorted({row.label for row in rows})
    skipped = tuple(skipped)
    if len(labels) < 2:
        found = f"only the class {labels[0]!r}" if labels else "no class folder with photos"
        if skipped:
            found += f" ({len(skipped)} files were left out, e.g. {skipped[0].path}: {skipped[0].reason})"
        raise InputError(
            f"{source} has {found}; training needs a folder with at least two "
            "subfolders, one for each class, with photos in them"
        )
    index = {label: number for number, label in enumerate(labels)}
    examples = [Example(row.path, row.name, index[row.label], row.split or "train", row.digest) for row in rows]
    return Dataset(source, tuple(labels), tuple(examples), skipped, tuple(warnings))
