"""TensorFlow Serving's REST interface, as its document "RESTful API" describes it: status, metadata, predict.

Signatures: "serving_default" gives the module's main output; the names of TF Hub's signatures work too. A tensor is a
batch of RGB in [0, 1] of the module's size; a picture is {"b64": "..."}.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mobilenet_hub.errors import InputError
from mobilenet_hub.images.load import check_batch
from mobilenet_hub.serve.batcher import Work
from mobilenet_hub.serve.body import json_object, kind_of, picture_of_base64
from mobilenet_hub.serve.limits import Answer, Refusal, json_answer
from mobilenet_hub.serve.own import bad_pictures, with_gaps
from mobilenet_hub.serve.served import FEATURES, LOGITS, Served
from mobilenet_hub.serve.state import Call

_QUICK_BYTES = 1 << 14
_SIGNATURES = {
    "image_classification": LOGITS,
    "image_feature_vector": FEATURES,
    "default": None,  # TF Hub's: the main output
    "serving_default": None,
}
LABEL = "stable"  # of TensorFlow Serving's documents
_KEYS = ("signature_name", "instances", "inputs")


def _served(call: Call) -> Served:
    """Return the module that the address names; of its one version, "stable" is the usual label."""
    label = call.path.get("label", LABEL)
    if label != LABEL:
        raise Refusal(
            404, f"there is no version label {label[:40]!r} here, only {LABEL!r}: each module has one version"
        )
    return call.served(call.path["name"], call.path.get("version"))


async def status(call: Call) -> Answer:
    """Answer GET /v1/models/NAME: whether it is there."""
    call.query()
    served = _served(call)
    state = {"version": served.version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    return json_answer({"model_version_status": [state]})


async def metadata(call: Call) -> Answer:
    """Answer GET /v1/models/NAME/metadata: its signatures."""
    call.query()
    served = _served(call)
    signatures = {
        name: _signature(served, output or served.main_output)
        for name, output in _SIGNATURES.items()
        if output is None or output in served.outputs
    }
    return json_answer(
        {
            "model_spec": {"name": served.name, "signature_name": "", "version": served.version},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }
    )


def _signature(served: Served, output: str) -> dict[str, Any]:
    return {
        "inputs": {"images": _tensor("images", [-1, *served.image_size, 3])},
        "outputs": {output: _tensor(output, [-1, served.width(output)])},
        "method_name": "tensorflow/serving/predict",
    }


def _tensor(name: str, shape: Sequence[int]) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in shape]  # int64 is a string in protobuf's JSON
    return {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": f"{name}:0"}


async def predict(call: Call) -> Answer:
    """Answer POST /v1/models/NAME:predict, in row format (`instances`) or column format (`inputs`)."""
    call.query()
    served = _served(call)
    body = await call.body()
    state = call.state
    output, rows, images = await state.in_thread(
        lambda: _read(served, body, state.check_size), quick=len(body) < _QUICK_BYTES
    )
    call.images = len(images)
    work = Work(served, (output,), make=partial(_predictions, output, rows, len(images)))
    if isinstance(images, np.ndarray):
        return await state.batch(work, images)
    return await state.pictures(work, images)


def _read(
    served: Served, body: bytes, check_size: Callable[[int], None]
) -> tuple[str, bool, "np.ndarray | list[bytes]"]:
    """Return the output that is asked for, whether in rows, and the images: a checked batch, or files."""
    asked = json_object(body)
    if unknown := sorted(asked.keys() - set(_KEYS)):
        raise Refusal(400, f"{unknown[0][:80]!r} has no meaning here; known: {', '.join(_KEYS)}")
    if ("instances" in asked) == ("inputs" in asked):
        raise Refusal(400, 'give either "instances" (a list with one entry for each image) or "inputs" (a batch)')
    rows = "instances" in asked
    key = "instances" if rows else "inputs"
    output = _output(served, asked.get("signature_name"))
    value = asked[key]
    if rows:
        if not isinstance(value, list):
            raise Refusal(400, f'"instances" must be a list with one entry for each image, not {kind_of(value)}')
        check_size(len(value))
        value = [_only(entry, f"instance {index}") for index, entry in enumerate(value)]
    else:
        value = _only(value, '"inputs"')
        if isinstance(value, dict):
            value = [value]  # one picture without a list around it
    if not isinstance(value, list):
        raise Refusal(400, f"{key!r} must hold images, not {kind_of(value)}")
    if not value:
        raise Refusal(400, f"{key!r} holds no image")
    check_size(len(value))
    which = "instance" if rows else "input"
    if any(isinstance(entry, dict) for entry in value):
        return output, rows, [_picture(entry, f"{which} {index}") for index, entry in enumerate(value)]
    return output, rows, _batch(value, key, served.image_size)


def _output(served: Served, signature: Any) -> str:
    if signature is None or signature == "":
        return served.main_output
    known = [name for name, output in _SIGNATURES.items() if output is None or output in served.outputs]
    if not isinstance(signature, str) or signature not in known:
        raise Refusal(
            400, f"module {served.name!r} has no signature {str(signature)[:80]!r}; it has {', '.join(known)}"
        )
    return _SIGNATURES[signature] or served.main_output


def _only(value: Any, which: str) -> Any:
    """Return the value of a named input, whatever its name: there is one input, and every exporter named it anew."""
    if not isinstance(value, dict) or "b64" in value:
        return value
    if len(value) != 1:
        raise Refusal(400, f'{which} must have one input, "images", and has {len(value)}')
    return next(iter(value.values()))


def _picture(entry: Any, which: str) -> bytes:
    if not isinstance(entry, dict) or entry.keys() != {"b64"}:
        raise Refusal(400, f'{which} must be a picture, {{"b64": "..."}}, as others here are, not {kind_of(entry)}')
    return picture_of_base64(entry["b64"], which)


def _batch(value: list[Any], key: str, size: tuple[int, int]) -> np.ndarray:
    if isinstance(value[0], str):
        raise Refusal(400, f'{key!r} holds text; a picture is written {{"b64": "..."}}')
    try:
        return check_batch(number_array(value, repr(key)), size)
    except InputError as error:
        raise Refusal(400, f"{key!r}: {error}") from None


def number_array(value: Any, which: str) -> np.ndarray:
    """Return nested lists of numbers as an array of floats.

    Raises:
        Refusal: 400: lists of different lengths, or something that is no number.

    Example:
        >>> number_array([[1, 2.5]], "x").tolist()
        [[1.0, 2.5]]
    """
    try:
        # As objects first: numpy would make room for the longest text at the place of every number.
        array = np.array(value, object)
    except ValueError as error:
        raise Refusal(400, f"{which}: the lists are not all of one length ({error})") from None
    kinds = set(map(type, array.reshape(-1).tolist()))
    if list in kinds:
        raise Refusal(400, f"{which}: the lists are not all of one length, or are nested too deeply")
    if not kinds <= {int, float}:
        raise Refusal(400, f"{which} must hold numbers only")
    try:
        return array.astype(np.float32 if float not in kinds else np.float64)
    except OverflowError:
        raise Refusal(400, f"{which} holds a number that is beyond all bounds") from None


def _predictions(output: str, rows: bool, count: int, work: Work) -> Answer:
    failures = work.failures()
    values = work.output(output).tolist() if len(failures) < len(work.results) else []
    key = "predictions" if rows else "outputs"
    if failures:
        raise Refusal(400, bad_pictures(failures), more=with_gaps(failures, count, key, values))
    return json_answer({key: values})
