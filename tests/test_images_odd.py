"""Pictures as people have them: every depth, compression and orientation, and files with one thing wrong in them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from scenes import saved, scene, three

from mobilenet_hub.errors import ImageError
from mobilenet_hub.images.decode import decode_image

WHITE = 255


def reason(source):
    with pytest.raises(ImageError) as caught:
        decode_image(source)
    return caught.value.reason


def on_white(rgb, alpha):
    a = alpha[:, :, np.newaxis].astype(int)
    return ((rgb * a + WHITE * (255 - a)) / 255).round()


def near(pixels, expected, most=1):
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - np.asarray(expected).astype(int)).max() <= most


# Every route


def routes(data, tmp_path):
    """The same file as path, as bytes, as an opened image, and as an image that was loaded."""
    path = tmp_path / "picture"
    path.write_bytes(data)
    with Image.open(path) as opened:
        yield from (path, data, opened)
    with Image.open(io.BytesIO(data)) as loaded:
        loaded.load()
        yield loaded


def xmp(orientation):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def segment(marker, body):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(data, *chunks):
    return data[:33] + b"".join(chunks) + data[33:]  # after the header


TURNS = {1: 0, 3: 2, 6: -1, 8: 1}
XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("where", ["exif", "xmp", "doubled", "two"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_orientation_of_a_jpeg_is_the_same_on_every_route(where, orientation, mode, tmp_path):
    data = saved(Image.fromarray(scene()).convert(mode), "JPEG", quality=95)
    stored = decode_image(data)
    block = b"Exif\0\0" + exif(orientation).removeprefix(b"Exif\0\0")
    inserted = {
        "exif": segment(0xE1, block),
        "xmp": segment(0xE1, XMP_HEAD + xmp(orientation)),
        "doubled": segment(0xE1, b"Exif\0\0" + block),
        "two": segment(0xE1, block) + segment(0xE1, b"Exif\0\0" + exif(orientation % 8 + 1).removeprefix(b"Exif\0\0")),
    }[where]
    expected = turned(stored, orientation)
    for source in routes(data[:2] + inserted + data[2:], tmp_path):
        # A loaded image may have been turned and decoded by another build of the same decoder.
        near(decode_image(source), expected, 2)


def turned(pixels, orientation):
    """Pixels as a viewer shows them: the definition, written out."""
    flipped = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1]}
    across = pixels.transpose(1, 0, 2)
    flipped |= {5: across, 6: across[:, ::-1], 7: across[::-1, ::-1], 8: across[::-1]}
    return flipped[orientation]


@pytest.mark.parametrize("orientation", [1, 2, 6, 7])
@pytest.mark.parametrize("where", ["exif", "xmp"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_the_orientation_of_other_formats_is_the_same_on_every_route(kind, where, orientation, tmp_path):
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = Image.fromarray(scene())
    if kind == "TIFF":
        data = saved(picture, kind, tiffinfo={274: orientation} if where == "exif" else {700: xmp(orientation)})
    elif kind == "PNG" and where == "xmp":
        data = png_with(saved(picture, kind), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(orientation)))
    else:
        data = saved(picture, kind, **options, **{where: exif(orientation) if where == "exif" else xmp(orientation)})
    if kind == "AVIF":  # whose own turn is the only one: XMP says what the pixels were before
        plain = decode_image(saved(picture, kind))
        expected = plain if where == "xmp" else turned(plain, orientation)
    else:
        expected = turned(scene(), orientation)
    shown = [decode_image(source) for source in routes(data, tmp_path)]
    for pixels in shown:
        near(pixels, expected, 0 if kind != "AVIF" else 1)


# TIFF: every depth, compression, layout

tifffile = pytest.importorskip("tifffile", reason="writes the TIFFs: pip install tifffile")


def written(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def deep(dtype):
    """The scene with its 8 bits as the upper ones, noise below."""
    bits = np.dtype(dtype).itemsize * 8
    noise = np.random.default_rng(0).integers(0, 2 ** (bits - 8), scene().shape, np.uint64)
    return ((scene().astype(np.uint64) << (bits - 8)) | noise).astype(dtype)


LAYOUTS = [{}, {"rowsperstrip": 5}, {"tile": (16, 32)}]
CODECS = [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_tiffs_of_whole_numbers(dtype, big, order, codec, layout):
    values = deep(dtype)
    options = {**layout, **codec, "byteorder": order, "bigtiff": big}
    gray = written(np.ascontiguousarray(values[:, :, 0]), photometric="minisblack", **options)
    near(decode_image(gray), three(scene()[:, :, 0]), 0)
    white = written(~np.ascontiguousarray(values[:, :, 0]), photometric="miniswhite", **options)
    near(decode_image(white), three(scene()[:, :, 0]), 0)
    near(decode_image(written(values, photometric="rgb", planarconfig="contig", **options)), scene(), 0)
    planes = np.ascontiguousarray(values.transpose(2, 0, 1))
    near(decode_image(written(planes, photometric="rgb", planarconfig="separate", **options)), scene(), 0)


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("planes", [False, True])
def test_tiffs_with_alpha(planes, kind, dtype, codec):
    alpha = np.linspace(0, 255, scene().shape[1]).round().astype(np.uint8)[np.newaxis].repeat(scene().shape[0], 0)
    shown = scene() if kind == "unspecified" else on_white(scene(), alpha)
    stored = (scene() * (alpha[:, :, np.newaxis] / 255)).round() if kind == "assocalpha" else scene()
    whole = np.concatenate([stored, alpha[:, :, np.newaxis]], axis=2).astype(dtype)
    if dtype == "u2":
        whole *= 257
    array = np.ascontiguousarray(whole.transpose(2, 0, 1)) if planes else whole
    layout = {"planarconfig": "separate" if planes else "contig", "extrasamples": [kind]}
    near(decode_image(written(array, photometric="rgb", **layout, **codec)), shown, 2)  # rounded more than once
    two = np.ascontiguousarray(array[[0, 3]] if planes else array[:, :, [0, 3]])
    expected = three(np.asarray(shown)[:, :, 0])
    near(decode_image(written(two, photometric="minisblack", **layout, **codec)), expected, 2)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("codec", [{}, {"compression": "zlib"}], ids=str)
def test_tiffs_of_floats_from_0_to_1(dtype, codec):
    values = (scene() / 255).astype(dtype)
    near(decode_image(written(values, photometric="rgb", **codec)), scene(), 1)
    near(decode_image(written(values[:, :, 0].copy(), photometric="minisblack", **codec)), three(scene()[:, :, 0]), 1)
    assert "0 to 1" in reason(written(values * 7, photometric="rgb", **codec))


def packed(values, bits):
    """Samples of any number of bits, most significant first, rows filled up to whole bytes."""
    single = (values[..., np.newaxis] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(single.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def tiff(height, width, body, order="<", **tags):
    """A TIFF as little as can be: tags by number or by these names."""
    names = {"bits": 258, "compression": 259, "photometric": 262, "samples": 277, "format": 339, "planar": 284}
    entries = {256: (width,), 257: (height,), 258: (8,), 259: (1,), 262: (1,), 273: (8,), 277: (1,), 278: (height,)}
    entries |= {279: (len(body),)} | {names[name]: value for name, value in tags.items()}
    at = 8 + len(body) + len(body) % 2
    extra_at, table, extra = at + 2 + 12 * len(entries) + 4, b"", b""
    for tag, values in sorted(entries.items()):
        raw = struct.pack(f"{order}{len(values)}I", *values)
        place = raw if len(raw) == 4 else struct.pack(order + "I", extra_at + len(extra))
        extra += b"" if len(raw) == 4 else raw
        table += struct.pack(order + "HHI", tag, 4, len(values)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", at)
    return head + body + bytes(len(body) % 2) + struct.pack(order + "H", len(entries)) + table + bytes(4) + extra


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 14, 15, 24])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compressed", [False, True])
def test_tiffs_of_any_number_of_bits(bits, order, compressed):
    least = 2 ** min(bits, 8) - 1
    gray = (scene()[:, :, 0].astype(np.uint32) * least // 255) << max(0, bits - 8)
    shown = three((gray >> max(0, bits - 8)) * 255 // least if bits < 8 else gray >> (bits - 8))
    color = np.repeat(gray[:, :, np.newaxis], 3, axis=2)
    if bits == 24:  # whole bytes follow the order of the file
        bodies = [
            np.ascontiguousarray(v).astype(">u4").view(np.uint8).reshape(*v.shape, 4)[..., 1:] for v in (gray, color)
        ]
        bodies = [(body if order == ">" else body[..., ::-1]).tobytes() for body in bodies]
    else:
        bodies = [packed(gray, bits), packed(color, bits)]
    options = {"compression": (8,)} if compressed else {}
    bodies = [zlib.compress(body) if compressed else body for body in bodies]
    near(decode_image(tiff(*gray.shape, bodies[0], order, bits=(bits,), **options)), shown, 0 if bits > 7 else 1)
    rgb = tiff(*gray.shape, bodies[1], order, bits=(bits,) * 3, samples=(3,), photometric=(2,), **options)
    near(decode_image(rgb), shown, 0 if bits > 7 else 1)


def test_numbers_without_a_meaning_are_refused_with_the_reason():
    signed = written(deep("u2").astype("i2")[:, :, 0].copy(), photometric="minisblack")
    assert "signed" in reason(signed)
    assert "signed" in reason(written(scene()[:, :, 0].astype("i1"), photometric="minisblack"))
    assert "no higher than" in reason(written(scene()[:, :, 0].astype("u4"), photometric="minisblack"))
    assert "no higher than" in reason(written(scene()[:, :, 0].astype("u2"), photometric="minisblack"))
    assert "complex" in reason(written(scene()[:, :, 0].astype("c8"), photometric="minisblack"))
    assert "5, 6 bits" in reason(tiff(4, 4, bytes(64), bits=(5, 6, 5), samples=(3,), photometric=(2,)))
    black = written(np.zeros((4, 5), "u2"), photometric="minisblack")
    assert not decode_image(black).any()


def test_a_tiff_cut_anywhere_gives_a_reason_or_a_picture():
    whole = written(deep("u2"), photometric="rgb", compression="zlib", predictor=True, rowsperstrip=5)
    for end in range(8, len(whole), 97):
        try:
            assert decode_image(whole[:end]).shape == scene().shape
        except ImageError as error:
            assert error.reason


# PNG


def png(values, color, extra=(), interlace=0):
    """A PNG of 16 bits, unfiltered, with chunks before its data."""
    rows = b"".join(b"\0" + np.ascontiguousarray(row).astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, color, 0, 0, interlace)
    body = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def test_pngs_of_16_bits_with_and_without_transparency():
    values = deep("u2")
    gray = values[:, :, 0]
    near(decode_image(png(gray, 0)), three(scene()[:, :, 0]), 0)
    near(decode_image(png(values, 2)), scene(), 0)
    key = int(gray[3, 7])
    shown = np.where(gray == key, WHITE, scene()[:, :, 0])
    near(decode_image(png(gray, 0, [chunk(b"tRNS", struct.pack(">H", key))])), three(shown), 0)
    for key in (values[3, 7], np.array([0, 1, 255], np.uint16)):
        values[5, 5], values[5, 6] = key, key ^ 1  # the neighbor differs in its lowest bit
        hidden = (values == key).all(axis=2)
        expected = np.where(hidden[:, :, np.newaxis], WHITE, values >> 8)
        assert hidden[5, 5] and not hidden[5, 6]
        near(decode_image(png(values, 2, [chunk(b"tRNS", key.astype(">u2").tobytes())])), expected, 0)
    alpha = np.full((*gray.shape, 1), 0x8080, np.uint16)
    expected = on_white(scene(), np.full(gray.shape, 128, np.uint8))
    near(decode_image(png(np.concatenate([deep("u2"), alpha], axis=2), 6)), expected, 1)
    two = np.concatenate([deep("u2")[:, :, :1], alpha], axis=2)
    near(decode_image(png(two, 4)), three(np.asarray(expected)[:, :, 0]), 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_pngs_of_every_mode_are_what_was_written(mode):
    picture = Image.fromarray(scene()).convert(mode)
    expected = np.asarray(picture.convert("RGB"))
    near(decode_image(saved(picture, "PNG")), expected, 0)


@pytest.mark.parametrize(
    "wrong",
    {
        "long text": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3 << 20))),
        "long plain text": chunk(b"tEXt", b"a\0" + b"b" * (2 << 20)),
        "long profile": chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3 << 20))),
        "broken profile": chunk(b"iCCP", b"a\0\0broken"),
        "broken EXIF": chunk(b"eXIf", b"no TIFF at all"),
        "a wrong checksum": chunk(b"tEXt", b"a\0b")[:-1] + b"?",
        "a broken time": chunk(b"tIME", b"?"),
        "an animation's frame": chunk(b"acTL", b"?") + chunk(b"fcTL", b"?"),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_stands_beside_the_picture_is_no_reason_to_refuse_a_png(wrong):
    near(decode_image(png_with(saved(Image.fromarray(scene()), "PNG"), wrong[1])), scene(), 0)


def test_a_png_that_lacks_its_end_only_is_a_picture():
    data = saved(Image.fromarray(scene()), "PNG")
    near(decode_image(data[:-12]), scene(), 0)
    assert "truncated" in reason(data[:-40])


# JPEG


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_with_bytes_too_many_or_too_few_are_pictures(mode, progressive):
    data = saved(Image.fromarray(scene(96, 144)).convert(mode), "JPEG", quality=95, progressive=progressive)
    whole = decode_image(data)
    near(decode_image(data[:-2]), whole, 0)
    near(decode_image(data[:-1]), whole, 0)
    for strays in (b"\0", b"\0\0\0", b"stray", b"\xff\0\xff"):
        at = 2
        while data[at + 1] != 0xDA:  # between any two segments, and before the first
            near(decode_image(data[:at] + strays + data[at:]), whole, 0)
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    assert "truncated" in reason(data[: len(data) * 2 // 3])


def test_a_progressive_jpeg_cut_between_two_scans_is_not_whole():
    data = saved(Image.fromarray(scene(96, 144)), "JPEG", quality=95, progressive=True)
    at = [index for index in range(len(data)) if data.startswith(b"\xff\xda", index)]
    assert len(at) > 5
    for cut in at[1:]:
        assert "truncated" in reason(data[:cut])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_broken_exif_is_no_reason_to_refuse_a_picture(kind, mode):
    if mode == "CMYK" and kind != "JPEG":
        pytest.skip("JPEG alone has it")
    picture = Image.fromarray(scene()).convert(mode)
    plain = decode_image(saved(picture, kind))
    rational = b"MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHIIHHIHH", 0x0128, 5, 1, 200, 0x0112, 3, 1, 6, 0) + bytes(4)
    for block, orientation in ((b"garbage, no TIFF", 1), (b"II*\0\xff\xff\xff\xff", 1), (rational, 6)):
        if kind == "AVIF" and orientation != 1:
            continue  # whose own turn is the only one
        data = saved(picture, kind, exif=b"Exif\0\0" + block) if kind == "JPEG" else with_exif(picture, kind, block)
        near(decode_image(data), turned(plain, orientation), 1)


def with_exif(picture, kind, block):
    if kind == "PNG":
        return png_with(saved(picture, kind), chunk(b"eXIf", block))
    fine = Image.Exif()
    fine[0x010E] = "a description that gives way to what is broken" * 2
    fine = fine.tobytes().removeprefix(b"Exif\0\0")
    data = saved(picture, kind, exif=fine)
    assert fine in data
    return data.replace(fine, block.ljust(len(fine), b"\0"))


def test_depths_and_kinds_of_jpeg_that_are_not_read_are_named():
    data = bytearray(saved(Image.fromarray(scene()), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 4] = 12
    assert "12 bits" in reason(bytes(data))
    data[frame + 4], data[frame + 1] = 8, 0xC5
    assert "hierarchical" in reason(bytes(data))


# BMP and TGA


@pytest.mark.parametrize("kind", ["BMP", "TGA"])
def test_alpha_that_is_nowhere_is_no_alpha(kind):
    rgba = np.concatenate([scene(), np.zeros((*scene().shape[:2], 1), np.uint8)], axis=2)
    data = saved(Image.fromarray(rgba), kind)
    if kind == "BMP":  # with a header of the fourth version, whose mask says that there is alpha
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        head = data[14:54]
        head = struct.pack("<I", 108) + head[4:16] + struct.pack("<I", 3) + head[20:40] + masks + b"BGRs" + bytes(48)
        data = b"BM" + struct.pack("<IHHI", 14 + 108 + len(data) - 54, 0, 0, 122) + head + data[54:]
    assert Image.open(io.BytesIO(data)).mode == "RGBA"
    near(decode_image(data), scene(), 0)
    rgba[2, 3, 3] = 255  # once it is somewhere, it is alpha
    assert (decode_image(saved(Image.fromarray(rgba), "TGA"))[0] == WHITE).all()


@pytest.mark.parametrize("compression", [4, 5, 77])
def test_unusual_bmps_are_called_unusual(compression):
    data = bytearray(saved(Image.fromarray(scene()), "BMP"))
    data[30] = compression
    assert "rare kind" in reason(bytes(data))


def test_every_line_of_noise_names_its_file(tmp_path):
    """Whatever a library has to say of a damaged file comes as a reason, and nothing comes from C on the side."""
    import subprocess
    import sys

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)).resize((90, 70))
    lines = picture.convert("1")
    files = {kind: saved(picture, kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF", "JPEG2000", "TGA")}
    for codec in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files[codec] = saved(picture, "TIFF", compression=codec)
    for codec in ("group3", "group4"):
        files[codec] = saved(lines, "TIFF", compression=codec)
    random = np.random.default_rng(1)
    for kind, data in files.items():
        for number in range(12):
            damaged = bytearray(data)
            near_the_head = min(len(data), 200) if number % 2 else len(data)
            for at in random.integers(2, near_the_head, 4):
                damaged[at] = random.integers(256)
            (tmp_path / f"{kind} {number}").write_bytes(damaged)
    names = sorted(map(str, tmp_path.iterdir()))
    words = [sys.executable, "-m", "mobilenet_hub.cli.main", "classify", "--quiet", "--json", *names]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    *told, last = done.stderr.splitlines()
    assert done.returncode == 1 and len(told) > 20
    assert all(line.startswith(f"{tmp_path}") and ": " in line for line in told)
    assert "could not be classified" in last
    assert not [line for line in told if "data stream" in line and "rare kind" in line]  # damaged is not rare


# The reference files


def test_the_reference_files_are_what_they_must_be(shared):
    folder = shared("oddfiles/pictures")
    expected = {name: np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in
                ("expected", "expected_gray", "expected_rgb16_planar")}  # fmt: skip
    exact = {
        "bmp32_v4_alpha_zero.bmp": "expected",
        "png_exif_garbage.png": "expected",
        "png_ztxt_over_1mb.png": "expected",
        "tiff_12bit_packed.tif": "expected_gray",
        "tiff_16bit_whiteiszero.tif": "expected_gray",
        "tiff_rgb16_planar.tif": "expected_rgb16_planar",
    }
    for name, picture in exact.items():
        near(decode_image(folder / name), expected[picture], 0)
    for name in ("jpeg_missing_eoi.jpg", "jpeg_stray_bytes_between_segments.jpg"):
        assert np.abs(decode_image(folder / name).astype(int) - expected["expected"]).mean() < 3  # quality's loss
    for name in ("jpeg_xmp_only_orientation6.jpg", "cmyk_xmp_only_orientation6.jpg"):
        assert np.abs(decode_image(folder / name).astype(int) - turned(expected["expected"], 6)).mean() < 3
    assert decode_image(folder / "png_resolution_unit_as_rational_orientation6.png").shape[0] == 96
    assert decode_image(folder / "bigtiff_be.tif").std() > 10
    assert "12 bits" in reason(folder / "jpeg_12bit.jpg")
    assert "scans" in reason(folder / "jpeg_4500_scans.jpg")
    assert "no higher than" in reason(folder / "tiff_32bit_uint_0_255.tif")


# Bounds


def scan_bomb(side, scans):
    """A progressive JPEG that says nothing in very many scans, each of which goes over the whole picture."""
    blocks = left = ((side + 7) // 8) ** 2
    runs = ""
    while left:
        run = 32767 if left >= 49151 else left if left <= 32767 else 16384
        runs += "0" + format(run - 16384, "014b") if run >= 16384 else ""
        left -= run if run >= 16384 else left
    one = bytes([1] + [0] * 15)

    def bits(text):
        return int(text + "1" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8), "big").replace(b"\xff", b"\xff\0")

    data = b"\xff\xd8" + segment(0xDB, b"\0" + bytes([1] * 64))
    data += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    data += segment(0xC4, b"\0" + one + b"\0") + segment(0xC4, b"\x10" + one + b"\xe0")
    data += segment(0xDA, b"\1\1\0\0\0\0") + bits("0" * blocks)
    scan = bits(runs)
    return data + b"".join(
        segment(0xDA, bytes([1, 1, 0, 1 + k % 63, 1 + k % 63, 0])) + scan for k in range(scans)
    ) + b"\xff\xd9"  # fmt: skip


@pytest.mark.parametrize(("side", "scans"), [(9400, 8000), (9400, 60), (4000, 300), (1024, 5000)])
def test_thousands_of_scans_are_refused_at_once(side, scans):
    import time

    data = scan_bomb(side, scans)
    start = time.thread_time()
    assert "scans" in reason(data)
    assert time.thread_time() - start < 1  # of the minutes that decoding takes
    assert "scans" in reason(data.replace(b"\xff\xd8", b"\xff\xd8\0", 1))  # stray bytes do not hide them


def test_a_webp_is_refused_by_its_header():
    import tracemalloc

    huge = [
        b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f" + ((9400 - 1) | (9400 - 1) << 14).to_bytes(4, "little") + bytes(12),
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (9399).to_bytes(3, "little") * 2 + bytes(8),
        b"RIFF\x1e\0\0\0WEBPVP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 9400, 9400) + bytes(8),
    ]
    tracemalloc.start()
    try:
        assert all("million" in reason(data) for data in huge)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "I;16"])
def test_jpeg_2000_decoded_apart_is_the_same_picture(mode, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (600, 700, 4), np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(noise[:, :, 0].astype(np.uint16) << 8)
        shown = three(noise[:, :, 0])
    else:
        picture = Image.fromarray(noise).convert(mode)
        shown = decode_image(picture)
    data = saved(picture, "JPEG2000")
    assert len(data) > 1 << 18
    for source in routes(data, tmp_path):
        near(decode_image(source), shown, 0)
    assert "damaged" in reason(data[:300_000])


@pytest.mark.parametrize("kind", ["WEBP", "JPEG", "JPEG2000"])
def test_ctrl_c_is_answered_while_pictures_are_decoded(kind, tmp_path):
    import signal
    import subprocess
    import sys
    import time

    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)).resize((7000, 7000))
    if kind == "JPEG2000":  # noise is what takes it long: five seconds for each
        large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1400, 1400, 3), np.uint8))
    options = {"WEBP": {"method": 0}, "JPEG": {"progressive": True}}
    large.save(tmp_path / "0.img", kind, **options.get(kind, {}))
    for number in range(1, 20):
        (tmp_path / f"{number}.img").symlink_to("0.img")
    names = [str(path) for path in sorted(tmp_path.glob("*.img"))]
    code = (
        "import signal, sys, threading, time, mobilenet_hub.cli.main as main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where tests run in the background
        "def told():\n"
        "    while not any(t.name.startswith('decode') for t in threading.enumerate()): time.sleep(0.01)\n"
        "    print('decoding', file=sys.stderr, flush=True)\n"
        "threading.Thread(target=told, daemon=True).start()\n"
        "sys.exit(main.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "classify", *names], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr.readline().strip() == "decoding"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert said.strip().endswith("interrupted")
    assert process.returncode == 130
    assert time.monotonic() - start < 5  # a second on a machine that does nothing else; all of them take half a minute
