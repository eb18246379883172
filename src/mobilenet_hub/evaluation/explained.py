"""Pictures of explanations, and the page of them: which part of each photo spoke for its labels."""

from collections.abc import Sequence
from html import escape
from pathlib import PurePath

import numpy as np

from mobilenet_hub.evaluation.page import MAX_SHOWN, card, figure, jpeg, page, table
from mobilenet_hub.host.percent import percent
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.explain import Explanation

PAGE_SIZE = 320  # pixels on the longer side of a picture of the page
_MAX_LISTED = 100  # unreadable files
_NEAR = 0.43  # where the mean lies, from one side to the other, that is called that side
_LEGEND = (
    "Each photo stands here as the network sees it: what was cut off had no say. Colored, up to yellow, is what spoke "
    "for the label; gray said nothing, or spoke against it. The mean of a map over the photo, plus a constant of the "
    "class, is the logit of the label: the map leaves nothing out. All maps of a photo have the same scale."
)


def place(heat: np.ndarray) -> str:
    """Return in words where most of what spoke for a class lies in a map [height, width].

    Example:
        >>> place(np.eye(3)[::-1] * [1, 0, 0])
        'most of it in the lower left'
    """
    spoke = np.clip(heat, 0, None)
    if not spoke.any():
        return "nowhere"
    down, across = ((axis * np.linspace(0, 1, len(axis))).sum() / axis.sum() for axis in (spoke.sum(1), spoke.sum(0)))
    words = [
        low if share < _NEAR else high if share > 1 - _NEAR else ""
        for share, low, high in ((down, "upper", "lower"), (across, "left", "right"))
    ]
    if all(words):
        return f"most of it in the {' '.join(words)}"
    if not any(words):
        return "most of it around the middle"
    return f"most of it in the {words[0]} part" if words[0] else f"most of it on the {words[1]}"


def map_figure(explanation: Explanation, rank: int, caption: str, size: int = PAGE_SIZE) -> str:
    """Return the picture of what spoke for a class.

    Args:
        explanation: of a photo.
        rank: which of its classes.
        caption: markup.
        size: the most pixels on the longer side.
    """
    where = place(explanation.heat(rank))
    alt = f"What spoke for {explanation.labels[rank]} in {PurePath(explanation.source).name}: {where}"
    return figure(jpeg(explanation.overlay(rank), size), alt, caption)


class ExplainedPage:
    """The page, while photos come; it holds no more than a bounded number of pictures.

    Attributes:
        photos: how many are on it.
        more: how many were classified and are not on it.
        full: there is no room for another photo.
    """

    def __init__(self, top: int = 1):
        """Begin an empty page.

        Args:
            top: how many classes of each photo are shown, at least 1.
        """
        self._top = top
        self._sections: list[str] = []
        self.more = 0

    @property
    def photos(self) -> int:
        """How many photos are on it."""
        return len(self._sections)

    @property
    def full(self) -> bool:
        """Whether there is no room for another photo."""
        return self.photos > 0 and (self.photos + 1) * (1 + self._top) > MAX_SHOWN

    def add(self, explanation: Explanation, min_score: float = 0.0) -> None:
        """Add a photo; it is only counted where the page is full.

        Args:
            explanation: of the photo; its first classes are shown.
            min_score: classes with a lower score are left out.
        """
        if self.full:
            self.leave_out(1)
            return
        shown = min(self._top, sum(score >= min_score for score in explanation.scores))
        explanation = explanation.first(min(shown, MAX_SHOWN))
        name = PurePath(explanation.source).name
        pictures = [figure(jpeg(explanation.image, PAGE_SIZE), name, "the photo, as the network sees it")]
        pictures += [
            map_figure(explanation, rank, f"<strong>{escape(label)}</strong> {percent(score)}")
            for rank, (label, score) in enumerate(zip(explanation.labels, explanation.scores, strict=True))
        ]
        said = "" if shown else "No answer: no score is high enough."
        self._sections.append(card(name, f'<div class="photos maps">{"".join(pictures)}</div>', said))

    def leave_out(self, photos: int) -> None:
        """Count photos that were classified and are not shown."""
        self.more += photos

    def render(self, title: str, lead: str, skipped: Sequence[Skipped] = ()) -> str:
        """Return the page as HTML.

        Args:
            title: its heading.
            lead: what was done.
            skipped: the files that could not be read.

        Example:
            >>> "not a picture" in ExplainedPage().render("why", "", [Skipped("a.txt", "not a picture")])
            True
        """
        photos = "\n".join(self._sections)  # of one map each there is room for two beside each other
        sections = [card("How to read the maps", "", _LEGEND)]
        sections.append(f'<div class="pair">{photos}</div>' if self._top == 1 and photos else photos)
        if self.more:
            text = f"A page holds {MAX_SHOWN} pictures: these photos were classified, and are not shown."
            sections.append(card(f"and {self.more} more photos", "", text))
        if skipped:
            more = f"The first {_MAX_LISTED} of {len(skipped)}." if len(skipped) > _MAX_LISTED else ""
            sections.append(card("Could not be read", table(("file", "reason"), skipped[:_MAX_LISTED]), more))
        return page(title, lead, sections)
