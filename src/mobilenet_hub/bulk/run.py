"""A collection of any size through a module into a table: decoding, inference, shards, and the one file at the end."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from mobilenet_hub.bulk.manifest import (
    DEFAULT_SHARD_SIZE,
    MANIFEST_FILE,
    WHOLE,
    Part,
    add_key,
    as_text,
    refuse_other_settings,
)
from mobilenet_hub.bulk.rows import Rows
from mobilenet_hub.bulk.shards import Shards, discard_leftovers
from mobilenet_hub.bulk.single_file import (
    assemble,
    check_places,
    endings,
    is_label_text,
    is_single_file,
    settings_of,
    shards_of,
    skipped_of,
)
from mobilenet_hub.errors import ImageError, InputError, OutputError
from mobilenet_hub.host.files import exists, is_folder
from mobilenet_hub.host.object_path import ObjectPath, Place, place_of
from mobilenet_hub.host.progress import OnProgress, Stage, silent
from mobilenet_hub.host.stores import StoreError
from mobilenet_hub.images.batches import Computes, compute
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.inputs import Item, items
from mobilenet_hub.images.skipped import Skipped

_STAGE = Stage("images", "image")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a bulk run has done."""

    output: Place
    rows: int
    skipped: int
    skipped_file: Place | None  # None where nothing was skipped
    resumed: int  # inputs that an earlier run had done
    passed_over: Mapping[str, int] = field(default_factory=dict)  # files in folders that are no pictures, by suffix


