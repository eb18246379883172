"""Our own requests: pictures in, labels or features out."""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np

from mobilenet_hub.serve import explain
from mobilenet_hub.serve.batcher import INDICES, SCORES, Work
from mobilenet_hub.serve.limits import Answer, Refusal, json_answer
from mobilenet_hub.serve.served import FEATURES, LOGITS, Served
from mobilenet_hub.serve.state import ONE, Call, whole_number

DEFAULT_TOP = 5
MOST_ASKED = 1_000_000  # classes; there are never so many
MOST_NEIGHBOURS = 1000
NPY = "application/x-npy"


async def classify(call: Call) -> Answer:
    """Answer POST /classify: the likeliest classes of each picture."""
    served, top, explained = _asked(call)
    pictures = await call.pictures()
    call.images = len(pictures)
    names, files = [name for name, _ in pictures], [data for _, data in pictures]
    if explained:
        outputs = await explain.outputs(call, served, len(pictures))
        make = partial(_labels, names, explained=explained)
        return await call.state.pictures(Work(served, outputs, top=top, keep_images=True, make=make), files)
    return await call.state.pictures(_labelling(served, top, names), files)


def classify_one(call: Call) -> Work | None:
    """Return the work of POST /classify with one picture, where the network is all that it needs."""
    served, top, explained = _asked(call)
    return None if explained else _labelling(served, top, [ONE])


async def embed(call: Call) -> Answer:
    """Answer POST /embed: the feature vector of each picture."""
    served = call.served(call.query("module").get("module"))
    pictures = await call.pictures()
    call.images = len(pictures)
    work = _embedding(call, served, [name for name, _ in pictures])
    return await call.state.pictures(work, [data for _, data in pictures])


def embed_one(call: Call) -> Work:
    """Return the work of POST /embed with one picture."""
    return _embedding(call, call.served(call.query("module").get("module")), [ONE])


def _asked(call: Call) -> tuple[Served, int, int]:
    """Return the module, how many classes to name, and how many of them to explain."""
    query = call.query("top", "module", "explain")
    top = whole_number(query.get("top", str(DEFAULT_TOP)), "top", MOST_ASKED)
    explained = whole_number(query["explain"], "explain", explain.MOST_CLASSES) if "explain" in query else 0
    served = call.served(query.get("module"))
    if served.classifier is None:
        raise Refusal(422, f"module {served.name!r} gives feature vectors and has no classifier: use /embed")
    return served, top, explained


def _labelling(served: Served, top: int, names: Sequence[str]) -> Work:
    return Work(served, (LOGITS,), top=top, make=partial(_labels, names))


def _embedding(call: Call, served: Served, names: Sequence[str]) -> Work:
    return Work(served, (FEATURES,), make=partial(_features, names, NPY in call.headers.get("accept", "")))


def _labels(names: Sequence[str], work: Work, explained: int = 0) -> Answer:
    assert work.served.classifier is not None
    labels = work.served.classifier.labels
    rows: list[dict[str, Any]] = []
    for name, result in zip(names, work.results, strict=True):
        if not isinstance(result, str):
            indices, scores = result[INDICES][0].tolist(), result[SCORES][0].tolist()
            rows.append({"name": name, "labels": [labels[i] for i in indices], "scores": scores, "indices": indices})
    if explained and rows:
        good = [row["name"] for row in rows]
        for row, found in zip(rows, explain.explanations(work, good, explained), strict=True):
            row["explanations"] = found
    return _answer(names, work, "predictions", rows)


def _features(names: Sequence[str], as_array: bool, work: Work) -> Answer:
    served = work.served
    good = len(work.failures()) < len(names)
    features = work.output(FEATURES) if good else np.empty((0, served.width(FEATURES)), np.float32)
    if as_array and not work.failures():
        stream = BytesIO()
        np.save(stream, features, allow_pickle=False)
        about = {"Mobilenet-Module": _plain(served.name), "Mobilenet-Weights-Sha256": served.weights_sha256}
        return Answer(stream.getvalue(), content_type=NPY, headers=about)
    return _answer(names, work, "features", features.tolist())


def _answer(names: Sequence[str], work: Work, key: str, rows: list[Any]) -> Answer:
    """Return the rows of the good pictures; with a bad one among them as an error that holds the others' rows too."""
    about = {"module": work.served.name, "weights_sha256": work.served.weights_sha256}
    failures = work.failures()
    if not failures:
        return json_answer({**about, key: rows})
    raise Refusal(400, bad_pictures(failures, names), more={**about, **with_gaps(failures, len(names), key, rows)})


def with_gaps(failures: Sequence[tuple[int, str]], count: int, key: str, rows: Sequence[Any]) -> dict[str, Any]:
    """Return the rows of the good pictures with null in the place of each bad one, and what was wrong with those.

    Example:
        >>> with_gaps([(1, "empty")], 3, "features", [[1.0], [2.0]])["features"]
        [[1.0], None, [2.0]]
    """
    bad = dict(failures)
    left = iter(rows)
    return {
        "errors": [{"index": index, "reason": reason} for index, reason in failures],
        key: [None if index in bad else next(left) for index in range(count)],
    }


def bad_pictures(failures: Sequence[tuple[int, str]], names: Sequence[str] | None = None) -> str:
    """Say which pictures could not be read, and why; of many the first few.

    Example:
        >>> bad_pictures([(1, "empty file (0 bytes)")], ["cat.jpg", "dog.jpg"])
        'picture 1 (dog.jpg): empty file (0 bytes)'
    """
    shown = [
        f"picture {index}{_named(names[index]) if names else ''}: {reason}" for index, reason in failures[:_MOST_NAMED]
    ]
    more = len(failures) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


_MOST_NAMED = 5


def _named(name: str) -> str:
    return "" if name.startswith("image ") else f" ({name[:200]})"


def _plain(name: str) -> str:
    """Return a name as a header can hold it."""
    return name.encode("unicode_escape").decode("ascii")
