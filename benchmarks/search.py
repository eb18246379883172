"""Searching up to a million feature vectors: index, one query, duplicates, memory, and the recall of all of it.

    python benchmarks/search.py FEATURES                       # some ten minutes on two quiet cores
    python benchmarks/search.py FEATURES --rows 10000 100000   # smaller
    python benchmarks/search.py FEATURES --rows 1000000 --keep DIR --steps index   # one step; DIR is made, and stays

FEATURES is a folder that `mobilenet embed` wrote for some thousands of photos. From it collections of any size are made
that are clustered as it is: each vector is a mixture of two real ones near in the collection, with noise, and one in
fifty a copy of an earlier one (cosine about 0.99). Every step runs in a process of its own, whose peak memory is given;
queries are real vectors with noise, each timed alone, the median of fifty.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

QUERIES, NEIGHBOURS, SHARD = 50, 10, 4096


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--threshold", type=float, default=0.97)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the collections here, and let them stay")
    parser.add_argument("--steps", nargs="*", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(STEPS[args.step](args.features, args.threshold)))
        return
    print("| rows | step | seconds | MiB | |\n|--:|---|--:|--:|---|")
    for rows in args.rows:
        with tempfile.TemporaryDirectory(dir=args.features.absolute().parent) as folder:
            made = (args.keep or Path(folder)) / f"{rows}"
            if not made.exists():
                make(args.features, made, rows)
            for step in args.steps:
                command = [sys.executable, __file__, str(made), "--step", step, "--threshold", str(args.threshold)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, memory, remark = json.loads(done.stdout.splitlines()[-1])
                print(f"| {rows} | {step} | {seconds:.3f} | {memory} | {remark} |", flush=True)


def make(source, folder, rows):
    import pyarrow as pa

    from mobilenet_hub.bulk.rows import feature_rows
    from mobilenet_hub.bulk.run import Shards
    from mobilenet_hub.images.inputs import Item
    from mobilenet_hub.search.features import Features

    opened = Features(source)
    real = np.concatenate([block for _, block in opened.blocks()])
    kind = feature_rows(real.shape[1], half=True)
    random = np.random.default_rng(1)
    before = None
    stream_of = (Item(f"photos/{row:07d}.jpg", bytes) for row in range(rows))
    with Shards(folder, {**opened.made_with, "shard_size": SHARD}, kind.schema) as shards:
        stream = shards.remaining(stream_of)
        while keys := [item.key for _, item in zip(range(SHARD), stream, strict=False)]:
            first = random.integers(0, len(real), len(keys))
            second = np.clip(first + random.integers(-150, 150, len(keys)), 0, len(real) - 1)
            share = random.uniform(0.5, 1, (len(keys), 1)).astype(np.float32)
            vectors = real[first] * share + real[second] * (1 - share)
            vectors *= 1 + 0.25 * random.standard_normal(vectors.shape, np.float32)
            if before is not None:
                copies = len(keys) // 50
                source_rows = before[random.integers(0, len(before), copies)]
                vectors[:copies] = source_rows * (1 + 0.1 * random.standard_normal(source_rows.shape, np.float32))
            before = np.maximum(vectors, 0, out=vectors)
            values = pa.array(vectors.astype(np.float16).ravel())
            lists = pa.FixedSizeListArray.from_arrays(values, type=kind.schema.field("features").type)
            sizes = [pa.array(np.full(len(keys), side, np.int32)) for side in (640, 480)]
            shards.add(pa.RecordBatch.from_arrays([pa.array(keys), *sizes, lists], schema=kind.schema), keys, [])
        shards.finish()


def memory():
    """Return the peak of this process, MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def indexing(folder, _):
    from mobilenet_hub.search.features import Features
    from mobilenet_hub.search.index import open_index

    start = time.perf_counter()
    open_index(Features(folder))
    return time.perf_counter() - start, memory(), f"CPU {time.process_time():.1f} s"


def querying(folder, _, *, extra):
    from mobilenet_hub.search import codes, similar

    if not extra:
        codes.import_simsimd = lambda: None
    similar._SMALL = 0
    searcher = similar.Searcher(folder)
    queries = some_queries(searcher.features)
    times, found = [], []
    computed = time.process_time()
    for query in queries:
        start = time.perf_counter()
        found.append(searcher.nearest(query[np.newaxis], NEIGHBOURS)[0])
        times.append(time.perf_counter() - start)
    computed = (time.process_time() - computed) / len(queries)
    exact = similar.Searcher(folder, exact=True).nearest(queries, NEIGHBOURS)
    shared = [len({m.path for m in a} & {m.path for m in b}) / len(b) for a, b in zip(found, exact, strict=True)]
    took = f"fastest {min(times):.4f} s, CPU {computed:.4f} s"
    return float(np.median(times)), memory(), f"recall of {NEIGHBOURS}: {np.mean(shared):.4f}; {took}"


def some_queries(features):
    random = np.random.default_rng(2)
    rows = features.rows_of(random.integers(0, features.rows, QUERIES))
    return np.maximum(rows * (1 + 0.2 * random.standard_normal(rows.shape, np.float32)), 0)


def deduplicating(folder, threshold):
    from mobilenet_hub.search.dedupe import dedupe

    start = time.perf_counter()
    found = dedupe(folder, threshold=threshold)
    seconds = time.perf_counter() - start
    planted = (found.photos - SHARD) // 50
    copies = sum(len(group.others) for group in found)
    return seconds, memory(), f"{copies} copies found, about {max(planted, 0)} planted; CPU {time.process_time():.0f} s"


STEPS = {
    "index": indexing,
    "query, simsimd": lambda folder, threshold: querying(folder, threshold, extra=True),
    "query, NumPy": lambda folder, threshold: querying(folder, threshold, extra=False),
    "dedupe": deduplicating,
}


if __name__ == "__main__":
    main()
