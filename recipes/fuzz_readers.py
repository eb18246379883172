"""Damage files of every format that `mobilenet convert` reads, for as long as you like, and watch what comes of it.

    python recipes/fuzz_readers.py --minutes 30

A damaged file must be refused with an error of this package, or give the undamaged module where its format has no
checksum (there a flipped bit in a number cannot be known). Any other exception, a changed shape, or memory beyond
`LIMIT` is a fault: the file is kept and named, and the exit status is 1. The tests run the same idea for a few seconds.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from test_weights_convert import KINDS, NETWORK

from mobilenet_hub.errors import MobileNetHubError
from mobilenet_hub.weights.convert import load_source

LIMIT = 100 << 20  # bytes; the files are below 2 MB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    tries = refused = faults = 0
    with tempfile.TemporaryDirectory() as scratch:
        sources = {}
        for make in KINDS:
            folder = Path(scratch) / make.__name__
            folder.mkdir()
            sources[folder] = make(folder)
        while time.monotonic() < end:
            chance = random.Random(args.seed + tries)
            folder = chance.choice(list(sources))
            files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
            file = chance.choice(files)
            outcome = try_damaged(sources[folder], file, chance)
            tries += 1
            refused += outcome == "refused"
            if outcome not in ("refused", "the same"):
                faults += 1
                print(f"seed {args.seed + tries - 1}: {file.relative_to(scratch)}: {outcome}")
    print(f"{tries} damaged files: {refused} refused, {tries - refused - faults} without effect, {faults} faults")
    return int(faults > 0)


def damaged(data: bytes, chance: random.Random) -> bytes:
    content = bytearray(data)
    at = chance.randrange(len(content) or 1)
    match chance.randrange(5):
        case 0:
            del content[at:]
        case 1:
            del content[at : at + chance.randrange(1, 200)]
        case 2:
            content[at:at] = chance.randbytes(chance.randrange(1, 200))
        case 3:
            content[at : at + chance.randrange(1, 16)] = chance.randbytes(chance.randrange(1, 16))
        case _:
            for _ in range(chance.randrange(1, 8)):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def try_damaged(source: Path, file: Path, chance: random.Random) -> str:
    good = file.read_bytes()
    file.write_bytes(damaged(good, chance))
    tracemalloc.start()
    try:
        module = load_source(source, image_size=96)
        fits = {name: array.shape for name, array in module.weights.items()} == {
            name: one.shape for name, one in NETWORK.variables.items()
        }
        outcome = "the same" if fits else "another network"
    except MobileNetHubError:
        outcome = "refused"
    except Exception:
        outcome = traceback.format_exc()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        file.write_bytes(good)
    return f"{outcome}, {peak >> 20} MiB of memory" if peak > LIMIT else outcome


if __name__ == "__main__":
    sys.exit(main())
