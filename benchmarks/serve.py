"""The server beside what it is made of and beside its peers: one client, the same photos, one run.

    python benchmarks/serve.py --photos ../shared/photos/imagenet_samples             # some three minutes on two cores
    python benchmarks/serve.py --photos ../shared/photos/imagenet_samples --peers     # beside other servers

Every rate is a ratio within this run: a lone request beside `Classifier.classify` on the same bytes; 32 connections
beside bulk's loop over the same files; the spread of latencies at half of that rate and at 80 %. The client is a
process of its own on the same cores, and bulk has none. So two ratios are printed: as a client sees it, and beside what
bulk would make of the cores that the client leaves (its rate times the share of all cores' time that the client did not
take); and the processor time of an image, which says what the server costs whatever else runs.
That loop has its photos in memory, ranks nothing and writes nothing. `--folder` puts the rate beside that of the whole
command, `mobilenet classify FOLDER -o LABELS.csv`, from its start to its end and without its start.
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from serve_client import load, request
from serve_peers import PEERS, as_jpeg

CONNECTIONS, LOADS = 32, (0.5, 0.8)
TICKS = os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--module", default="starter")
    parser.add_argument("--kilobytes", type=int, default=60, help="about the size that photos are brought to")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", action="store_true", help="also beside the command, on a folder of the same photos")
    parser.add_argument("--peers", action="store_true", help="other servers instead (see serve_peers.py)")
    parser.add_argument("--peers-python", default=sys.executable, help="the Python that has them, and this package")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        print(json.dumps(client(json.loads(args.client), sys.stdin.buffer.read())))
        return
    files = sized(args.photos, args.kilobytes)
    print(f"{len(files)} photos of {sum(map(len, files)) / len(files) / 1000:.0f} kB, module {args.module}\n")
    (peers if args.peers else ours)(args, files)


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
def server(words):
    """Start a server; yield (address, seconds until it was ready, process)."""
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = int(line.rsplit(":", 1)[1])
        yield ("127.0.0.1", port), time.perf_counter() - start, process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):  # some leave workers behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def client(plan, data):
    """Ask as planned; return the rate, the latencies' 50th and 99th percentile in ms, and the statuses."""
    requests, position = [], 0
    for length in plan.pop("lengths"):
        requests.append(request(plan["path"], data[position : position + length], [f"Content-Type: {plan['kind']}"]))
        position += length
    del plan["path"], plan["kind"]
    begun = time.process_time()
    answers, seconds = load(tuple(plan.pop("address")), requests, **plan)
    cpu_s = time.process_time() - begun
    took = [1000 * each for _, _, _, each in answers]
    statuses = sorted({status for _, status, _, _ in answers})
    return {
        "rate": len(answers) / seconds,
        "p50": float(np.percentile(took, 50)),
        "p99": float(np.percentile(took, 99)),
        "statuses": statuses,
        "cores": cpu_s / seconds,
        "count": len(answers),
    }


def asked(address, files, path="/classify?top=5", kind="image/jpeg", **plan):
    """Run the client in a process of its own."""
    plan = {"address": address, "path": path, "kind": kind, "lengths": [len(data) for data in files], **plan}
    words = [sys.executable, __file__, "--photos", ".", "--client", json.dumps(plan)]
    done = subprocess.run(words, input=b"".join(files), capture_output=True, check=True)
    result = json.loads(done.stdout)
    assert result["statuses"] in ([200], [201]), result
    return result


def ours(args, files):
    from mobilenet_hub.host.cpu import available_cores
    from mobilenet_hub.inference.classify import Classifier

    classifier = Classifier(args.module)
    classifier.classify(files[0])
    words = [sys.executable, "-m", "mobilenet_hub.cli.main", "serve", args.module, "--port", "0"]
    with server(words):  # compiles, where this is the first start
        pass
    rows, spreads = [], {load_: [] for load_ in LOADS}
    with server(words) as (address, ready_s, process):
        asked(address, files, connections=4, seconds=1.0)
        for _ in range(args.turns):
            alone = lone(classifier, files, args.seconds / 2)
            one = asked(address, files, connections=1, seconds=args.seconds / 2)
            begun = time.process_time()
            bulk, photos = bulk_rate(classifier, files, args.seconds)
            bulk_ms = 1000 * (time.process_time() - begun) / photos
            begun = used(process.pid)
            many = asked(address, files, connections=CONNECTIONS, seconds=args.seconds)
            many_ms = 1000 * (used(process.pid) - begun) / many["count"]
            left = bulk * (1 - many["cores"] / available_cores())
            rows.append((alone, one["p50"], bulk, bulk_ms, many["rate"], many_ms, many["rate"] / left))
            for load_, spread in spreads.items():
                plan = {"connections": 2 * CONNECTIONS, "seconds": args.seconds, "rate": load_ * many["rate"]}
                part = asked(address, files, **plan)
                spread.append((part["p50"], part["p99"]))
        memory = resident(process.pid)
        if args.folder:
            beside_the_command(args, files, address)
    alone, one, bulk, bulk_ms, many, many_ms, fair = np.median(rows, axis=0)
    ratio = np.median([row[4] / row[2] for row in rows])
    print("| | |\n|---|---|")
    print(f"| ready after | {ready_s:.2f} s |")
    print(f"| memory after the run | {memory / 1e6:.0f} MB |")
    print(f"| `classify` of one photo | {alone:.2f} ms |")
    print(f"| a lone request | {one:.2f} ms (+{np.median([r[1] - r[0] for r in rows]):.2f}) |")
    print(f"| bulk | {bulk:.0f} images/s, {bulk_ms:.2f} ms of processor time an image |")
    print(
        f"| {CONNECTIONS} connections | {many:.0f} images/s, {many_ms:.2f} ms of the server's processor time an image |"
    )
    print(f"| of bulk's rate | {ratio:.2f}; of bulk on the cores that the client leaves {fair:.2f} |")
    for load_, spread in spreads.items():
        p50, p99 = np.median(spread, axis=0)
        print(f"| at {100 * load_:.0f} % of that | p50 {p50:.1f} ms, p99 {p99:.1f} ms |")


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
    """Return how many images a second the loop of the bulk commands makes of the same files, and of how many."""
    from mobilenet_hub.images.batches import compute
    from mobilenet_hub.images.inputs import Item

    end = time.perf_counter() + seconds
    start, done = time.perf_counter(), 0

    def items():
        while time.perf_counter() < end:
            yield from (Item(str(number), lambda data=data: data) for number, data in enumerate(files))

    for _, logits in compute(items(), classifier.engine, "logits", classifier.preprocessing):
        done += len(logits)
    return done / (time.perf_counter() - start), done


