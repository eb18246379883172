"""Pages of pictures: what is near to what."""

from collections.abc import Sequence
from html import escape
from pathlib import PurePath

from mobilenet_hub.evaluation.page import card, page, thumbnail
from mobilenet_hub.search.dedupe import Group
from mobilenet_hub.search.similar import Match

MAX_SHOWN = 500  # pictures on a page; each takes some 10 kB


def picture(path: str, caption: str, file: str | None = None) -> str:
    """Return a photo with a line beneath, and its file's name."""
    source = thumbnail(path)
    image = f'<img alt="" src="data:image/jpeg;base64,{source}">' if source else ""
    name = escape(PurePath(path).name if file is None else file)
    return (
        f'<figure title="{escape(path)}">{image}<figcaption>{escape(caption)}<span class="file">{name}</span>'
        "</figcaption></figure>"
    )


def pictures(shown: Sequence[tuple[str, str]]) -> str:
    """Return a row of photos, (path, line beneath)."""
    return f'<div class="photos">{"".join(picture(path, caption) for path, caption in shown)}</div>'


def similar_page(collection: str, names: Sequence[str], found: Sequence[Sequence[Match]]) -> str:
    """Return a page with the nearest photos of each.

    Example:
        >>> "0.8125" in similar_page("features", ["cat.jpg"], [[Match("lynx.jpg", 0.8125)]])
        True
    """
    sections: list[str] = []
    shown = 0
    for name, matches in zip(names, found, strict=True):
        if shown + len(matches) + 1 > MAX_SHOWN and sections:
            left = len(names) - len(sections)
            sections.append(card(f"and {left} more", "", "The table (-o NAME.csv) has them all."))
            break
        shown += len(matches) + 1
        row = [(name, "this photo"), *((match.path, f"{match.similarity:.4f}") for match in matches)]
        sections.append(card(PurePath(name).name, pictures(row), ""))
    lead = f"The nearest photos of {collection}; numbers are cosines of feature vectors, 1 is the same."
    return page("Similar photos", lead, sections)


def dedupe_page(source: str, groups: Sequence[Group], lead: str) -> str:
    """Return a page with the groups, the one to keep first.

    Example:
        >>> "nothing" in dedupe_page("photos", [], "")
        True
    """
    sections: list[str] = []
    shown = 0
    for group in groups:
        if shown + len(group.others) + 1 > MAX_SHOWN and sections:
            left = len(groups) - len(sections)
            sections.append(card(f"and {left} more groups", "", "The table (-o GROUPS.csv) has them all."))
            break
        others = group.others[: MAX_SHOWN - 1]
        shown += len(others) + 1
        row = [(group.keep, "keep"), *((other.path, f"{other.kind}, {other.similarity:.4f}") for other in others)]
        sections.append(card(f"{PurePath(group.keep).name} and {len(group.others)} more", pictures(row), ""))
    return page(f"Copies in {source}", lead, sections or [card("nothing found", "", "No photo is a copy of another.")])
