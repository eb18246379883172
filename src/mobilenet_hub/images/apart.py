"""Pictures decoded in a process of their own: JPEG 2000, whose reader in Pillow keeps Python's lock all the while.

A noisy one of four megapixels takes it five seconds and more, in which Ctrl-C is not answered, no other thread decodes
and no bound of time holds. Small ones stay here: a process takes a sixth of a second to start.
"""

import subprocess
import sys
from typing import TYPE_CHECKING

from mobilenet_hub.errors import ImageError
from mobilenet_hub.images.limits import MAX_SECONDS, check_cost

if TYPE_CHECKING:
    from PIL.Image import Image

# Measured: 50 to 100 ns a pixel and 250 ns a byte; so that what is decoded here takes a tenth of a second.
_SMALL_BYTES = 1 << 18
_SMALL_PIXELS = 1 << 20
_CODE = """
import io, json, signal, sys
sys.path[:] = {path!r}
signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in a terminal is for this process, too
getattr(signal, "alarm", int)({seconds})  # should the other one be gone
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
pixels = b""
try:
    image = Image.open(io.BytesIO(sys.stdin.buffer.read()), formats=["JPEG2000"])
    image.load()
    palette = None if image.palette is None else image.getpalette()
    said, pixels = [image.mode, image.size, palette], image.tobytes()
except Exception as error:
    said = " ".join(str(error).split()) or type(error).__name__
sys.stdout.buffer.write(json.dumps(said).encode() + b"\\n" + pixels)
"""


_RUNNING: set["subprocess.Popen[bytes]"] = set()


def end_all() -> None:
    """End what is still being decoded, where nobody waits for it any more.

    Example:
        >>> end_all()
    """
    for process in list(_RUNNING):
        process.kill()


def takes_long(image: "Image", size: int) -> bool:
    """Tell whether an opened picture keeps Python's lock for long; `size` is that of its file.

    Example:
        >>> from PIL import Image
        >>> takes_long(Image.new("RGB", (6, 4)), 100)
        False
    """
    large = size > _SMALL_BYTES or image.height * image.width > _SMALL_PIXELS
    return image.format == "JPEG2000" and large and bool(sys.executable)


def loaded_apart(data: bytes, image: "Image") -> "Image":
    """Return the picture of a file loaded, with what the opened one says of it.

    Raises:
        ImageError: it is damaged, or takes more memory or time than a picture may.
    """
    import json

    from PIL import Image

    check_cost(image.height, image.width, image.format or "")
    code = _CODE.format(path=[place for place in sys.path if place], seconds=2 * MAX_SECONDS)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        _RUNNING.add(process)
        try:
            answer, _ = process.communicate(data, MAX_SECONDS)
        except subprocess.TimeoutExpired:
            raise ImageError(
                f"took longer than {MAX_SECONDS} seconds to decode, and was given up: save it anew"
            ) from None
        finally:
            _RUNNING.discard(process)
            process.kill()
    head, _, pixels = answer.partition(b"\n")
    if not head:
        raise ImageError("cannot be decoded: the process that tried ended early, perhaps for want of memory")
    said = json.loads(head)
    if isinstance(said, str):
        raise ImageError(f"truncated or damaged JPEG 2000 ({said})")
    mode, size, palette = said
    loaded = Image.frombytes(mode, tuple(size), pixels)
    if palette is not None:
        loaded.putpalette(palette)
    loaded.format = image.format
    loaded.info = dict(image.info)
    return loaded
