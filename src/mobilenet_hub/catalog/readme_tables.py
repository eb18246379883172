"""TF-Slim's README tables of the trained MobileNets, as printed there: MACs, parameters, accuracy, latency.

Pure data; imports nothing of the package.
"""

from typing import NamedTuple


class Figures(NamedTuple):
    """One row of TF-Slim's README tables, as printed there (some V1 MACs are wrong: figures.misprinted_macs)."""

    mmacs: int  # millions of multiply-accumulates
    mparams: float  # millions of parameters, counted as test_architecture.py does
    top1: float  # percent of the ImageNet validation set
    top5: float
    quantized_top1: float | None = None  # of the 8-bit checkpoint; V1 only
    quantized_top5: float | None = None
    pixel1_ms: float | None = None  # one image on a Google Pixel 1's CPU; V2 only


# (depth multiplier, image size) -> research/slim/nets/mobilenet_v1.md, 2018_02_22
V1_FIGURES = {
    (0.25, 128): Figures(14, 0.47, 41.5, 66.3, 39.9, 65.8),
    (0.25, 160): Figures(21, 0.47, 45.5, 70.3, 43.5, 69.1),
    (0.25, 192): Figures(34, 0.47, 47.7, 72.3, 45.8, 71.9),
    (0.25, 224): Figures(41, 0.47, 49.8, 74.2, 48.2, 73.8),
    (0.5, 128): Figures(49, 1.34, 56.3, 79.4, 54.9, 78.9),
    (0.5, 160): Figures(77, 1.34, 59.1, 81.9, 57.7, 81.3),
    (0.5, 192): Figures(110, 1.34, 61.7, 83.6, 60.4, 83.2),
    (0.5, 224): Figures(150, 1.34, 63.3, 84.9, 62.2, 84.5),
    (0.75, 128): Figures(104, 2.59, 62.1, 83.9, 59.8, 82.8),
    (0.75, 160): Figures(162, 2.59, 65.3, 86.0, 63.9, 85.5),
    (0.75, 192): Figures(233, 2.59, 67.2, 87.3, 66.2, 87.1),
    (0.75, 224): Figures(317, 2.59, 68.4, 88.2, 67.9, 88.1),
    (1.0, 128): Figures(186, 4.24, 65.2, 85.8, 64.0, 85.5),
    (1.0, 160): Figures(291, 4.24, 68.0, 87.7, 67.3, 87.7),
    (1.0, 192): Figures(418, 4.24, 70.0, 89.2, 69.0, 88.9),
    (1.0, 224): Figures(569, 4.24, 70.9, 89.9, 69.7, 89.5),
}

# (depth multiplier, image size) -> research/slim/nets/mobilenet/README.md
V2_FIGURES = {
    (0.35, 96): Figures(11, 1.66, 45.5, 70.4, pixel1_ms=4.5),
    (0.35, 128): Figures(20, 1.66, 50.8, 75.0, pixel1_ms=6.9),
    (0.35, 160): Figures(30, 1.66, 55.7, 79.1, pixel1_ms=10.5),
    (0.35, 192): Figures(43, 1.66, 58.2, 81.2, pixel1_ms=14.6),
    (0.35, 224): Figures(59, 1.66, 60.3, 82.9, pixel1_ms=19.7),
    (0.5, 96): Figures(18, 1.95, 51.2, 75.8, pixel1_ms=6.4),
    (0.5, 128): Figures(32, 1.95, 57.7, 80.8, pixel1_ms=9.9),
    (0.5, 160): Figures(50, 1.95, 61.0, 83.2, pixel1_ms=14.9),
    (0.5, 192): Figures(71, 1.95, 63.9, 85.4, pixel1_ms=21.1),
    (0.5, 224): Figures(97, 1.95, 65.4, 86.4, pixel1_ms=28.7),
    (0.75, 96): Figures(39, 2.61, 58.8, 81.6, pixel1_ms=14.2),
    (0.75, 128): Figures(69, 2.61, 63.2, 85.3, pixel1_ms=21.9),
    (0.75, 160): Figures(107, 2.61, 66.4, 87.3, pixel1_ms=30.4),
    (0.75, 192): Figures(153, 2.61, 68.7, 88.9, pixel1_ms=41.6),
    (0.75, 224): Figures(209, 2.61, 69.8, 89.6, pixel1_ms=55.8),
    (1.0, 96): Figures(56, 3.47, 60.3, 83.2, pixel1_ms=17.6),
    (1.0, 128): Figures(99, 3.47, 65.3, 86.9, pixel1_ms=27.6),
    (1.0, 160): Figures(154, 3.47, 68.8, 89.0, pixel1_ms=40.2),
    (1.0, 192): Figures(221, 3.47, 70.7, 90.1, pixel1_ms=55.1),
    (1.0, 224): Figures(300, 3.47, 71.8, 91.0, pixel1_ms=73.8),
    (1.3, 224): Figures(509, 5.34, 74.4, 92.1, pixel1_ms=123.0),
    (1.4, 224): Figures(582, 6.06, 75.0, 92.5, pixel1_ms=138.0),
}
