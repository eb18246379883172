"""Decoding every kind of picture, refusing what is none, and the checks on batches."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.images import decode as images


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(height=96, width=144):
    """A smooth picture whose four corners differ, so that a wrong turn or channel order shows."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    return np.stack([red, green, 128 + 60 * np.sin(x / 17 + y / 11)], axis=2).astype(np.uint8)


def distance(a, b):
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int)).mean()


def reason(source):
    with pytest.raises(ImageError) as caught:
        images.decode_image(source)
    return caught.value.reason


# What decodes


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "TGA"])
def test_lossless_formats_are_exact(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(images.decode_image(encoded(Image.fromarray(scene()), kind, **options)), scene())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}, {"restart_marker_rows": 1}])
def test_jpeg_is_what_pillow_decodes(options):
    data = encoded(Image.fromarray(scene()), quality=95, **options)
    assert distance(images.decode_image(data), np.asarray(Image.open(io.BytesIO(data)))) < 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_is_applied(orientation, kind, order):
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = orientation
    exif[0x010F] = "a camera of some make"
    data = encoded(Image.fromarray(scene()), kind, exif=exif.tobytes())
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert distance(images.decode_image(data), expected) < 0.5
    small = images.decode_image(data, min_size=(40, 40))
    assert distance(small, np.asarray(Image.fromarray(expected).resize(small.shape[1::-1]))) < 4


def test_a_pil_image_keeps_its_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(scene()), exif=exif.tobytes())
    assert images.decode_image(Image.open(io.BytesIO(data))).shape == (144, 96, 3)


def test_gray_palette_and_single_bit_pictures_become_rgb():
    gray = scene()[:, :, 0]
    three = np.repeat(gray[:, :, None], 3, axis=2)
    assert np.array_equal(images.decode_image(encoded(Image.fromarray(gray), "PNG")), three)
    assert distance(images.decode_image(encoded(Image.fromarray(gray), "JPEG", quality=95)), three) < 2
    assert distance(images.decode_image(encoded(Image.fromarray(scene()).quantize(256), "PNG")), scene()) < 12
    bits = images.decode_image(encoded(Image.fromarray(gray).convert("1"), "PNG"))
    assert set(np.unique(bits)) == {0, 255}


def test_transparency_shows_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    for source in (rgba, Image.fromarray(rgba), encoded(Image.fromarray(rgba), "PNG")):
        pixels = images.decode_image(source)
        assert pixels[0, 0].tolist() == [10, 20, 30]
        assert pixels[0, 1].tolist() == [127, 127, 127]
        assert pixels[1, 1].tolist() == [255, 255, 255]
    palette = Image.fromarray(np.zeros((2, 2), np.uint8), "P")
    palette.putpalette([9, 9, 9] * 256)
    assert (images.decode_image(encoded(palette, "PNG", transparency=0)) == 255).all()


