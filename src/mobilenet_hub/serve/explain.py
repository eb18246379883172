"""`POST /classify?explain=N`: beside the labels, what spoke for the first N of them, as numbers and as a picture.

It is one more output of the engine and some drawing; a request that does not ask for it pays nothing.
"""

from collections.abc import Sequence
from typing import Any

from mobilenet_hub.errors import InputError
from mobilenet_hub.evaluation.explained import PAGE_SIZE, place
from mobilenet_hub.evaluation.page import jpeg
from mobilenet_hub.inference.explain import Explanation
from mobilenet_hub.serve.batcher import IMAGES, Work
from mobilenet_hub.serve.limits import Refusal
from mobilenet_hub.serve.served import LOGITS, Outputs, Served
from mobilenet_hub.serve.state import Call

MOST_CLASSES = 5  # of a picture; each is drawn
MOST_PICTURES = 16  # of a request


async def outputs(call: Call, served: Served, pictures: int) -> Outputs:
    """Return what must be computed of so many pictures: the logits and the last feature maps.

    Raises:
        Refusal: 422: more pictures than are explained at a time, or a module that cannot be explained.
    """
    if pictures > MOST_PICTURES:
        text = f"explain: {pictures} pictures in one request, and at most {MOST_PICTURES} are explained"
        raise Refusal(422, f"{text}: send fewer at a time")
    try:
        explainer = await call.state.in_thread(served.explainer)
    except InputError as error:
        raise Refusal(422, f"explain: {error}") from None
    return LOGITS, explainer.feature_map


def explanations(work: Work, names: Sequence[str], classes: int) -> list[list[dict[str, Any]]]:
    """Return what spoke for the likeliest classes of each picture that could be read.

    Args:
        work: of these outputs, done, with the images kept; at least one picture could be read.
        names: of the pictures that could be read.
        classes: how many of each picture.
    """
    explainer = work.served.explainer()
    outputs = {name: work.output(name) for name in (LOGITS, explainer.feature_map)}
    found = explainer.explained(names, work.output(IMAGES), outputs, classes)
    return [[_as_json(one, rank) for rank in range(len(one.labels))] for one in found]


def _as_json(explanation: Explanation, rank: int) -> dict[str, Any]:
    return {
        "label": explanation.labels[rank],
        "index": explanation.indices[rank],
        "logit": explanation.logits[rank],
        "bias": explanation.biases[rank],
        "map": explanation.maps[rank].tolist(),
        "rows": explanation.rows.tolist(),
        "columns": explanation.columns.tolist(),
        "where": place(explanation.heat(rank)),
        "picture": f"data:image/jpeg;base64,{jpeg(explanation.overlay(rank), PAGE_SIZE)}",
    }
