"""Fuzz the unpacking of archives and the pulling of modules for hours; CI runs the same checks for seconds.

    python recipes/fuzz_archives.py --minutes 60

Three generators take turns: archives made up by hypothesis (names, kinds, sizes, flipped bytes, cuts), real archives of
small modules with bytes flipped, cut, moved or repeated, and random bytes behind a gzip header. Each one must be taken
or refused with one of the package's errors; anything else, a file outside of the target folder, or more memory than
the archive can justify stops the run and leaves the archive in `fuzz-failures/`. Needs the test extra.
Measured: about 250 archives for each second of one core (AMD EPYC, Zen 3), 90 MB of memory.
"""

import argparse
import gzip
import logging
import os
import random
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from modules import SMALL, checkpoint_archive, published_archive  # noqa: E402
from test_weights_archive import SMALL as LIMITS  # noqa: E402
from test_weights_archive import honest, tar  # noqa: E402

from mobilenet_hub.errors import MobileNetHubError  # noqa: E402
from mobilenet_hub.store.pull import pull  # noqa: E402
from mobilenet_hub.weights.archive import unpack  # noqa: E402

MOST_MEMORY_KIB = 600 * 1024
KINDS = b"0512347xgLKSV\0"
NAMES = ["x", "a/b", "..", "../x", "/x", "a/../x", "con", "variables/variables.index", "", ".", "a//b", "X", "é", "\0"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    logging.getLogger("mobilenet_hub").setLevel(logging.ERROR)  # refusals are what is wanted
    dice = random.Random(args.seed)
    print(f"seed {args.seed}")
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    real = [
        published_archive(scratch / "saved_model", SMALL)[0],
        published_archive(scratch / "hub1", "google/imagenet/mobilenet_v1_025_128/feature_vector/3")[0],
        checkpoint_archive(scratch / "checkpoint", SMALL)[0],
        honest(),
        honest(compress=False),
    ]
    end, count, taken = time.monotonic() + 60 * args.minutes, 0, 0
    while time.monotonic() < end:
        data = make(dice, real)
        try:
            taken += check(data, scratch / "work", through_pull=count % 20 == 0)
        except BaseException:
            failures = Path("fuzz-failures")
            failures.mkdir(exist_ok=True)
            (failures / f"{args.seed}-{count}.bin").write_bytes(data)
            raise
        count += 1
        if count % 1000 == 0:
            print(f"{count} archives, {taken} taken, {peak_kib() // 1024} MB peak", flush=True)
    shutil.rmtree(scratch)
    print(f"{count} archives, {taken} taken, {peak_kib() // 1024} MB peak: nothing found")
    return 0


def make(dice: random.Random, real: list[bytes]) -> bytes:
    kind = dice.random()
    if kind < 0.4:
        return made_up(dice)
    if kind < 0.9:
        return mutated(dice, dice.choice(real))
    return b"\x1f\x8b\x08" + dice.randbytes(dice.randrange(2000))


def made_up(dice: random.Random) -> bytes:
    members = []
    for _ in range(dice.randrange(6)):
        info = tarfile.TarInfo(dice.choice(NAMES) + dice.choice(["", "y", "/z"]))
        info.type = bytes([dice.choice(KINDS)])
        info.size = dice.choice([0, 1, 511, 512, 1000])
        info.linkname = dice.choice(NAMES)
        members.append((info, dice.randbytes(info.size)))
    try:
        data = tar(*members, form=dice.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), compress=False)
    except (ValueError, tarfile.TarError):
        return b""
    data = mutated(dice, data) if dice.random() < 0.5 else data
    return gzip.compress(data, 1) if dice.random() < 0.8 else data


def mutated(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randrange(1, 6)):
        at = dice.randrange(len(changed) + 1)
        length = dice.choice([1, 1, 2, 4, 64, 512])
        action = dice.randrange(4)
        if action == 0:
            changed[at : at + length] = dice.randbytes(length)
        elif action == 1:
            del changed[at : at + length]
        elif action == 2:
            changed[at:at] = changed[at : at + length]
        elif dice.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def check(data: bytes, work: Path, through_pull: bool) -> bool:
    """Unpack or pull one archive; return whether it was taken."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "in").mkdir(parents=True)
    archive = work / "in" / "archive.tar.gz"
    archive.write_bytes(data)
    try:
        if through_pull:
            return check_pull(data, work)
        unpack(archive, work / "out" / "target", LIMITS)
    except MobileNetHubError:
        assert files_in(work) == ["in/archive.tar.gz"], files_in(work)
        return False
    finally:
        assert peak_kib() < MOST_MEMORY_KIB, f"{peak_kib()} KiB"
    outside = [name for name in files_in(work) if not name.startswith(("in/archive.tar.gz", "out/target/"))]
    assert not outside, outside
    assert not any(path.is_symlink() for path in work.rglob("*"))
    return True


def check_pull(data: bytes, work: Path) -> bool:
    mirror = work / "mirror" / f"{SMALL}.tar.gz"
    mirror.parent.mkdir(parents=True)
    mirror.write_bytes(data)
    os.environ.update(
        MOBILENET_HUB_CACHE=str(work / "cache"), MOBILENET_HUB_MIRROR=str(work / "mirror"), MOBILENET_HUB_OFFLINE="1",
        MOBILENET_HUB_SOURCES="mirror",
    )  # fmt: skip
    try:
        pull(SMALL)
    except MobileNetHubError:
        assert not (work / "cache").exists() or files_in(work / "cache") == []
        return False
    return True


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def peak_kib() -> int:
    # Not ru_maxrss: that of a child begins with what its parent held when it was started.
    status = Path("/proc/self/status").read_text("utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


if __name__ == "__main__":
    sys.exit(main())
