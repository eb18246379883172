"""What the server counts, in Prometheus' text format (version 0.0.4). All of it lives in the event loop's thread."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Values counted by size.

    Example:
        >>> histogram = Histogram((1, 2))
        >>> for value in (0.5, 2, 7):
        ...     histogram.observe(value)
        >>> histogram.lines("x", ())
        ['x_bucket{le="1"} 1', 'x_bucket{le="2"} 2', 'x_bucket{le="+Inf"} 3', 'x_sum 9.5', 'x_count 3']
    """

    def __init__(self, bounds: Sequence[float]):
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: Labels) -> list[str]:
        """Return the lines of the text format."""
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        counts = list(accumulate(self._counts))
        return [
            *(line(f"{name}_bucket", (*labels, ("le", b)), n) for b, n in zip(bounds, counts, strict=True)),
            line(f"{name}_sum", labels, self._sum),
            line(f"{name}_count", labels, counts[-1]),
        ]


def line(name: str, labels: Labels, value: float) -> str:
    r"""Return one line of the text format.

    Example:
        >>> line("x", (("name", 'a"b'),), 2)
        'x{name="a\\"b"} 2'
    """
    escaped = ((key, text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for key, text in labels)
    inside = ",".join(f'{key}="{text}"' for key, text in escaped)
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self):
        self.requests: Counter[tuple[str, int]] = Counter()  # of (endpoint, status)
        self.images: Counter[str] = Counter()  # answered, of a module
        self.bad_images = 0
        self.batches = Histogram(_BATCHES)
        self._latencies: dict[str, Histogram] = {}
        self._decode, self._wait, self._compute = (Histogram(_SECONDS) for _ in range(3))

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self.requests[endpoint, status] += 1
        if endpoint not in self._latencies:
            self._latencies[endpoint] = Histogram(_SECONDS)
        self._latencies[endpoint].observe(seconds)

    def stages(self, decode_s: float, wait_s: float, compute_s: float) -> None:
        """Count where a request's time went."""
        self._decode.observe(decode_s)
        self._wait.observe(wait_s)
        self._compute.observe(compute_s)

    def text(self, gauges: Mapping[str, tuple[str, float]], models: Iterable[Labels]) -> str:
        """Return all in the text format.

        Args:
            gauges: name -> (help, value) of what is read at this moment.
            models: the labels that describe each module.
        """
        requests = [
            line("mobilenet_requests_total", (("endpoint", endpoint), ("status", str(status))), count)
            for (endpoint, status), count in sorted(self.requests.items())
        ]
        images = [line("mobilenet_images_total", (("module", m),), n) for m, n in sorted(self.images.items())]
        latencies = [
            text
            for endpoint, histogram in sorted(self._latencies.items())
            for text in histogram.lines("mobilenet_request_seconds", (("endpoint", endpoint),))
        ]
        stages = [
            text
            for stage, histogram in (("decode", self._decode), ("wait", self._wait), ("compute", self._compute))
            for text in histogram.lines("mobilenet_stage_seconds", (("stage", stage),))
        ]
        parts = [
            *_family("mobilenet_requests_total", "counter", "Answers by endpoint and status.", requests),
            *_family("mobilenet_images_total", "counter", "Images answered.", images),
            *_family(
                "mobilenet_bad_images_total",
                "counter",
                "Images that could not be read.",
                [line("mobilenet_bad_images_total", (), self.bad_images)],
            ),
            *_family("mobilenet_request_seconds", "histogram", "From a request's head to its answer.", latencies),
            *_family("mobilenet_stage_seconds", "histogram", "Where requests spend their time.", stages),
            *_family(
                "mobilenet_batch_images",
                "histogram",
                "Images that the network took at a time.",
                self.batches.lines("mobilenet_batch_images", ()),
            ),
            *_family(
                "mobilenet_model_info",
                "gauge",
                "The modules that are served.",
                [line("mobilenet_model_info", labels, 1) for labels in models],
            ),
        ]
        for name, (about, value) in gauges.items():
            parts += _family(name, "gauge", about, [line(name, (), value)])
        return "\n".join(parts) + "\n"


def _family(name: str, kind: str, about: str, lines: Iterable[str]) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *lines]


def resident_bytes() -> int:
    """Return how much memory this process holds; 0 where the system does not say.

    Example:
        >>> resident_bytes() >= 0
        True
    """
    import os

    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
