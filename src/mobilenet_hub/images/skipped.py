"""What is left out, and why: one type for every command."""

from pathlib import Path
from typing import NamedTuple, NoReturn

from mobilenet_hub.errors import ImageError


class Skipped(NamedTuple):
    """An input that is left out, and why.

    Example:
        >>> Skipped("photos/torn.jpg", "the file ends too early").path.name
        'torn.jpg'
    """

    name: str  # as it was given: a path, or a place in an archive or a table
    reason: str

    @property
    def path(self) -> Path:
        """The name as a path."""
        return Path(self.name)


def refuse(reason: str) -> NoReturn:
    """Raise ImageError: what reads an input of which something else than its bytes is known.

    Raises:
        ImageError: always.
    """
    raise ImageError(reason)
