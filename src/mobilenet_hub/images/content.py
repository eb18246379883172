"""What a file is by its first bytes, where its name does not tell: a picture, or nothing that is searched for.

A file whose name ends as a picture's is taken by its name, so that a damaged one is missed by nobody. One whose name
ends in another word (.txt, .json, .zip) is not looked into. All others are: "IMG_1" and "a.jpg_large" are pictures
where they begin as one.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping

from mobilenet_hub.host.files import first_bytes
from mobilenet_hub.images.names import is_picture_name, suffix_of

HEAD_BYTES = 32
JPEG_START = b"\xff\xd8"
PNG_START = b"\x89PNG\r\n\x1a\n"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_OTHERS = (b"GIF87a", b"GIF89a", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")  # and JPEG 2000, in a file and bare
_MAX_NAMED = 5  # suffixes
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes of each version's; "BM" alone says little


def begins_as_picture(head: bytes) -> bool:
    r"""Tell whether a file with these first bytes is a picture of a kind that says so.

    Example:
        >>> begins_as_picture(b"\xff\xd8\xff\xe0"), begins_as_picture(b"BM, the letters")
        (True, False)
    """
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    return (
        head.startswith((JPEG_START + b"\xff", PNG_START, *TIFF_STARTS, *JXL_STARTS, *_OTHERS))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS)
        or brand in (*HEIF_BRANDS, *AVIF_BRANDS)
    )


def is_picture(name: str, head: Callable[[], bytes]) -> bool:
    """Tell whether a file is a picture: by its name or, where that says nothing, by its first bytes.

    Args:
        name: of the file.
        head: gives its first `HEAD_BYTES` bytes; asked only where the name says nothing.

    Example:
        >>> is_picture("a.jpg", bytes), is_picture("a.txt", bytes), is_picture("a", lambda: b"GIF89a")
        (True, False, True)
    """
    return is_picture_name(name) or (suffix_of(name) == "" and begins_as_picture(head()))


def is_picture_file(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file in a folder is a picture, as `is_picture`; no pipe is waited for.

    Example:
        >>> is_picture_file("photos/IMG_1.JPG"), is_picture_file("nothing is here")
        (True, False)
    """
    return is_picture(os.fspath(path), lambda: first_bytes(path, HEAD_BYTES) or b"")


def passed_over_text(counts: Mapping[str, int]) -> str:
    """Say how many files were passed over that are no pictures, and of which suffixes; empty where none were.

    Example:
        >>> passed_over_text({".txt": 2, "": 1})
        '3 files that are no pictures were passed over: 2 .txt, 1 without a suffix'
    """
    total = sum(counts.values())
    if not total:
        return ""
    most = Counter(counts).most_common(_MAX_NAMED)
    named = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in most)
    more = total - sum(count for _, count in most)
    files = "1 file that is no picture was" if total == 1 else f"{total} files that are no pictures were"
    return f"{files} passed over: {named}" + (f" and {more} more" if more else "")
