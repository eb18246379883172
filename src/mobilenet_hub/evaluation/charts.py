"""The report's charts as inline SVG; colours come from the page's style sheet."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

import numpy as np

from mobilenet_hub.evaluation.metrics import Curve, Metrics, ReliabilityBin
from mobilenet_hub.host.figures import percent

MAX_MATRIX_CLASSES = 30  # beyond it a cell is too small to read
_WIDTH, _HEIGHT = 460, 300
_ROW = 26  # height of a line of labels
_CHARACTER = 6.7  # mean width of a label's character at the style sheet's 12 px


class _Frame(NamedTuple):
    """A plot's rectangle and the values at its edges."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + self.width * (value - low) / ((high - low) or 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.top + self.height * (1 - (value - low) / ((high - low) or 1))


def line_chart(curve: Curve) -> str:
    """Draw lines with their names, axes and, where there is one, the chosen x."""
    scale = log10 if curve.log_x else float
    points = [(scale(x), y) for line in curve.lines.values() for x, y in line]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    y_ticks = _ticks(min(ys), max(ys))
    frame = _Frame(52, 14, _WIDTH - 66, _HEIGHT - 64, (min(xs), max(xs)), (y_ticks[0], y_ticks[-1]))
    x_ticks = list(range(ceil(min(xs)), floor(max(xs)) + 1)) if curve.log_x else _ticks(min(xs), max(xs), whole=True)
    x_names = [f"10<tspan dy='-5' font-size='9'>{x}</tspan>" if curve.log_x else f"{x:g}" for x in x_ticks]
    marks = [(x, name) for x, name in zip(x_ticks, x_names, strict=True) if min(xs) <= x <= max(xs)]
    parts = [_axes(frame, marks, [(y, f"{y:g}") for y in y_ticks], curve.x_label, curve.y_label)]
    if curve.chosen is not None:
        x = frame.x(scale(curve.chosen))
        parts.append(_line(x, frame.top, x, frame.top + frame.height, "chosen"))
        side = "end" if x > frame.left + frame.width / 2 else "start"
        parts.append(_text(x + (-6 if side == "end" else 6), frame.top + 12, "chosen", "muted", side))
    for index, line in enumerate(curve.lines.values()):
        path = " ".join(f"{frame.x(scale(x)):.1f},{frame.y(y):.1f}" for x, y in line)
        parts.append(f'<polyline class="line series-{index}" points="{path}"/>')
        if len(line) <= 40:
            parts += [_dot(frame.x(scale(x)), frame.y(y), 3, f"series-{index}") for x, y in line]
    return _svg(_WIDTH, _HEIGHT, parts, curve.title) + _legend(list(curve.lines))


def reliability_chart(bins: Sequence[ReliabilityBin]) -> str:
    """Draw how often the classifier is right against how sure it is; on the diagonal the two agree."""
    frame = _Frame(52, 14, _WIDTH - 66, _HEIGHT - 64, (0, 1), (0, 1))
    marks = [(tick / 5, percent(tick / 5, 0)) for tick in range(6)]
    parts = [_axes(frame, marks, marks, "score of the first label", "share that is right")]
    for bin in bins:
        left, right, y = frame.x(bin.low) + 2, frame.x(bin.high) - 2, frame.y(bin.accuracy)
        height = frame.top + frame.height - y
        hint = f"{bin.images} photos, mean score {percent(bin.confidence)}, {percent(bin.accuracy)} right"
        parts.append(_bar(left, y, right - left, height, "fill", hint))
        inside = height > 24
        parts.append(
            _text(
                (left + right) / 2,
                frame.top + frame.height - 7 if inside else y - 7,
                str(bin.images),
                "on-dark" if inside else "muted",
                "middle",
            )
        )
    parts.append(_line(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "diagonal"))
    parts += [_dot(frame.x(bin.confidence), frame.y(bin.accuracy), 4, "series-1") for bin in bins]
    return _svg(_WIDTH, _HEIGHT, parts, "reliability of the scores")


def interval_chart(rows: Sequence[tuple[str, Metrics]]) -> str:
    """Draw the accuracy of each part with its 95 % interval."""
    left, right = 90, 150
    low = min((metrics.interval[0] for _, metrics in rows), default=0.0)
    ticks = _ticks(min(low, 0.9), 1.0)
    ticks = [tick for tick in ticks if tick <= 1]
    frame = _Frame(left, 10, 2 * _WIDTH - left - right, _ROW * len(rows), (ticks[0], 1.0), (0, 1))
    parts = [_line(frame.x(tick), frame.top, frame.x(tick), frame.top + frame.height, "grid") for tick in ticks]
    parts += [_text(frame.x(t), frame.top + frame.height + 16, percent(t, 0), "muted", "middle") for t in ticks]
    for index, (name, metrics) in enumerate(rows):
        y = frame.top + _ROW * (index + 0.5)
        low, high = metrics.interval
        parts.append(_text(left - 12, y + 4, name, "", "end"))
        parts.append(_line(frame.x(low), y, frame.x(high), y, "whisker"))
        parts.append(_dot(frame.x(metrics.accuracy), y, 5, "series-0"))
        figures = f"{percent(metrics.accuracy)} of {metrics.images:,}".replace(",", " ")
        parts.append(_text(frame.left + frame.width + 14, y + 4, figures))
    return _svg(2 * _WIDTH, frame.height + 34, parts, "accuracy of each part")