@dataclass(frozen=True, slots=True)
class Plan:
    """What of the inputs is done, and in which pieces."""

    limit: int | None = None  # take only this many inputs
    shard_size: int = DEFAULT_SHARD_SIZE  # inputs of a shard
    strict: bool = False  # stop at the first input that is no picture
    part: Part = WHOLE  # compute only these shards of it, for `merge` to put together with the others
    cluster: str | None = None  # the address of a Ray cluster that computes, "local" for one of this machine alone

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing.

        Raises:
            InputError: the limit or the shard size is below 1.
        """
        for name, number in (("limit", self.limit), ("shard size", self.shard_size)):
            if number is not None and number < 1:
                raise InputError(f"the {name} must be 1 or more, not {number}")


def write(
    inputs: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    engine: Computes,
    rows: Rows,
    settings: dict[str, Any],
    *,
    preprocessing: Preprocessing,
    plan: Plan = Plan(),
    on_progress: OnProgress = silent,
) -> Summary:
    """Compute the rows of all inputs, in their order, into a folder of shards or one file; go on if it was begun.

    Args:
        inputs: as for `items`; gone through more than once.
        output: a name without suffix, or with / at its end, is a folder with part-00000.parquet, ..., manifest.json
            and skipped.csv; a name ending in .parquet, .npy (with a .index.parquet beside it), .csv or .jsonl is one
            file, put together at the end from shards kept beside it until then, with OUTPUT.skipped.csv if anything
            was skipped.
        engine: what computes.
        rows: what to make of its output.
        settings: whatever else the rows depend on; kept in the schema's metadata, and not to be changed when going on.
        preprocessing: how pictures become the engine's input.
        plan: what of the inputs is done, and in which pieces.
        on_progress: told how many inputs are done with; how many there are is not known here.

    Raises:
        ImageError: an input is no picture, and the plan is strict; what was finished is kept.
        InputError: the output was begun with other settings or inputs, or a folder vanished while it was read.
        OutputError: the output cannot be written; what was finished is kept.
    """
    is_file = is_single_file(output)
    place = place_of(output)
    _check(place, rows, is_file=is_file)
    if is_file:
        check_places(place)
    settings = {**settings, "fit": preprocessing.fit, "limit": plan.limit, "shard_size": plan.shard_size}
    folder = shards_of(place) if is_file else place
    if is_file and exists(place) and not exists(folder / MANIFEST_FILE):
        done = _finished_before(place, settings, islice(items(inputs, lambda number: False), plan.limit))
        discard_leftovers(folder)  # of a run that was killed while it tidied up
        if done is not None:
            return done
    passed_over: Counter[str] = Counter()
    with Shards(folder, settings, rows.schema, plan.part) as shards:
        resumed = done = shards.inputs
        stream = shards.remaining(islice(items(inputs, shards.wants, passed_over), plan.limit))
        on_progress(_STAGE, resumed, None)
        for inputs_done, first_skipped in _computed(stream, shards, engine, rows, preprocessing, plan):
            if plan.strict and first_skipped:
                raise ImageError(first_skipped.reason, first_skipped.name)
            done += inputs_done
            on_progress(_STAGE, done, None)
        shards.finish()
        skipped_file = shards.skipped_file
        if is_file and plan.part == WHOLE:
            skipped_file = assemble(shards, place, rows.schema, settings)
        skipped_file = skipped_file if shards.skipped else None
        return Summary(place, shards.rows, shards.skipped, skipped_file, resumed, dict(passed_over))


def _computed(
    stream: Iterator[Item], shards: Shards, engine: Computes, rows: Rows, preprocessing: Preprocessing, plan: Plan
) -> Iterator[tuple[int, Skipped | None]]:
    """Compute here or on a cluster, into the shards; yield how many inputs were done, and the first bad one of them.

    A bad one is told before it counts as done.
    """
    if plan.cluster is not None:
        from mobilenet_hub.bulk.distributed import Job, on_cluster
        from mobilenet_hub.inference.engine import Engine

        if not isinstance(engine, Engine):
            raise InputError("what is quantized on one machine cannot be handed out to a cluster")
        job = Job(engine, rows, preprocessing, shards.schema)
        for shard in on_cluster(stream, job, plan.shard_size, plan.cluster):
            if plan.strict and shard.skipped:
                yield 0, shard.skipped[0]
            shards.commit(shard.content, shard.inputs, shard.rows, shard.skipped)
            yield shard.inputs, None
        return
    for batch, values in compute(stream, engine, rows.output, preprocessing, shard_size=plan.shard_size):
        if plan.strict and batch.skipped:
            yield 0, batch.skipped[0]
        shards.add(rows.make(batch, values), batch.inputs, batch.skipped)
        yield len(batch.inputs), None


def _check(output: Place, rows: Rows, *, is_file: bool) -> None:
    if is_file and output.suffix.lower() not in endings(rows):
        raise InputError(
            f"{output}: the name must end in {', '.join(endings(rows))}, or be that of a folder, with / at its end"
        )
    if is_file and is_folder(output):
        raise InputError(f"{output} is a folder; a name ending in {output.suffix} is a file: choose another")
    if not isinstance(output, ObjectPath) and not is_folder(output.absolute().parent):
        raise OutputError(
            f"{output}: the folder {output.absolute().parent} does not exist, or one may not look there; make it first"
        )


def _finished_before(output: Place, settings: dict[str, Any], stream: Iterator[Item]) -> Summary | None:
    """Return what the finished file holds; None where it is text, which cannot tell and is made again."""
    from pyarrow import ArrowException

    foreign = InputError(f"{output} is there already, and not from this command; choose another name")
    if output.suffix.lower() in (".csv", ".jsonl"):
        if not is_label_text(output):
            raise foreign
        return None
    try:
        made_with = settings_of(output)
        rows, skipped = int(made_with.pop("rows")), int(made_with.pop("skipped"))
        digest_before = made_with.pop("keys_sha256")
    except StoreError:
        raise
    except (ArrowException, OSError, KeyError, ValueError):
        raise foreign from None
    refuse_other_settings(output, made_with, as_text(settings))
    digest = hashlib.sha256()
    for item in stream:
        add_key(digest, item.key)
    if digest.hexdigest() != digest_before:
        raise InputError(f"{output} is there already, made of other inputs; choose another name, or delete it")
    return Summary(output, rows, skipped, skipped_of(output) if skipped else None, rows + skipped)
