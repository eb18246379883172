"""Published accuracy against measured speed, as one SVG."""

from collections.abc import Sequence
from math import log10

from mobilenet_hub.evaluation.svg import Frame, dot, line, polyline, text, whole_file
from mobilenet_hub.inference.bench import NetworkSpeed, front

_WIDTH, _HEIGHT = 860, 540
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 28, 52, 56
_RADIUS = 4.5
_COLORS = {"mobilenet_v1": "#c2570c", "mobilenet_v2": "#0b6fa4"}
_STEPS = (1, 2, 5)
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#333}.muted{fill:#777}.small{font-size:11px}line{stroke:#ddd}"
    ".budget{stroke:#b00}.front{fill:none;stroke:#bbb;stroke-dasharray:4 3}"
    + "".join(f".{name}{{fill:{color}}}" for name, color in _COLORS.items())
)


def speed_chart(speeds: Sequence[NetworkSpeed], machine: str, budget_ms: float | None = None) -> str:
    """Draw a dot for each network: milliseconds for one image (logarithmic) and top-1 accuracy; name the best.

    Args:
        speeds: measured networks, at least one.
        machine: what they were measured on, for the title.
        budget_ms: drawn as a line.
    """
    times = [speed.one_image_ms for speed in speeds] + ([budget_ms] if budget_ms else [])
    accuracies = [speed.configuration.published.top1 for speed in speeds]
    range_x = log10(min(times)) - 0.06, log10(max(times)) + 0.12
    range_y = 5 * (min(accuracies) // 5), 5 * (max(accuracies) // 5 + 1)
    frame = Frame(_LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM, range_x, range_y)

    def place(speed: NetworkSpeed) -> tuple[float, float]:
        return frame.x(log10(speed.one_image_ms)), frame.y(speed.configuration.published.top1)

    title = f"Accuracy against speed: one image on {machine}"
    parts = [text(_LEFT, 26, title), *_axes(frame)]
    if budget_ms:
        x = frame.x(log10(budget_ms))
        parts.append(line(x, frame.top, x, frame.bottom, "budget"))
        parts.append(text(x + 5, frame.top + 12, f"budget {budget_ms:g} ms", "small"))
    best = front(speeds)
    parts.append(polyline([place(speed) for speed in best], "front"))
    for speed in speeds:
        hint = f"{_name(speed)}: {speed.one_image_ms:.2f} ms"
        parts.append(dot(*place(speed), _RADIUS, speed.configuration.architecture, hint))
    for speed in best:
        x, y = place(speed)
        parts.append(text(x - 7, y - 6, _name(speed), "small", "end"))
    for row, name in enumerate(_COLORS):
        y = frame.bottom - 36 + 18 * row
        parts.append(dot(_WIDTH - 150, y, _RADIUS, name, name))
        parts.append(text(_WIDTH - 140, y + 4, name.replace("_", " "), "small"))
    return whole_file(_WIDTH, _HEIGHT, parts, title, _STYLE)


def _axes(frame: Frame) -> list[str]:
    """Return both axes: milliseconds in ones, twos and fives, and per cents in fives."""
    parts = []
    low, high = frame.x_range
    for tick in (step * 10.0**power for power in range(-2, 5) for step in _STEPS):
        if low <= log10(tick) <= high:
            x = frame.x(log10(tick))
            parts.append(line(x, frame.top, x, frame.bottom))
            parts.append(text(x, frame.bottom + 18, f"{tick:g}", "", "middle"))
    for tick in range(int(frame.y_range[0]), int(frame.y_range[1]) + 1, 5):
        y = frame.y(tick)
        parts.append(line(frame.left, y, frame.right, y))
        parts.append(text(frame.left - 8, y + 4, f"{tick}", "", "end"))
    middle = (frame.left + frame.right) / 2
    parts.append(text(middle, _HEIGHT - 14, "milliseconds for one image", "muted", "middle"))
    parts.append(text(14, frame.top - 10, "top-1 % on ImageNet, as published", "muted"))
    return parts


def _name(speed: NetworkSpeed) -> str:
    return speed.configuration.name.removeprefix("mobilenet_")
