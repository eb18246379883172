"""Pages of pictures: what is near to what."""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from html import escape
from itertools import islice
from pathlib import PurePath
from types import MappingProxyType

from mobilenet_hub.errors import ImageError
from mobilenet_hub.evaluation.page import MAX_SHOWN, card, figure, page, table, thumbnail
from mobilenet_hub.host.files import is_file, printable
from mobilenet_hub.host.text import path_of_name
from mobilenet_hub.images.decode import read_bytes
from mobilenet_hub.images.inputs import items
from mobilenet_hub.search.check import Findings, Mislabelled, summary
from mobilenet_hub.search.dedupe import Group
from mobilenet_hub.search.similar import Match

_MAX_FINDINGS = 60  # of a kind


def picture(path: str, caption: str, archived: Mapping[str, bytes] = MappingProxyType({})) -> str:
    """Return a photo with a line beneath, and its file's name."""
    data = archived.get(printable(path))
    shown = thumbnail(path_of_name(path) if data is None else io.BytesIO(data))
    return figure(shown, "", escape(caption), printable(PurePath(path).name), printable(path))


def pictures(shown: Sequence[tuple[str, str]], archived: Mapping[str, bytes] = MappingProxyType({})) -> str:
    """Return a row of photos, (path, line beneath); those in archives were read before."""
    return f'<div class="photos">{"".join(picture(path, caption, archived) for path, caption in shown)}</div>'


def read_archived(paths: Iterable[str]) -> dict[str, bytes]:
    """Return what the photos among these hold that lie in archives, as many as a page shows.

    Example:
        >>> read_archived(["photos.zip/cat.jpg"])
        {}
    """
    wanted: dict[str, set[str]] = {}
    for path in islice(paths, MAX_SHOWN):
        above = (os.fspath(parent) for parent in PurePath(path_of_name(path)).parents)
        if not is_file(path_of_name(path)) and (archive := next(filter(is_file, above), None)):
            wanted.setdefault(archive, set()).add(printable(path))
    found: dict[str, bytes] = {}
    for archive, names in wanted.items():
        for item in items([archive]):
            if printable(item.key) in names:
                with suppress(ImageError, OSError):
                    data = item.read()
                    found[printable(item.key)] = data if isinstance(data, bytes) else read_bytes(data)
    return found


def similar_page(collection: str, names: Sequence[str], found: Sequence[Sequence[Match]]) -> str:
    """Return a page with the nearest photos of each.

    Example:
        >>> "0.8125" in similar_page("features", ["cat.jpg"], [[Match("lynx.jpg", 0.8125)]])
        True
    """
    rows = (
        (PurePath(name).name, [(name, "this photo"), *((match.path, f"{match.similarity:.4f}") for match in matches)])
        for name, matches in zip(names, found, strict=True)
    )
    sections = _cards(rows, len(names), "", "NAME.csv")
    lead = f"The nearest photos of {collection}; numbers are cosines of feature vectors, 1 is the same."
    return page("Similar photos", lead, sections)


def dedupe_page(source: str, groups: Sequence[Group], lead: str) -> str:
    """Return a page with the groups, the one to keep first.

    Example:
        >>> "nothing" in dedupe_page("photos", [], "")
        True
    """
    rows = (
        (
            f"{PurePath(group.keep).name} and {len(group.others)} more",
            [
                (group.keep, "keep"),
                *((other.path, f"{other.kind}, {other.similarity:.4f}") for other in group.others[: MAX_SHOWN - 1]),
            ],
        )
        for group in groups
    )
    sections = _cards(rows, len(groups), " groups", "GROUPS.csv")
    return page(f"Copies in {source}", lead, sections or [card("nothing found", "", "No photo is a copy of another.")])


