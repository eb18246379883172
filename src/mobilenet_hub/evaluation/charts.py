"""The report's charts as inline SVG; colours come from the page's style sheet."""

from collections.abc import Sequence
from math import ceil, floor, log10

import numpy as np

from mobilenet_hub.evaluation.metrics import Curve, Metrics, ReliabilityBin
from mobilenet_hub.evaluation.svg import Frame, bar, dot, inline, legend, line, marked_text, polyline, text
from mobilenet_hub.host.percent import percent

MAX_MATRIX_CLASSES = 30  # beyond it a cell is too small to read
_WIDTH, _HEIGHT = 460, 300
_ROW = 26  # height of a line of labels
_CHARACTER = 6.7  # mean width of a label's character at the style sheet's 12 px


def line_chart(curve: Curve) -> str:
    """Draw lines with their names, axes and, where there is one, the chosen x."""
    scale = log10 if curve.log_x else float
    points = [(scale(x), y) for drawn in curve.lines.values() for x, y in drawn]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    y_ticks = _ticks(min(ys), max(ys))
    frame = Frame(52, 14, _WIDTH - 66, _HEIGHT - 64, (min(xs), max(xs)), (y_ticks[0], y_ticks[-1]))
    x_ticks = list(range(ceil(min(xs)), floor(max(xs)) + 1)) if curve.log_x else _ticks(min(xs), max(xs), whole=True)
    x_names = [f"10<tspan dy='-5' font-size='9'>{x}</tspan>" if curve.log_x else f"{x:g}" for x in x_ticks]
    marks = [(x, name) for x, name in zip(x_ticks, x_names, strict=True) if min(xs) <= x <= max(xs)]
    parts = [_axes(frame, marks, [(y, f"{y:g}") for y in y_ticks], curve.x_label, curve.y_label)]
    if curve.chosen is not None:
        x = frame.x(scale(curve.chosen))
        parts.append(line(x, frame.top, x, frame.bottom, "chosen"))
        side = "end" if x > frame.left + frame.width / 2 else "start"
        parts.append(text(x + (-6 if side == "end" else 6), frame.top + 12, "chosen", "muted", side))
    for index, drawn in enumerate(curve.lines.values()):
        places = [(frame.x(scale(x)), frame.y(y)) for x, y in drawn]
        parts.append(polyline(places, f"line series-{index}"))
        if len(places) <= 40:
            parts += [dot(x, y, 3, f"dot series-{index}") for x, y in places]
    return inline(_WIDTH, _HEIGHT, parts, curve.title) + legend(list(curve.lines))


def reliability_chart(bins: Sequence[ReliabilityBin]) -> str:
    """Draw how often the classifier is right against how sure it is; on the diagonal the two agree."""
    frame = Frame(52, 14, _WIDTH - 66, _HEIGHT - 64, (0, 1), (0, 1))
    marks = [(tick / 5, percent(tick / 5, 0)) for tick in range(6)]
    parts = [_axes(frame, marks, marks, "score of the first label", "share that is right")]
    for bin in bins:
        left, right, y = frame.x(bin.low) + 2, frame.x(bin.high) - 2, frame.y(bin.accuracy)
        height = frame.bottom - y
        hint = f"{bin.images} photos, mean score {percent(bin.confidence)}, {percent(bin.accuracy)} right"
        parts.append(bar(left, y, right - left, height, "fill", hint))
        inside = height > 24
        parts.append(
            text(
                (left + right) / 2,
                frame.bottom - 7 if inside else y - 7,
                str(bin.images),
                "on-dark" if inside else "muted",
                "middle",
            )
        )
    parts.append(line(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "diagonal"))
    parts += [dot(frame.x(bin.confidence), frame.y(bin.accuracy), 4, "dot series-1") for bin in bins]
    return inline(_WIDTH, _HEIGHT, parts, "reliability of the scores")


def interval_chart(rows: Sequence[tuple[str, Metrics]]) -> str:
    """Draw the accuracy of each part with its 95 % interval."""
    left, right = 90, 150
    low = min((metrics.interval[0] for _, metrics in rows), default=0.0)
    ticks = _ticks(min(low, 0.9), 1.0)
    ticks = [tick for tick in ticks if tick <= 1]
    frame = Frame(left, 10, 2 * _WIDTH - left - right, _ROW * len(rows), (ticks[0], 1.0), (0, 1))
    parts = [line(frame.x(tick), frame.top, frame.x(tick), frame.bottom, "grid") for tick in ticks]
    parts += [text(frame.x(t), frame.bottom + 16, percent(t, 0), "muted", "middle") for t in ticks]
    for index, (name, metrics) in enumerate(rows):
        y = frame.top + _ROW * (index + 0.5)
        low, high = metrics.interval
        parts.append(text(left - 12, y + 4, name, "", "end"))
        parts.append(line(frame.x(low), y, frame.x(high), y, "whisker"))
        parts.append(dot(frame.x(metrics.accuracy), y, 5, "dot series-0"))
        figures = f"{percent(metrics.accuracy)} of {metrics.images:,}".replace(",", " ")
        parts.append(text(frame.right + 14, y + 4, figures))
    return inline(2 * _WIDTH, frame.height + 34, parts, "accuracy of each part")