@pytest.mark.filterwarnings("ignore:.*mode:DeprecationWarning")
def test_cmyk_jpeg_is_what_pillow_makes_of_it():
    data = encoded(Image.fromarray(scene()).convert("CMYK"), quality=95)
    assert np.array_equal(images.decode_image(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert distance(images.decode_image(data), scene()) < 5


def test_sixteen_bits_keep_their_upper_eight():
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    expected = np.repeat((values >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(images.decode_image(encoded(Image.fromarray(values), kind)), expected)
    assert np.array_equal(images.decode_image(png16(values)), expected)


def png16(gray):
    """An RGB PNG of 16 bits, which Pillow cannot write."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, axis=1).astype(">u2").tobytes() for row in gray)
    header = struct.pack(">IIBBBBB", gray.shape[1], gray.shape[0], 16, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_floating_point_pictures_need_one_meaning():
    whole = encoded(Image.fromarray(np.array([[0.0, 1.0]], np.float32)), "TIFF")
    assert images.decode_image(whole)[0, :, 0].tolist() == [0, 255]
    assert "0 to 7" in reason(encoded(Image.fromarray(np.array([[0.0, 7.0]], np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(kind):
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 200))
    data = encoded(first, kind, save_all=True, append_images=[second], duration=100)
    assert images.decode_image(data)[4, 4, 0] > 150


def test_every_source_gives_the_same_pixels(tmp_path):
    data = encoded(Image.fromarray(scene()), "PNG")
    path = tmp_path / "a picture.png"
    path.write_bytes(data)
    with Image.open(path) as opened:
        for source in (path, str(path), data, bytearray(data), memoryview(data), opened, scene()):
            assert np.array_equal(images.decode_image(source), scene())
    with pytest.raises(InputError, match="int is not a picture"):
        images.decode_image(7)


def test_one_pixel_is_a_picture():
    for kind in ("JPEG", "PNG"):
        pixels = images.decode_image(encoded(Image.new("RGB", (1, 1), (250, 10, 10)), kind))
        assert pixels.shape == (1, 1, 3)
        assert (pixels == pixels[0, 0]).all()


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 4)])
def test_uint8_arrays_of_any_channels(shape):
    assert images.decode_image(np.full(shape, 255, np.uint8)).tolist() == np.full((4, 6, 3), 255).tolist()


@pytest.mark.parametrize(
    "array", [np.zeros((4, 6, 3), np.float32), np.zeros((4, 6, 2), np.uint8), np.zeros(4, np.uint8)], ids=str
)
def test_other_arrays_are_named(array):
    with pytest.raises(InputError, match=str(array.dtype)):
        images.decode_image(array)


def test_a_jpeg_with_stray_bytes_is_a_picture():
    data = encoded(Image.fromarray(scene()), quality=95)
    assert distance(images.decode_image(data + b"stray bytes" * 9), scene()) < 5
    assert distance(images.decode_image(data[:-2] + b"\0\0\0\0" + data[-2:]), scene()) < 5


# Scaled decoding


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    minimum=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    orientation=st.integers(1, 8),
)
@settings(deadline=None, max_examples=60)
def test_a_scaled_jpeg_is_never_smaller_than_asked(height, width, minimum, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.new("RGB", (width, height), (90, 120, 30)), exif=exif.tobytes())
    whole, (full_height, full_width), _ = images.decode_sized(data)
    assert whole.shape[:2] == (full_height, full_width) == ((width, height) if orientation > 4 else (height, width))
    scaled, size, _ = images.decode_sized(data, minimum)
    assert size == (full_height, full_width)
    for got, full, least in zip(scaled.shape, size, minimum, strict=False):
        assert got >= min(least, full)
        assert got == full or got in (-(-full // 2), -(-full // 4), -(-full // 8))


def test_a_scaled_jpeg_shows_the_same():
    large = np.asarray(Image.fromarray(scene()).resize((2880, 1920)))
    data = encoded(Image.fromarray(large), quality=92)
    assert images.decode_image(data, min_size=(224, 224)).shape == (240, 360, 3)


# What does not decode


def test_what_is_no_file_is_named(tmp_path):
    assert reason(tmp_path) == "a folder, not a picture"
    assert reason(tmp_path / "none.jpg") == "no such file"
    assert reason("a\0b.jpg").startswith("cannot be read")
    with pytest.raises(ImageError, match=r"none\.jpg: no such file"):
        images.decode_image(tmp_path / "none.jpg")
    assert reason("/dev/zero") == "not a regular file"
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(2**30)  # sparse: takes no room
    assert "too large" in reason(tmp_path / "huge.jpg")


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert reason(tmp_path / "empty.jpg") == "empty file (0 bytes)"
    assert "starts with b'hello world'" in reason(b"hello world")
    assert "HEIC" in reason(b"\0\0\0\x18ftypheic" + bytes(100))
    assert "PostScript" in reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    assert "nothing in it" in reason(np.zeros((0, 4, 3), np.uint8))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_refused(progressive):
    data = encoded(Image.fromarray(scene()), quality=90, progressive=progressive)
    for length in (*range(1, len(data) - 2, 37), len(data) - 3):
        text = reason(data[:length])
        assert text, length
        assert any(word in text for word in ("truncated", "damaged", "known format")), text


def test_a_jpeg_cut_and_closed_is_refused():
    data = encoded(Image.fromarray(scene()), quality=90)
    assert "premature end" in reason(data[: len(data) * 2 // 3] + b"\xff\xd9")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_other_formats_cut_are_refused(kind):
    data = encoded(Image.fromarray(scene()), kind)
    for length in range(1, len(data) * 9 // 10, max(1, len(data) // 15)):
        assert reason(data[:length])


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]))
@settings(deadline=None, max_examples=200)
@pytest.mark.filterwarnings("ignore")
def test_noise_is_an_error_or_a_picture(noise, start):
    try:
        assert images.decode_image(start + noise).ndim == 3
    except ImageError as error:
        assert error.reason


@given(st.data())
@settings(deadline=None, max_examples=100)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_byte_is_an_error_or_a_picture(data):
    picture = bytearray(encoded(Image.fromarray(scene(24, 32)), data.draw(st.sampled_from(["JPEG", "PNG", "GIF"]))))
    picture[data.draw(st.integers(0, len(picture) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert images.decode_image(bytes(picture)).ndim == 3
    except ImageError as error:
        assert error.reason


def bomb_png(side):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def claims(side, data):
    """A JPEG whose frame header claims another size."""
    frame = data.index(b"\xff\xc0") if b"\xff\xc0" in data else data.index(b"\xff\xc2")
    return data[: frame + 5] + struct.pack(">HH", side, side) + data[frame + 9 :]


@pytest.mark.parametrize("side", [10_000, 13_000, 30_000])
@pytest.mark.parametrize("kind", ["png", "progressive", "baseline"])
def test_bombs_are_refused_from_the_header(side, kind):
    import tracemalloc

    small = encoded(Image.fromarray(scene()), progressive=kind == "progressive")
    data = bomb_png(side) if kind == "png" else claims(side, small)
    tracemalloc.start()
    try:
        assert "million" in reason(data)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
