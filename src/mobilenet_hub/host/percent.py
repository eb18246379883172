"""How figures are written for people."""

from math import isnan


def percent(share: float, decimals: int = 1, *, unknown: str = "–") -> str:
    """Return a share as a percentage.

    Args:
        share: 1 for all; nan where there is none, as of the answers right where nothing was answered.
        decimals: how many there are after the point.
        unknown: what stands for nan.

    Example:
        >>> percent(0.4392), percent(0.95, 0), percent(float("nan"))
        ('43.9%', '95%', '–')
    """
    return unknown if isnan(share) else f"{share:.{decimals}%}"
