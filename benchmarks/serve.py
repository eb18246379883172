"""The server beside what it is made of and beside its peers: one client, the same photos, one run.

    python benchmarks/serve.py --photos ../shared/photos/imagenet_samples             # some three minutes on two cores
    python benchmarks/serve.py --photos ../shared/photos/imagenet_samples --peers     # beside the usual way

Every rate is a ratio within this run: a lone request beside `Classifier.classify` on the same bytes; 32 connections
beside bulk's loop over the same files; the spread of latencies at 80 % of that rate. The client is a process of its own
and takes its share of the cores (about 0.1 ms a request): what is printed is what a client sees.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from serve_client import load, request

CONNECTIONS, LOAD = 32, 0.8
JPEG = ["Content-Type: image/jpeg"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--module", default="starter")
    parser.add_argument("--kilobytes", type=int, default=60, help="about the size that photos are brought to")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="the same network behind FastAPI too")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        print(json.dumps(client(json.loads(args.client), sys.stdin.buffer.read())))
        return
    files = sized(args.photos, args.kilobytes)
    print(f"{len(files)} photos of {sum(map(len, files)) / len(files) / 1000:.0f} kB, module {args.module}\n")
    ours(args, files)
    if args.peers:
        print()
        peers(args, files)


def sized(folder, kilobytes):
    """Return up to 100 photos as JPEGs of about that size."""
    from PIL import Image

    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[:100]:
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        scale = min(1.0, (kilobytes * 1000 / path.stat().st_size) ** 0.5)
        photo = photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))))
        stream = BytesIO()
        photo.save(stream, "JPEG", quality=95)
        found.append(stream.getvalue())
    return found


@contextmanager
def server(words, path="/classify", environment=None):
    """Start a server; yield (address, seconds until it was ready, process)."""
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    try:
        line = process.stdout.readline()
        port = int(line.rsplit(":", 1)[1])
        yield ("127.0.0.1", port), time.perf_counter() - start, process
    finally:
        process.terminate()
        process.wait(60)


def client(plan, data):
    """Ask as planned; return the rate, the latencies' 50th and 99th percentile in ms, and the statuses."""
    requests, position = [], 0
    for length in plan.pop("lengths"):
        requests.append(request(plan["path"], data[position : position + length], JPEG))
        position += length
    plan.pop("path")
    answers, seconds = load(tuple(plan.pop("address")), requests, **plan)
    took = [1000 * each for _, _, _, each in answers]
    statuses = sorted({status for _, status, _, _ in answers})
    return {
        "rate": len(answers) / seconds,
        "p50": float(np.percentile(took, 50)),
        "p99": float(np.percentile(took, 99)),
        "statuses": statuses,
    }


def asked(address, files, path="/classify?top=5", **plan):
    """Run the client in a process of its own."""
    plan = {"address": address, "path": path, "lengths": [len(data) for data in files], **plan}
    words = [sys.executable, __file__, "--photos", ".", "--client", json.dumps(plan)]
    done = subprocess.run(words, input=b"".join(files), capture_output=True, check=True)
    result = json.loads(done.stdout)
    assert result["statuses"] in ([200], [201]), result
    return result


def ours(args, files):
    from mobilenet_hub.inference.classify import Classifier

    classifier = Classifier(args.module)
    classifier.classify(files[0])
    words = [sys.executable, "-m", "mobilenet_hub.cli.main", "serve", args.module, "--port", "0"]
    with server(words):  # compiles, where this is the first start
        pass
    rows = []
    with server(words) as (address, ready_s, process):
        asked(address, files, connections=4, seconds=1.0)
        for _ in range(args.turns):
            alone = lone(classifier, files, args.seconds / 2)
            one = asked(address, files, connections=1, seconds=args.seconds / 2)
            bulk = bulk_rate(classifier, files, args.seconds)
            many = asked(address, files, connections=CONNECTIONS, seconds=args.seconds)
            part = asked(address, files, connections=2 * CONNECTIONS, seconds=args.seconds, rate=LOAD * many["rate"])
            rows.append((alone, one["p50"], bulk, many["rate"], part["p50"], part["p99"]))
        memory = resident(process.pid)
    alone, one, bulk, many, p50, p99 = np.median(rows, axis=0)
    ratios = [row[3] / row[2] for row in rows]
    print("| | |\n|---|---|")
    print(f"| ready after | {ready_s:.2f} s |")
    print(f"| memory after the run | {memory / 1e6:.0f} MB |")
    print(f"| `classify` of one photo | {alone:.2f} ms |")
    print(f"| a lone request | {one:.2f} ms (+{np.median([r[1] - r[0] for r in rows]):.2f}) |")
    print(f"| bulk | {bulk:.0f} images/s |")
    print(f"| {CONNECTIONS} connections | {many:.0f} images/s ({np.median(ratios):.2f} of bulk) |")
    print(f"| at {100 * LOAD:.0f} % of that | p50 {p50:.1f} ms, p99 {p99:.1f} ms |")


def lone(classifier, files, seconds):
    """Return the median of a call, in ms."""
    took, end, turn = [], time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        start = time.perf_counter()
        classifier.classify(files[turn % len(files)])
        took.append(time.perf_counter() - start)
        turn += 1
    return 1000 * float(np.median(took))


def bulk_rate(classifier, files, seconds):
    """Return how many images a second the loop of the bulk commands makes of the same files."""
    from mobilenet_hub.images.batches import compute
    from mobilenet_hub.images.inputs import Item

    end = time.perf_counter() + seconds
    start, done = time.perf_counter(), 0

    def items():
        while time.perf_counter() < end:
            yield from (Item(str(number), lambda data=data: data) for number, data in enumerate(files))

    for _, logits in compute(items(), classifier.engine, "logits", classifier.preprocessing):
        done += len(logits)
    return done / (time.perf_counter() - start)


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peers(args, files):
    """Measure the same network behind other servers, each set up as its documents say for batches."""
    print("| server | one request, ms | 32 connections, images/s | p99 there, ms |\n|---|---|---|---|")
    words = [sys.executable, "-m", "mobilenet_hub.cli.main", "serve", args.module, "--port", "0"]
    with server(words) as (address, _, _), tempfile.TemporaryDirectory() as folder:
        row("mobilenet serve", address, files, args)
        plain = Path(folder) / "plain.py"
        plain.write_text(PLAIN.format(module=args.module), encoding="utf-8")
        if find_spec("fastapi"):
            with server([sys.executable, str(plain)]) as (other, _, _):
                row("FastAPI, a call for each request", other, files, args)
        else:
            print("| FastAPI | not installed | | |")


def row(name, address, files, args):
    asked(address, files, connections=4, seconds=1.0)
    one = asked(address, files, connections=1, seconds=args.seconds)
    many = asked(address, files, connections=CONNECTIONS, seconds=args.seconds)
    print(f"| {name} | {one['p50']:.2f} | {many['rate']:.0f} | {many['p99']:.0f} |")


PLAIN = """
import socket, uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from mobilenet_hub.inference.classify import Classifier
classifier = Classifier({module!r})
app = FastAPI()
@app.post("/classify")
async def classify(request: Request):
    data = await request.body()
    found = (await run_in_threadpool(classifier.classify, data, 5))[0]
    return {{"labels": found.labels, "scores": found.scores}}
listener = socket.create_server(("127.0.0.1", 0))
print("ready :%d" % listener.getsockname()[1], flush=True)
uvicorn.run(app, fd=listener.fileno(), log_level="error")
"""


if __name__ == "__main__":
    main()
