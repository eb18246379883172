"""What Pillow and a few lines of our own write, mode by compression by orientation, against what was written."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from scenes import furthest, saved, scene, three, turned

from mobilenet_hub.images.decode import decode_image

WHITE = 255
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("color", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_interlaced_pngs(bits, color, channels):
    """Adam7 by the definition: seven smaller pictures, one after the other."""
    alpha = np.full((*scene().shape[:2], 1), 255, np.uint8)
    values = np.concatenate([scene()[:, :, : 1 if channels < 3 else 3], alpha], axis=2)[:, :, :channels]
    deep = (values.astype(np.uint16) << 8 | 37).astype(">u2") if bits == 16 else values
    if bits == 16 and channels in (2, 4):
        deep[:, :, -1] = 65535
    rows = b""
    for top, left, down, across in ADAM7:
        rows += b"".join(b"\0" + np.ascontiguousarray(row).tobytes() for row in deep[top::down, left::across])
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, color, 0, 0, 1)
    body = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    expected = scene() if channels > 2 else three(scene()[:, :, 0])
    assert furthest(decode_image(b"\x89PNG\r\n\x1a\n" + b"".join(body)), expected) == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_pngs_of_8_bits_with_a_transparent_color(mode):
    picture = Image.fromarray(scene()).convert(mode)
    values = np.asarray(picture)
    key = values[3, 7].tolist()
    hidden = (values == values[3, 7]).reshape(*values.shape[:2], -1).all(axis=2)
    expected = np.where(hidden[:, :, np.newaxis], WHITE, np.asarray(picture.convert("RGB")))
    key = tuple(key) if mode == "RGB" else key
    assert furthest(decode_image(saved(picture, "PNG", transparency=key)), expected) == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_tiffs_as_pillow_writes_them(mode, compression, orientation):
    picture = Image.fromarray(scene()).convert(mode)
    data = saved(picture, "TIFF", compression=compression, tiffinfo={274: orientation})
    assert furthest(decode_image(data), turned(np.asarray(picture.convert("RGB")), orientation)) == 0


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_tiffs_of_fax_machines(compression):
    picture = Image.fromarray(scene()).convert("1")
    assert (
        furthest(decode_image(saved(picture, "TIFF", compression=compression)), np.asarray(picture.convert("RGB"))) == 0
    )


def bmp(bits, body, height, masks=b"", palette=b"", compression=0):
    head = struct.pack("<IiiHHIIiiII", 40, 53, height, 1, bits, compression, len(body), 0, 0, 0, 0) + masks + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def test_bmps_of_every_depth():
    for mode in ("1", "L", "P", "RGB"):
        picture = Image.fromarray(scene()).convert(mode)
        assert furthest(decode_image(saved(picture, "BMP")), np.asarray(picture.convert("RGB"))) == 0
    swapped = np.concatenate([scene()[:, :, ::-1].reshape(37, -1), np.zeros((37, 1), np.uint8)], axis=1)
    assert furthest(decode_image(bmp(24, swapped.tobytes(), -37)), scene()) == 0  # from the top down
    red, green, blue = (scene()[:, :, i].astype(np.uint16) for i in range(3))
    packed = (red >> 3) << 11 | (green >> 2) << 5 | blue >> 3
    rows = np.concatenate([packed, np.zeros((37, 1), np.uint16)], axis=1).tobytes()
    data = bmp(16, rows, -37, struct.pack("<III", 0xF800, 0x07E0, 0x1F), compression=3)
    assert furthest(decode_image(data), scene()) <= 8  # 5 and 6 bits
    runs = b"".join(b"".join(bytes([1, v]) for v in row) + b"\0\0" for row in scene()[::-1, :, 0]) + b"\0\1"
    grays = b"".join(bytes([v, v, v, 0]) for v in range(256))
    assert furthest(decode_image(bmp(8, runs, 37, palette=grays, compression=1)), three(scene()[:, :, 0])) == 0


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("options", [{}, {"compression": "tga_rle"}, {"orientation": 1}], ids=str)
def test_tgas(mode, options):
    picture = Image.fromarray(scene()).convert(mode)
    shown = np.asarray(picture.convert("RGB"))
    assert furthest(decode_image(saved(picture, "TGA", **options)), shown) == 0


@pytest.mark.parametrize("animated", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webps(mode, animated):
    picture = Image.fromarray(scene()).convert(mode)
    if mode == "RGBA":
        picture.putalpha(128)
    more = {"save_all": True, "append_images": [picture.rotate(180)]} if animated else {}
    shown = decode_image(picture)
    assert furthest(decode_image(saved(picture, "WEBP", lossless=True, exact=True, **more)), shown) <= 1
    lossy = decode_image(saved(picture, "WEBP", quality=95, **more)).astype(int)
    assert np.abs(lossy - shown).mean() < 4


@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_jpegs_are_what_their_writer_meant(progressive):
    """Adobe's programs store inks inverted, and say so; single inks show which is which."""
    inks = np.zeros((64, 64, 4), np.uint8)
    inks[:, :32, 0], inks[:, 32:, 3] = 255, 200
    picture = Image.fromarray(inks, "CMYK")
    shown = decode_image(saved(picture, "JPEG", quality=100, progressive=progressive))
    assert np.abs(shown[:, 4:28].astype(int) - [0, 255, 255]).max() < 12
    assert np.abs(shown[:, 36:60].astype(int) - 55).max() < 12


@pytest.mark.parametrize("subsampling", [0, 2])
def test_ycck_gives_the_colors_of_its_cmyk(subsampling):
    """Photoshop's other kind of four-color JPEG: YCbCr of the inks, told by Adobe's transform 2."""
    inks = np.array(Image.fromarray(scene(48, 64)).convert("CMYK"))
    inks[..., 3] = np.linspace(0, 120, inks.shape[1], dtype=np.uint8)
    luma = np.array(Image.fromarray(inks[..., :3]).convert("YCbCr"))
    stored = np.dstack([255 - luma, inks[..., 3:]])  # Pillow turns the channels of a four-color JPEG round

    def jpeg(channels, transform):
        data = bytearray(saved(Image.fromarray(channels, "CMYK"), "JPEG", quality=98, subsampling=subsampling))
        data[data.index(b"Adobe") + 11] = transform
        return bytes(data)

    ycck, cmyk = decode_image(jpeg(stored, 2)), decode_image(jpeg(inks, 0))
    assert np.abs(ycck.astype(int) - cmyk).mean() < 2
    with Image.open(io.BytesIO(jpeg(stored, 2))) as pillow:
        assert np.abs(np.asarray(pillow.convert("RGB")).astype(int) - ycck).mean() < 2