def class_chart(labels: Sequence[str], metrics: Metrics, order: Sequence[int]) -> str:
    """Draw precision and recall of classes, one line each, in the order given."""
    left = min(220.0, 24 + _CHARACTER * max((len(labels[i]) for i in order), default=0))
    shown = [v[index] for v in (metrics.precision, metrics.recall) for index in order if not np.isnan(v[index])]
    ticks = [tick for tick in _ticks(min([*shown, 0.9]), 1.0) if tick <= 1]
    frame = Frame(left, 6, 2 * _WIDTH - left - 110, _ROW * len(order), (ticks[0], 1), (0, 1))
    parts = [line(frame.x(tick), frame.top, frame.x(tick), frame.bottom, "grid") for tick in ticks]
    parts += [text(frame.x(t), frame.bottom + 16, percent(t, 0), "muted", "middle") for t in ticks]
    images = metrics.confusion.sum(1)
    for row, index in enumerate(order):
        y = frame.top + _ROW * (row + 0.5)
        parts.append(text(left - 12, y + 4, _short(labels[index], 30), "", "end"))
        found = [(i, v[index]) for i, v in enumerate((metrics.precision, metrics.recall)) if not np.isnan(v[index])]
        if len(found) == 2:
            parts.append(line(frame.x(found[0][1]), y, frame.x(found[1][1]), y, "whisker thin"))
        parts += [dot(frame.x(value), y, 5.5 - 1.5 * i, f"dot series-{i}") for i, value in found]
        count = f"{images[index]} photo{'s' if images[index] != 1 else ''}"
        parts.append(text(frame.right + 14, y + 4, count, "muted"))
    return inline(2 * _WIDTH, frame.height + 30, parts, "precision and recall") + legend(["precision", "recall"])


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
        parts.append(text(margin - 10, slanted + middle + 4, _short(labels[i], 25), "", "end"))
        x, y = margin + middle + 2, slanted - 8
        parts.append(text(x, y, _short(labels[i], 25), turned=-45))
        for j in range(count):
            x, y = margin + j * cell, slanted + i * cell
            hint = f"{labels[i]} taken for {labels[j]}: {confusion[i, j]}"
            parts.append(bar(x + 1, y + 1, cell - 2, cell - 2, "cell", hint))
            if confusion[i, j]:
                kind = "fill" if i == j else "wrong"
                parts.append(bar(x + 1, y + 1, cell - 2, cell - 2, kind, hint, 0.12 + 0.88 * shares[i, j]))
            if confusion[i, j] and cell >= 18:
                shade = "on-dark" if shares[i, j] > 0.5 else ""
                parts.append(text(x + cell / 2, y + cell / 2 + 4, str(confusion[i, j]), shade, "middle"))
    width = margin + cell * count + slanted
    return inline(width, slanted + cell * count + 6, parts, "confusion matrix", f"max-width:{width:.0f}px")


def _axes(
    frame: Frame, x_marks: list[tuple[float, str]], y_marks: list[tuple[float, str]], x_label: str, y_label: str
) -> str:
    parts = [line(frame.left, frame.bottom, frame.right, frame.bottom, "axis")]
    for value, name in y_marks:
        y = frame.y(value)
        parts += [line(frame.left, y, frame.right, y, "grid"), text(frame.left - 8, y + 4, name, "muted", "end")]
    parts += [marked_text(frame.x(value), frame.bottom + 18, name, "muted", "middle") for value, name in x_marks]
    parts.append(text((frame.left + frame.right) / 2, frame.bottom + 40, x_label, "muted", "middle"))
    parts.append(text(11, (frame.top + frame.bottom) / 2, y_label, "muted", "middle", turned=-90))
    return "".join(parts)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Return four to nine round values that enclose low and high."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** floor(log10(span / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if span / (power * factor) <= 6)
    if whole:
        step = max(1.0, float(round(step)))
    return [round(step * i, 10) for i in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
