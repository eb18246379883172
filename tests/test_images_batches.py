"""Batches in order, bounded, whatever the threads do; bad inputs listed; an early end leaves nothing running."""

import io
import shutil
import threading
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.images.batches import batches, decode_batches
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.inputs import Item, items
from mobilenet_hub.images.load import load_image


def pixels(number):
    return np.full((10, 12, 3), number % 256, np.uint8)


def slow_item(number, delays):
    def read():
        time.sleep(delays[number])
        if number % 5 == 3:
            raise ImageError(f"bad number {number}")
        return pixels(number)

    return Item(str(number), read)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("shard_size", [None, 10])
@pytest.mark.parametrize("threads", [1, 6])
def test_order_holds_and_bad_inputs_are_listed(batch_size, shard_size, threads):
    delays = np.random.default_rng(0).uniform(0, 0.002, 50)
    stream = (slow_item(number, delays) for number in range(50))
    options = {"batch_size": batch_size, "shard_size": shard_size, "threads": threads}
    batches = list(decode_batches(stream, Preprocessing(8, "squash"), **options))
    assert [key for batch in batches for key in batch.inputs] == [str(n) for n in range(50)]
    good = [n for n in range(50) if n % 5 != 3]
    assert [key for batch in batches for key in batch.keys] == [str(n) for n in good]
    assert [image[0, 0, 0] for batch in batches for image in batch.images] == good
    assert [skip for batch in batches for skip in batch.skipped] == [
        (str(n), f"bad number {n}") for n in range(50) if n % 5 == 3
    ]
    assert all(size == (10, 12) for batch in batches for size in batch.sizes)
    ends = np.cumsum([len(batch.inputs) for batch in batches])
    assert max(len(batch.inputs) for batch in batches) <= batch_size
    if shard_size:
        assert set(range(10, 51, 10)) <= set(ends)


def test_pixels_are_those_of_load_image():
    random = np.random.default_rng(1)
    arrays = [random.integers(0, 256, (*random.integers(1, 60, 2), 3), np.uint8) for _ in range(9)]
    [batch] = decode_batches([Item("x", partial(np.copy, array)) for array in arrays], Preprocessing((16, 24)))
    assert np.array_equal(batch.images, [load_image(array, (16, 24)) for array in arrays])
    assert batch.sizes == [array.shape[:2] for array in arrays]


def test_reading_never_runs_far_ahead():
    started = 0

    def counted():
        nonlocal started
        for number in range(10_000):
            started += 1
            yield Item(str(number), partial(pixels, number))

    stream = decode_batches(counted(), Preprocessing(8, "squash"), batch_size=16, threads=2)
    for taken in range(1, 20):
        next(stream)
        assert started <= 16 * (taken + 3)
    stream.close()


def test_an_early_end_leaves_no_thread():
    before = threading.active_count()
    stream = decode_batches((Item(str(n), partial(pixels, n)) for n in range(500)), Preprocessing(8, "squash"))
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_a_vanished_folder_stops_and_a_vanished_file_does_not(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(200):
        Image.fromarray(pixels(number)).save(folder / f"{number:03d}.png")
    stream = decode_batches(items([folder]), Preprocessing(8, "squash"), batch_size=8, threads=1)
    next(stream)
    (folder / "150.png").unlink()
    batches = [next(stream) for _ in range(20)]
    assert [skip for batch in batches for skip in batch.skipped] == [(str(folder / "150.png"), "no such file")]
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="vanished"):
        list(stream)


def test_open_files_and_tensors_are_images(tmp_path):
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (9, 11, 3), np.uint8)).save(photo)
    preprocessing = Preprocessing(8)
    [(_, expected)] = batches([photo], preprocessing)
    with photo.open("rb") as file:
        [([name], pixels)] = batches(file, preprocessing)
        assert name == str(photo) and np.array_equal(pixels, expected)
    with photo.open("rb") as file:
        [(names, pixels)] = batches([io.BytesIO(photo.read_bytes()), file], preprocessing)
    assert names == ["image 0", str(photo)] and np.array_equal(pixels, [expected[0]] * 2)
    with photo.open(encoding="latin-1") as text, pytest.raises(InputError, match="open for reading bytes"):
        list(batches(text, preprocessing))

    class Tensor:  # what torch, TensorFlow and JAX have in common
        def __init__(self, array):
            self.array, self.shape = array, array.shape

        def __array__(self, dtype=None, copy=None):
            return self.array

    floats = np.random.default_rng(3).random((2, 8, 8, 3), np.float32)
    [(_, pixels)] = batches(Tensor(floats), preprocessing)
    assert np.array_equal(pixels, floats)
    [(_, pixels)] = batches(Tensor(np.asarray(Image.open(photo))), preprocessing)
    assert np.array_equal(pixels, expected)
    with pytest.raises(InputError, match=r"use images.permute\(0, 2, 3, 1\)"):
        list(batches(Tensor(floats.transpose(0, 3, 1, 2)), preprocessing))