def _cards(rows: Iterable[tuple[str, Sequence[tuple[str, str]]]], count: int, what: str, table_file: str) -> list[str]:
    """Return a card for each of the first rows, as many as a page shows, and one that tells of the others.

    Args:
        rows: (heading, [(path, line beneath)]).
        count: how many rows there are.
        what: of what they are, for "and 3 more".
        table_file: where all are, after -o.
    """
    shown: list[tuple[str, Sequence[tuple[str, str]]]] = []
    photos = 0
    for heading, row in rows:
        photos += len(row)
        if photos > MAX_SHOWN and shown:
            break
        shown.append((heading, row))
    archived = read_archived(path for _, row in shown for path, _ in row)
    sections = [card(heading, pictures(row, archived), "") for heading, row in shown]
    if left := count - len(shown):
        sections.append(card(f"and {left} more{what}", "", f"The table (-o {table_file}) has them all."))
    return sections


def check_page(found: Findings) -> str:
    """Return a page on which every finding is a picture with what it is compared with.

    Example:
        >>> from mobilenet_hub.search.check import Findings
        >>> "Nothing was found" in check_page(Findings("p", 9, ("cat",), (), (), (), (), (), None, ()))
        True
    """
    sections = [card("Summary", table(("found", "number", "which means"), _counted(found)), "") if found.found else ""]
    for copies, heading in (
        ([c for c in found.duplicated if c.across_classes], "The same photo, or nearly, in two classes"),
        ([c for c in found.duplicated if c.across_split and not c.across_classes], "Copies across the split"),
        ([c for c in found.duplicated if not c.across_split and not c.across_classes], "Copies in one class"),
    ):
        shown = [
            each
            for copy in copies[:_MAX_FINDINGS]
            for each in (
                (copy.path, f"{copy.label}, {copy.split or 'left out'}"),
                (copy.of, f"{copy.of_label}, {copy.of_split or 'left out'}: {copy.kind}, {copy.similarity:.4f}"),
            )
        ]
        sections.append(card(heading, pictures(shown), _more(len(copies))) if copies else "")
    rows = [
        f"<h3>{escape(each.label)}, probably {escape(each.suggested)} ({each.confidence:.2f})</h3>"
        + pictures([(each.path, f"labelled {each.label}"), *_near(each)])
        for each in found.mislabelled[:_MAX_FINDINGS]
    ]
    wrong = f"By a classifier that has not seen them, and by their neighbours. {_more(len(found.mislabelled))}"
    sections.append(card("Probably mislabelled", "".join(rows), wrong) if rows else "")
    flawed = [(each.path, f"{each.flaw} ({each.value:.3g})") for each in found.flawed[:_MAX_FINDINGS]]
    sections.append(card("Little to see", pictures(flawed), _more(len(found.flawed))) if flawed else "")
    bad = [(skip.name, skip.reason) for skip in found.unreadable[:_MAX_FINDINGS]]
    sections.append(card("Unreadable", table(("file", "reason"), bad), _more(len(found.unreadable))) if bad else "")
    few = [(each.label, str(each.photos)) for each in found.few]
    sections.append(card("Classes with few photos", table(("class", "photos"), few, numbers=1), "") if few else "")
    remarks = "".join(f"<li>{escape(warning)}</li>" for warning in found.warnings)
    sections.append(card("Remarks", f"<ul>{remarks}</ul>", "") if remarks else "")
    lead = f"{found.photos} photos of {len(found.labels)} classes."
    return page(f"Check of {found.source}", lead if found.found else f"{lead} Nothing was found.", sections)


def _counted(found: Findings) -> list[tuple[str, str, str]]:
    return [(what, str(number), meaning) for what, number, meaning in summary(found)]


def _near(each: Mislabelled) -> list[tuple[str, str]]:
    return [(path, f"near it: {label}") for path, label in zip(each.neighbours, each.neighbour_labels, strict=True)]


def _more(count: int) -> str:
    return f"The first {_MAX_FINDINGS} of {count}." if count > _MAX_FINDINGS else ""
