"""Photos in a bucket against photos on the disk, Ray workers against a plain run, and memory against their number.

    python benchmarks/many_machines.py --photos FOLDER --count 300 --turns 2              # times, sides in turns
    python benchmarks/many_machines.py --photos FOLDER --count 3000 --store nginx         # a store that is not Python
    python benchmarks/many_machines.py --photos FOLDER --count 8192 --ray 1 2 4           # workers of one thread each
    python benchmarks/many_machines.py --memory 2000 20000                                # peaks, links to small photos

The bucket is moto's server on this machine, or nginx (Debian's nginx-light), which answers with a file for an object
and with one page of names, and verifies no signature. Its processor time is not the run's; with two cores it takes some
of the wall time, too. What a run costs before its first photo is measured with few photos, and taken away: "more".
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

NGINX = """
worker_processes 1; daemon off; pid {work}/pid; error_log {work}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type application/octet-stream;
  client_body_temp_path {work}/1; proxy_temp_path {work}/2; fastcgi_temp_path {work}/3; uwsgi_temp_path {work}/4;
  scgi_temp_path {work}/5;
  map $args $names {{ default ""; "~list-type=2" 1; }}
  server {{
    listen 127.0.0.1:{port} backlog=512; root {work};
    location = /bucket {{ if ($names) {{ rewrite ^ /names.xml last; }} return 200; }}
    location / {{ }}
  }}
}}
"""
PAGE = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>
<IsTruncated>false</IsTruncated>{}</ListBucketResult>"""
ENTRY = "<Contents><Key>photos/{}</Key><Size>{}</Size><ETag>&quot;0&quot;</ETag></Contents>"


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
    shutil.rmtree(output)
    return wall, spent, int(done.stderr.splitlines()[-1])


@contextmanager
def moto_with(folder):
    """Serve the photos of a folder with moto."""
    from object_store import client_of, moto

    with moto() as url:
        client = client_of(url, "bucket")
        for file in folder.iterdir():
            client.put_object(Bucket="bucket", Key=f"photos/{file.name}", Body=file.read_bytes())
        yield url


@contextmanager
def nginx_with(folder):
    """Serve the photos of a folder with nginx."""
    from object_store import closed_port

    with tempfile.TemporaryDirectory() as name:
        work, port = Path(name), closed_port()
        work.chmod(0o755)
        (work / "bucket").mkdir()
        (work / "bucket" / "photos").symlink_to(folder)
        entries = [ENTRY.format(file.name, file.stat().st_size) for file in sorted(folder.iterdir())]
        (work / "names.xml").write_text(PAGE.format("".join(entries)))
        (work / "nginx.conf").write_text(NGINX.format(work=work, port=port))
        with subprocess.Popen(["nginx", "-c", str(work / "nginx.conf")]) as server:
            time.sleep(1)
            yield f"http://127.0.0.1:{port}"
            server.terminate()


def least(runs, turns, few, count):
    """Run each name's function of a number of photos in turns, and print the least that it took.

    What each photo costs is told by runs of few and of all: what both have alike is the start.
    """
    best = {}
    for _ in range(turns):
        for name, run in runs.items():
            for photos in (few, count):
                seen = run(photos)
                known = best.get((name, photos), seen)
                best[name, photos] = [min(pair) for pair in zip(seen[:2], known[:2], strict=True)]
    for name in runs:
        (wall, spent), begun = best[name, count], best[name, few]
        each = [1000 * (most - least) / (count - few) for most, least in zip((wall, spent), begun, strict=True)]
        print(
            f"{name:<24} {count / wall:7.1f} images/s, {1000 * spent / count:6.2f} ms of processor an image; each more "
            f"{each[0]:6.2f} ms and {each[1]:6.2f} ms of processor",
            flush=True,
        )


def compare(photos, count, turns, module, store):
    from object_store import CREDENTIALS

    with {"moto": moto_with, "nginx": nginx_with}[store](photos) as url, tempfile.TemporaryDirectory() as out:
        there = {**CREDENTIALS, "AWS_ENDPOINT_URL": url}
        runs = {}
        for name, inputs, environment in (("disk", photos, {}), ("bucket", "s3://bucket/photos/", there)):
            for end, more in (("", ()), (", one thread", ("--threads", "1"))):

                def run(limit, inputs=inputs, more=more, environment=environment):
                    return embed(inputs, f"{out}/f", module, *more, "--limit", str(limit), **environment)

                runs[name + end] = run
        print(f"the bucket is in {store}")
        least(runs, turns, min(64, count // 2), count)


class Watched:
    """What the Ray workers below this process have used: processor seconds, and the most memory of one in MiB."""

    def __init__(self):
        self.seconds, self.peak = {}, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _watch(self):
        while not self._ended.wait(0.05):
            parents, used = {}, {}
            for place in Path("/proc").iterdir():
                if place.name.isdigit():
                    try:
                        fields = (place / "stat").read_text().rsplit(")", 1)[1].split()
                        parents[int(place.name)] = int(fields[1])
                        if (place / "cmdline").read_bytes().startswith(b"ray::_compute_shard"):
                            seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                            peak = (place / "status").read_text().split("VmHWM:")[1].split()[0]
                            used[int(place.name)] = seconds, int(peak) // 1024
                    except (OSError, IndexError):
                        continue
            for process, (seconds, peak) in used.items():
                above = process
                while above > 1 and above != os.getpid():
                    above = parents.get(above, 0)
                if above == os.getpid():
                    self.seconds[process], self.peak = seconds, max(self.peak, peak)


def on_ray(photos, count, turns, module, workers):
    """Compare runs on a cluster with plain ones: one worker of all cores, then some of one thread each."""
    from ray.cluster_utils import Cluster

    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as out:

        def run(limit, *more):
            with Watched() as watched:
                wall, spent, peak = embed(photos, f"{out}/f", module, *more, "--limit", str(limit))
            print(f"  {limit} photos {more}: driver {peak} MiB, worker {watched.peak} MiB", file=sys.stderr, flush=True)
            return wall, spent + sum(watched.seconds.values())

        for number, threads in [(1, cores), *((number, 1) for number in workers)]:
            cluster = Cluster(
                initialize_head=True, head_node_args={"num_cpus": number * threads, "include_dashboard": False}
            )
            size = max(1, count // number // 4)
            words = ("--threads", str(threads), "--shard-size", str(size))
            sides = {
                f"a plain run of {threads}": lambda limit, words=words: run(limit, *words),
                f"{number} on Ray of {threads}": lambda limit, words=words, at=cluster.address: run(
                    limit, *words, "--ray", at
                ),
            }
            least(sides, turns, size * number, count)
            cluster.shutdown()


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
    from mobilenet_hub.images.names import is_picture_name

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--module", default="starter")
    parser.add_argument("--store", choices=["moto", "nginx"], default="moto")
    parser.add_argument("--ray", type=int, nargs="*", metavar="WORKERS")
    parser.add_argument("--memory", type=int, nargs="*", default=())
    args = parser.parse_args()
    if args.photos:
        files = sorted(path for path in args.photos.rglob("*") if is_picture_name(path.name))
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            for number in range(args.count):
                file = files[number % len(files)]
                (Path(name) / f"{number:06d}{file.suffix}").symlink_to(file.resolve())
            if args.ray is None:
                compare(Path(name), args.count, args.turns, args.module, args.store)
            else:
                on_ray(Path(name), args.count, args.turns, args.module, args.ray)
    memory(args.memory)


if __name__ == "__main__":
    main()
