"""A bulk run on a Ray cluster: the driver hands out shards and commits them in order, any worker computes any shard.

A shard is a task, not an actor's turn: Ray runs a task again wherever there is room when its worker or node dies, and
takes workers in that join later. What is dear, the compiled network, is kept by each worker process for all its tasks.
Nothing is finished but on the driver's disk, so that killing the driver costs what is under way and no more.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any

from mobilenet_hub.bulk.rows import Rows
from mobilenet_hub.bulk.shard_file import Encoder
from mobilenet_hub.errors import ImageError, InputError, MissingExtraError, MobileNetHubError
from mobilenet_hub.host.environment import set_variable
from mobilenet_hub.host.stores import where_stores_are
from mobilenet_hub.images.batches import compute
from mobilenet_hub.images.decode import read_bytes
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.in_store import read_object
from mobilenet_hub.images.inputs import Item, Root, refused
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.engine import Engine

if TYPE_CHECKING:
    from pyarrow import Schema

LOCAL = "local"  # a cluster of this machine alone, for this run
_AHEAD = 2  # shards under way for each that can be computed at once: one waits while another is computed
_LOOK_S = 5.0  # until it is asked whether a node has died
_KNOCK_S = 10.0  # for a cluster's address to answer
_MAX_HELD_BYTES = 1 << 30  # of pictures that no worker can read by itself


@dataclass(frozen=True)
class Job:
    """What a worker needs to compute a shard."""

    engine: Engine  # pickled as what it was opened with; every worker compiles it once
    rows: Rows
    preprocessing: Preprocessing
    schema: "Schema"  # with the settings as its metadata
    stores: Mapping[str, str] = field(default_factory=dict)  # variables that say where object stores are, no secrets


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
        threads = job.engine.threads or _smallest_node(ray)
        room = _room(ray, threads)
        task = ray.remote(num_cpus=threads, max_retries=-1, retry_exceptions=False)(_compute_shard)
        shared = ray.put(replace(job, engine=job.engine.with_threads(threads), stores=where_stores_are()))
        pending: deque[_Pending] = deque()
        stream = iter(items)
        while group := list(islice(stream, shard_size)):
            portable = [_portable(item) for item in group]
            roots = {item.root for item in group if item.root is not None}
            held = sum(item.held for item in portable)
            submit = partial(task.remote, shared, ray.put(portable))
            del portable
            pending.append(_Pending(submit(), submit, _alive(ray), roots, held))
            while len(pending) > _AHEAD * room or sum(one.held for one in pending) > _MAX_HELD_BYTES:
                yield _result(ray, pending.popleft())
        while pending:
            yield _result(ray, pending.popleft())
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    set_variable("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray", "computing on a Ray cluster") from None
    try:
        _knock(address)
        ray.init(
            address=address,  # without one Ray would join a cluster that happens to run on this machine
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({str(error).splitlines()[0]}): start one with `ray start --head`, "
            "or leave the address out to use this machine alone; one that demands a token is joined with "
            "RAY_AUTH_MODE=token"
        ) from None
    return ray


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _KNOCK_S).close()


def _alive(ray: Any) -> frozenset[str]:
    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


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
    """Return an item that another process can read: files and objects by name, the rest with its bytes."""
    if isinstance(item.read, partial) and item.read.func is read_bytes:
        return Item(item.key, partial(read_bytes, os.path.abspath(*item.read.args)))
    if isinstance(item.read, partial) and item.read.func is read_object:
        return item
    try:
        data = item.read()
    except ImageError as error:
        return refused(item.key, error.reason)
    return Item(item.key, partial(bytes, data), held=len(data))


@dataclass(frozen=True)
class _Pending:
    """A shard under way."""

    reference: Any
    submit: Callable[[], Any]  # hands it out once more
    nodes: frozenset[str]  # that were alive when it was handed out
    roots: set[Root]  # the folders that its inputs were found in
    held: int  # bytes that were handed out with it


def _result(ray: Any, pending: _Pending) -> Finished:
    reference, nodes = pending.reference, pending.nodes
    try:
        # A node whose network is cut says nothing: Ray declares it dead, and waits minutes for what it was computing.
        while not ray.wait([reference], timeout=_LOOK_S)[0]:
            if nodes - (alive := _alive(ray)):
                reference, nodes = pending.submit(), alive
        finished = ray.get(reference)
        if finished.skipped:  # only here is known which folder it was
            for root in pending.roots:
                root.demand()
        return finished
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, MobileNetHubError):
            raise cause from None
        raise InputError(f"a worker of the cluster failed: {cause}") from error
    except ray.exceptions.RayError as error:
        raise InputError(f"the Ray cluster gave up: {str(error).splitlines()[0]}") from error


_READY: dict[str, Job] = {}  # in a worker: the job that it has compiled, by the driver that handed it out


def _compute_shard(job: Job, items: list[Item]) -> Finished:
    import ray

    for name, value in job.stores.items():
        set_variable(name, value)
    driver = ray.get_runtime_context().get_job_id()
    if driver not in _READY:
        _READY[driver] = job
    job = _READY[driver]
    content = BytesIO()
    encoder = Encoder(content, job.schema)
    for batch, values in compute(items, job.engine, job.rows.output, job.preprocessing):
        encoder.add(job.rows.make(batch, values), len(batch.inputs), batch.skipped)
    encoder.close()
    return Finished(content.getvalue(), encoder.inputs, encoder.rows, encoder.skipped)
