"""Photos in a bucket against photos on the disk, a Ray worker against a plain run, and memory against their number.

    python benchmarks/many_machines.py --photos FOLDER --count 300 --turns 2   # times, sides in turns
    python benchmarks/many_machines.py --memory 2000 20000                     # peaks, with links to one small photo

The bucket is moto's server on this machine, in a process of its own whose processor time is not the run's; with two
cores it takes some of the wall time, too.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))


def embed(inputs, output, module, *more, **environment):
    """Return wall and processor seconds, and the peak memory in MiB, of one run."""
    code = (
        "import sys\nfrom mobilenet_hub.cli.main import main\nstatus = main(sys.argv[1:])\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(int(peak.split()[1]) // 1024, file=sys.stderr)\nsys.exit(status)\n"
    )
    words = ["embed", str(inputs), "-o", str(output), "--module", module, "--precision", "f32", "--quiet", *more]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, spent, int(done.stderr.splitlines()[-1])


def compare(photos, count, turns, module, with_ray):
    import boto3
    from object_store import CREDENTIALS, moto

    from mobilenet_hub.images.names import is_picture_name

    files = sorted(path for path in photos.rglob("*") if is_picture_name(path.name))
    with tempfile.TemporaryDirectory() as name, moto() as url:
        work, client = (
            Path(name),
            boto3.client(
                "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
            ),
        )
        client.create_bucket(Bucket="bucket")
        (work / "photos").mkdir()
        for number in range(count):
            file = files[number % len(files)]
            shutil.copy(file, work / "photos" / f"{number:06d}{file.suffix}")
            client.put_object(Bucket="bucket", Key=f"photos/{number:06d}{file.suffix}", Body=file.read_bytes())
        there = {**CREDENTIALS, "AWS_ENDPOINT_URL": url}
        sides = {
            "disk": (work / "photos", (), {}),
            "disk, one thread": (work / "photos", ("--threads", "1"), {}),
            "bucket": ("s3://bucket/photos", (), there),
            "bucket, one thread": ("s3://bucket/photos", ("--threads", "1"), there),
            **({"one Ray worker": (work / "photos", ("--ray", "--shard-size", "128"), {})} if with_ray else {}),
        }
        best = {}
        for turn in range(turns):
            for side, (inputs, more, environment) in sides.items():
                wall, spent, _ = embed(inputs, work / f"{turn}{side}", module, *more, **environment)
                least = best.get(side, (wall, spent))
                best[side] = (min(wall, least[0]), min(spent, least[1]))
        for side, (wall, spent) in best.items():
            print(f"{side:<20} {count / wall:7.1f} images/s wall  {1000 * spent / count:7.2f} ms of processor an image")


def memory(counts):
    from small_photos import jpeg, make_work

    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            make_work(work, 0, {})
            same = work / "0.jpg"
            for number in range(count):
                if number % 50000 == 0:  # a file has 65,000 names at most
                    (same := work / f"{number}.jpg").write_bytes(jpeg(1))
                (folder := work / "photos" / f"{number // 1000:04d}").mkdir(exist_ok=True)
                (folder / f"{number:07d}.jpg").hardlink_to(same)
            wall, _, peak = embed(work / "photos", work / "out", str(work / "m"))
            print(f"{count:>8} photos: {peak} MiB at most, {count / wall:.0f} images/s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--module", default="starter")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--memory", type=int, nargs="*", default=())
    args = parser.parse_args()
    if args.photos:
        compare(args.photos, args.count, args.turns, args.module, args.ray)
    memory(args.memory)


if __name__ == "__main__":
    main()
