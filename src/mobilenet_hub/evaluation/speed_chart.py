"""Published accuracy against measured speed, as one SVG."""

from collections.abc import Sequence
from html import escape
from math import log10

from mobilenet_hub.host.ownership import MARK
from mobilenet_hub.inference.bench import NetworkSpeed, front

_WIDTH, _HEIGHT = 860, 540
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 28, 52, 56
_COLORS = {"mobilenet_v1": "#c2570c", "mobilenet_v2": "#0b6fa4"}
_STEPS = (1, 2, 5)
_STYLE = "text{font:13px system-ui,sans-serif;fill:#333}.muted{fill:#777}.small{font-size:11px}line{stroke:#ddd}"


def speed_chart(speeds: Sequence[NetworkSpeed], machine: str, budget_ms: float | None = None) -> str:
    """Draw a dot for each network: milliseconds for one image (logarithmic) and top-1 accuracy; name the best.

    Args:
        speeds: measured networks, at least one.
        machine: what they were measured on, for the title.
        budget_ms: drawn as a line.
    """
    times = [speed.one_image_ms for speed in speeds] + ([budget_ms] if budget_ms else [])
    low, high = log10(min(times)) - 0.06, log10(max(times)) + 0.12
    accuracies = [speed.configuration.published.top1 for speed in speeds]
    bottom, top = 5 * (min(accuracies) // 5), 5 * (max(accuracies) // 5 + 1)

    def x(ms: float) -> float:
        return _LEFT + (log10(ms) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(accuracy: float) -> float:
        return _TOP + (top - accuracy) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_text(_LEFT, 26, f"Accuracy against speed: one image on {machine}", "", "start")]
    for power in range(-2, 5):
        for tick in (step * 10.0**power for step in _STEPS):
            if low <= log10(tick) <= high:
                parts.append(_line(x(tick), _TOP, x(tick), _HEIGHT - _BOTTOM))
                parts.append(_text(x(tick), _HEIGHT - _BOTTOM + 18, f"{tick:g}"))
    for tick in range(int(bottom), int(top) + 1, 5):
        parts.append(_line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick)))
        parts.append(_text(_LEFT - 8, y(tick) + 4, f"{tick}", "", "end"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, "milliseconds for one image", "muted"))
    parts.append(_text(14, _TOP - 10, "top-1 % on ImageNet, as published", "muted", "start"))
    if budget_ms:
        parts.append(_line(x(budget_ms), _TOP, x(budget_ms), _HEIGHT - _BOTTOM, "#b00"))
        parts.append(_text(x(budget_ms) + 5, _TOP + 12, f"budget {budget_ms:g} ms", "small", "start"))
    best = front(speeds)
    corners = " ".join(f"{x(s.one_image_ms):.1f},{y(s.configuration.published.top1):.1f}" for s in best)
    parts.append(f'<polyline points="{corners}" fill="none" stroke="#bbb" stroke-dasharray="4 3"/>')
    for speed in speeds:
        at = x(speed.one_image_ms), y(speed.configuration.published.top1)
        parts.append(
            _dot(*at, _COLORS[speed.configuration.architecture], f"{_name(speed)}: {speed.one_image_ms:.2f} ms")
        )
    for speed in best:
        at = x(speed.one_image_ms), y(speed.configuration.published.top1)
        parts.append(_text(at[0] - 7, at[1] - 6, _name(speed), "small", "end"))
    for row, (name, color) in enumerate(_COLORS.items()):
        parts.append(_dot(_WIDTH - 150, _HEIGHT - _BOTTOM - 36 + 18 * row, color, name))
        parts.append(_text(_WIDTH - 140, _HEIGHT - _BOTTOM - 32 + 18 * row, name.replace("_", " "), "small", "start"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">\n'
        f"<!-- {MARK} -->\n<style>{_STYLE}</style>\n"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _name(speed: NetworkSpeed) -> str:
    return speed.configuration.name.removeprefix("mobilenet_")


def _line(x1: float, y1: float, x2: float, y2: float, color: str = "") -> str:
    style = f' style="stroke:{color}"' if color else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{style}/>'


def _dot(x: float, y: float, color: str, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{color}"><title>{escape(title)}</title></circle>'


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "middle") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'
