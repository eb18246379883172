"""The pieces that drawings are made of: lines, dots, bars, texts, and the frame that values are placed in.

Classes say what a piece is; colours and strokes come from the page's style sheet, or from the drawing's own.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from mobilenet_hub.host.ownership import MARK

Point = tuple[float, float]


class Frame(NamedTuple):
    """A plot's rectangle and the values at its edges."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height

    def x(self, value: float) -> float:
        """Return where a value lies from left to right."""
        low, high = self.x_range
        return self.left + self.width * (value - low) / ((high - low) or 1)

    def y(self, value: float) -> float:
        """Return where a value lies from top to bottom."""
        low, high = self.y_range
        return self.top + self.height * (1 - (value - low) / ((high - low) or 1))


def inline(width: float, height: float, parts: Iterable[str], title: str, style: str = "") -> str:
    """Return a drawing for a page, whose style sheet it takes.

    Example:
        >>> inline(20, 10, [line(0, 5, 20, 5, "axis")], "a line").endswith("</svg>")
        True
    """
    return f"<svg {_box(width, height, title)}{_attribute('style', style)}>{''.join(parts)}</svg>"


def whole_file(width: float, height: float, parts: Iterable[str], title: str, style_sheet: str) -> str:
    """Return a drawing that stands alone in a file, on white, with a style sheet of its own."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {_box(width, height, title)}>\n'
        f"<!-- {MARK} -->\n<style>{style_sheet}</style>\n"
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _box(width: float, height: float, title: str) -> str:
    return f'viewBox="0 0 {width:.0f} {height:.0f}" role="img"{_attribute("aria-label", title)}'


def _attribute(name: str, value: str) -> str:
    return f' {name}="{escape(value)}"' if value else ""


def _shape(name: str, kind: str, geometry: str, hint: str = "") -> str:
    """Return a shape; the hint is shown where the mouse rests on it."""
    inside = f"><title>{escape(hint)}</title></{name}>" if hint else "/>"
    return f"<{name}{_attribute('class', kind)} {geometry}{inside}"


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> str:
    """Return a straight line."""
    return _shape("line", kind, f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"')


def polyline(points: Iterable[Point], kind: str) -> str:
    """Return a line through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return _shape("polyline", kind, f'points="{path}"')


def dot(x: float, y: float, radius: float, kind: str, hint: str = "") -> str:
    """Return a dot."""
    return _shape("circle", kind, f'cx="{x:.1f}" cy="{y:.1f}" r="{radius}"', hint)


def bar(x: float, y: float, width: float, height: float, kind: str, hint: str = "", opacity: float = 1) -> str:
    """Return a rectangle."""
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
    return _shape("rect", kind, shape + (f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""), hint)


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start", turned: float = 0) -> str:
    """Return a text.

    Args:
        x: where its anchor lies.
        y: its base line.
        words: what it says.
        kind: its class.
        anchor: what lies at x: its start, middle or end.
        turned: degrees clockwise about (x, y).
    """
    return marked_text(x, y, escape(words), kind, anchor, turned)


def marked_text(x: float, y: float, markup: str, kind: str = "", anchor: str = "start", turned: float = 0) -> str:
    """Return a text of markup, with an exponent for instance; otherwise as `text`."""
    turn = f' transform="rotate({turned:g} {x:.1f} {y:.1f})"' if turned else ""
    return f'<text{_attribute("class", kind)} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{markup}</text>'


def legend(names: Sequence[str]) -> str:
    """Return the names of lines, for a page, each behind the colour of its series."""
    entries = (f'<span><i class="key key-{i}"></i>{escape(name)}</span>' for i, name in enumerate(names))
    return f'<p class="legend">{"".join(entries)}</p>'
