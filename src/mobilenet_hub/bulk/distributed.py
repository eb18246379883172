"""A bulk run on a Ray cluster: the driver hands out shards and commits them in order, any worker computes any shard.

A shard is a task, not an actor's turn: Ray runs a task again wherever there is room when its worker or node dies, and
takes workers in that join later. What is dear, the compiled network, is kept by each worker process for all its tasks.
Nothing is finished but on the driver's disk, so that killing the driver costs what is under way and no more.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any

from mobilenet_hub.bulk.rows import Rows
from mobilenet_hub.bulk.shard_file import Encoder
from mobilenet_hub.errors import ImageError, InputError, MissingExtraError, MobileNetHubError
from mobilenet_hub.images.batches import Computes, compute
from mobilenet_hub.images.decode import read_bytes
from mobilenet_hub.images.inputs import Item
from mobilenet_hub.images.skipped import Skipped

if TYPE_CHECKING:
    from pyarrow import Schema

LOCAL = "local"  # a cluster of this machine alone, for this run
_AHEAD = 2  # shards under way for each that can be computed at once: one waits while another is computed
_MAX_HELD_BYTES = 1 << 30  # of pictures that no worker can read by itself


@dataclass(frozen=True)
class Job:
    """What a worker needs to compute a shard; it is pickled once."""

    engine: Callable[[], Computes]
    rows: Callable[[], Rows]
    schema: "Schema"  # with the settings as its metadata
    threads: int | None  # of a worker; None: all of the smallest node's


@dataclass(frozen=True)
class Finished:
    """A shard that was computed somewhere."""

    content: bytes
    inputs: int
    rows: int
    skipped: list[Skipped]


def on_cluster(items: Iterable[Item], job: Job, shard_size: int, address: str = LOCAL) -> Iterator[Finished]:
    """Yield the shards of the items, in their order, computed by the workers of a cluster.

    Args:
        items: the inputs; what is a file on a disk that all machines share is read by the workers, the rest here.
        job: what computes them.
        shard_size: inputs of a shard.
        address: of a running cluster, as `ray.init` takes it; "local": one of this machine, for this run alone.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: no cluster answers there, or it has no room for a worker; or as the computing raises.
    """
    ray = _connected(address)
    try:
        threads = job.threads or _smallest_node(ray)
        room = _room(ray, threads)
        task = ray.remote(num_cpus=threads, max_retries=-1, retry_exceptions=False)(_compute_shard)
        shared = ray.put(job)
        pending: deque[tuple[Any, int]] = deque()
        stream = iter(items)
        while group := [_portable(item) for item in islice(stream, shard_size)]:
            pending.append((task.remote(shared, group, threads), sum(item.held for item in group)))
            while len(pending) > _AHEAD * room or sum(held for _, held in pending) > _MAX_HELD_BYTES:
                yield _result(ray, pending.popleft()[0])
        while pending:
            yield _result(ray, pending.popleft()[0])
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "computing on a Ray cluster") from None
    try:
        ray.init(
            address=None if address == LOCAL else address,
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level="error",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({str(error).splitlines()[0]}): start one with `ray start --head`, "
            "or leave the address out to use this machine alone"
        ) from None
    return ray


def _nodes(ray: Any) -> list[int]:
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def _smallest_node(ray: Any) -> int:
    return max(1, min((cores for cores in _nodes(ray) if cores), default=1))


def _room(ray: Any, threads: int) -> int:
    """Return how many shards can be computed at once."""
    nodes = _nodes(ray)
    room = sum(cores // threads for cores in nodes)
    if not room:
        raise InputError(
            f"no node of the cluster has {threads} free cores for one worker (they have "
            f"{', '.join(map(str, nodes)) or 'none'}): ask for fewer threads"
        )
    return room


def _portable(item: Item) -> Item:
    """Return an item that another process can read: a file by its path, anything else with its bytes."""
    if isinstance(item.read, partial) and item.read.func is read_bytes:
        return item
    try:
        data = item.read()
    except ImageError as error:
        return replace(item, read=partial(_refuse, error.reason), held=0)
    return replace(item, read=partial(bytes, data), held=len(data))


def _refuse(reason: str) -> bytes:
    raise ImageError(reason)


def _result(ray: Any, reference: Any) -> Finished:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, MobileNetHubError):
            raise cause from None
        raise InputError(f"a worker of the cluster failed: {cause}") from error
    except ray.exceptions.RayError as error:
        raise InputError(f"the Ray cluster gave up: {str(error).splitlines()[0]}") from error


_READY: dict[bytes, tuple[Computes, Rows]] = {}  # in a worker: by job, what computes it


def _compute_shard(job: Job, items: list[Item], threads: int) -> Finished:
    import ray

    key = ray.get_runtime_context().get_job_id().encode()
    if key not in _READY:
        _READY.clear()
        _READY[key] = (job.engine(), job.rows())
    engine, rows = _READY[key]
    content = BytesIO()
    encoder = Encoder(content, job.schema)
    for batch, values in compute(items, engine, rows.output):
        encoder.add(rows.make(batch, values), len(batch.inputs), batch.skipped)
    encoder.close()
    return Finished(content.getvalue(), encoder.inputs, encoder.rows, encoder.skipped)