def beside_the_command(args, files, address, few=1000, many=6000):
    """Print the server's rate beside that of the command on folders of so many photos, in turns."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (few, many):
            Path(folder, str(count)).mkdir()
            for number in range(count):
                Path(folder, str(count), f"{number}.jpg").write_bytes(files[number % len(files)])
        for _ in range(args.turns):
            rate = asked(address, files, connections=CONNECTIONS, seconds=args.seconds)["rate"]
            short, long = (command_s(args.module, Path(folder, str(count))) for count in (few, many))
            rows.append((rate, many / long, (many - few) / (long - short)))
    rate, whole, steady = np.median(rows, axis=0)
    of_whole, of_steady = (np.median([row[0] / row[other] for row in rows]) for other in (1, 2))
    print(f"beside the command on {many} photos: {rate:.0f} images/s and {whole:.0f} ({of_whole:.2f}),", end=" ")
    print(f"without its start {steady:.0f} ({of_steady:.2f})\n")


def command_s(module, folder):
    """Return how long the command takes for a folder."""
    with tempfile.TemporaryDirectory() as written:
        words = ["classify", str(folder), "--module", module, "--top", "5", "--quiet", "-o", f"{written}/labels.csv"]
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mobilenet_hub.cli.main", *words], check=True, capture_output=True)
        return time.perf_counter() - begun


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def used(pid):
    """Return the processor time of a process, in seconds."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / TICKS


def peers(args, files):
    """Measure the same network behind other servers, each set up as its documents say."""
    print("| server | ready, s | one request, ms | 32 connections, images/s | p99 there, ms | memory, MB |")
    print("|---|---|---|---|---|---|")
    words = [sys.executable, "-m", "mobilenet_hub.cli.main", "serve", args.module, "--port", "0"]
    row("mobilenet serve", words, files, args)
    for peer in PEERS:
        if missing := [name for name in peer.packages if not has(args.peers_python, name)]:
            print(f"| {peer.name} | {', '.join(missing)} not installed | | | | |")
            continue
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "server.py"
            program.write_text(peer.program.format(module=args.module), encoding="utf-8")
            row(peer.name, [args.peers_python, str(program)], files, args, peer)


def has(python, name):
    words = [python, "-c", f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"]
    return subprocess.run(words, check=False).returncode == 0


def row(name, words, files, args, peer=None):
    wrap, path = (peer.wrap, peer.path) if peer else (as_jpeg, "/classify?top=5")
    bodies = [wrap(data)[0] for data in files]
    kind = wrap(b"")[1]
    begun = time.perf_counter()
    with server(words) as (address, _, process):
        answering(address, path, bodies[0], kind)
        ready_s = time.perf_counter() - begun
        asked(address, bodies, path, kind, connections=4, seconds=1.0)
        one = asked(address, bodies, path, kind, connections=1, seconds=args.seconds)
        many = asked(address, bodies, path, kind, connections=CONNECTIONS, seconds=args.seconds)
        memory = sum(resident(pid) for pid in family(process.pid))
    print(
        f"| {name} | {ready_s:.1f} | {one['p50']:.2f} | {many['rate']:.0f} | {many['p99']:.0f} | {memory / 1e6:.0f} |",
        flush=True,
    )


def answering(address, path, body, kind):
    """Wait until a request is answered: some print their address before."""
    end = time.perf_counter() + 120
    while True:
        connection = http.client.HTTPConnection(*address, timeout=60)
        try:
            connection.request("POST", path, body, {"Content-Type": kind})
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        assert time.perf_counter() < end, "no answer"
        time.sleep(0.02)


def family(pid):
    """Return a process and all that it has begun."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


if __name__ == "__main__":
    main()
