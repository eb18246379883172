"""What must survive a power cut: `flush`, for files and for the renames in a folder. Imports nothing of the house."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Have the system write a file's content, or a folder's names, to the disk.

    Raises:
        OSError: it cannot be opened, or the disk refuses.

    Example:
        >>> flush(Path())
    """
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