def class_chart(labels: Sequence[str], metrics: Metrics, order: Sequence[int]) -> str:
    """Draw precision and recall of classes, one line each, in the order given."""
    left = min(220.0, 24 + _CHARACTER * max((len(labels[i]) for i in order), default=0))
    shown = [v[index] for v in (metrics.precision, metrics.recall) for index in order if not np.isnan(v[index])]
    ticks = [tick for tick in _ticks(min([*shown, 0.9]), 1.0) if tick <= 1]
    frame = _Frame(left, 6, 2 * _WIDTH - left - 110, _ROW * len(order), (ticks[0], 1), (0, 1))
    parts = [_line(frame.x(tick), frame.top, frame.x(tick), frame.top + frame.height, "grid") for tick in ticks]
    parts += [_text(frame.x(t), frame.top + frame.height + 16, percent(t, 0), "muted", "middle") for t in ticks]
    images = metrics.confusion.sum(1)
    for row, index in enumerate(order):
        y = frame.top + _ROW * (row + 0.5)
        parts.append(_text(left - 12, y + 4, _short(labels[index], 30), "", "end"))
        found = [(i, v[index]) for i, v in enumerate((metrics.precision, metrics.recall)) if not np.isnan(v[index])]
        if len(found) == 2:
            parts.append(_line(frame.x(found[0][1]), y, frame.x(found[1][1]), y, "whisker thin"))
        parts += [_dot(frame.x(value), y, 5.5 - 1.5 * i, f"series-{i}") for i, value in found]
        count = f"{images[index]} photo{'s' if images[index] != 1 else ''}"
        parts.append(_text(frame.left + frame.width + 14, y + 4, count, "muted"))
    return _svg(2 * _WIDTH, frame.height + 30, parts, "precision and recall") + _legend(["precision", "recall"])


def confusion_chart(labels: Sequence[str], confusion: np.ndarray) -> str:
    """Draw the confusion matrix: rows are true classes, columns what they were taken for."""
    count = len(labels)
    margin = min(190.0, 20 + _CHARACTER * max(map(len, labels)))
    cell = min(54.0, (2 * _WIDTH - margin - 20) / count)
    slanted = margin * 0.72 + 14
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    parts = []
    for i in range(count):
        middle = (i + 0.5) * cell
        parts.append(_text(margin - 10, slanted + middle + 4, _short(labels[i], 25), "", "end"))
        x, y = margin + middle + 2, slanted - 8
        name = _short(labels[i], 25)
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" transform="rotate(-45 {x:.1f} {y:.1f})">{escape(name)}</text>')
        for j in range(count):
            x, y = margin + j * cell, slanted + i * cell
            hint = f"{labels[i]} taken for {labels[j]}: {confusion[i, j]}"
            parts.append(_bar(x + 1, y + 1, cell - 2, cell - 2, "cell", hint))
            if confusion[i, j]:
                kind = "fill" if i == j else "wrong"
                opacity = f'fill-opacity="{0.12 + 0.88 * shares[i, j]:.2f}"'
                parts.append(_bar(x + 1, y + 1, cell - 2, cell - 2, kind, hint, opacity))
            if confusion[i, j] and cell >= 18:
                shade = "on-dark" if shares[i, j] > 0.5 else ""
                parts.append(_text(x + cell / 2, y + cell / 2 + 4, str(confusion[i, j]), shade, "middle"))
    width = margin + cell * count + slanted
    return _svg(width, slanted + cell * count + 6, parts, "confusion matrix", f"max-width:{width:.0f}px")


def _axes(
    frame: _Frame, x_marks: list[tuple[float, str]], y_marks: list[tuple[float, str]], x_label: str, y_label: str
) -> str:
    bottom, right = frame.top + frame.height, frame.left + frame.width
    parts = [_line(frame.left, bottom, right, bottom, "axis")]
    for value, name in y_marks:
        y = frame.y(value)
        parts += [_line(frame.left, y, right, y, "grid"), _text(frame.left - 8, y + 4, name, "muted", "end")]
    parts += [_raw_text(frame.x(value), bottom + 18, name, "muted", "middle") for value, name in x_marks]
    parts.append(_text((frame.left + right) / 2, bottom + 40, x_label, "muted", "middle"))
    middle = (frame.top + bottom) / 2
    parts.append(
        f'<text class="muted" text-anchor="middle" transform="rotate(-90 11 {middle:.1f})" x="11" y="{middle:.1f}">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Return four to nine round values that enclose low and high."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** floor(log10(span / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if span / (power * factor) <= 6)
    if whole:
        step = max(1.0, float(round(step)))
    return [round(step * i, 10) for i in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def _svg(width: float, height: float, parts: Sequence[str], title: str, style: str = "") -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}" style="{style}">'
        f"{''.join(parts)}</svg>"
    )


def _legend(names: Sequence[str]) -> str:
    entries = (f'<span><i class="key key-{i}"></i>{escape(name)}</span>' for i, name in enumerate(names))
    return f'<p class="legend">{"".join(entries)}</p>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, radius: float, kind: str) -> str:
    return f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def _bar(x: float, y: float, width: float, height: float, kind: str, hint: str, extra: str = "") -> str:
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
    return f'<rect class="{kind}" {shape} {extra}><title>{escape(hint)}</title></rect>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return _raw_text(x, y, escape(text), kind, anchor)


def _raw_text(x: float, y: float, markup: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{markup}</text>'


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
