"""The Open Inference Protocol, version 2, over HTTP (KServe, Triton, ...), with its binary tensor data extension.

Inputs: FP32 `images` [n, height, width, 3] in [0, 1] of the module's size; UINT8 `images` [n, height, width, 3] of any
size; BYTES `pictures` [n], files (as base64 where the tensor stands in the JSON). Outputs: `logits`, `features`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from mobilenet_hub.errors import InputError
from mobilenet_hub.images.load import check_batch
from mobilenet_hub.serve.batcher import Work
from mobilenet_hub.serve.body import json_object, kind_of, picture_of_base64
from mobilenet_hub.serve.limits import Answer, Refusal, json_answer
from mobilenet_hub.serve.own import bad_pictures
from mobilenet_hub.serve.served import Outputs, Served
from mobilenet_hub.serve.state import Call
from mobilenet_hub.serve.tensorflow_serving import number_array
from mobilenet_hub.version import __version__

HEADER_LENGTH = "Inference-Header-Content-Length"
_QUICK_BYTES = 1 << 14
_LENGTH_BYTES = 4  # before each element of a BYTES tensor
_WANTED = "FP32 or UINT8 `images` [n, height, width, 3], or BYTES `pictures` [n]"


async def server(call: Call) -> Answer:
    """Answer GET /v2: what this is."""
    call.query()
    return json_answer({"name": "mobilenet-hub", "version": __version__, "extensions": ["binary_tensor_data"]})


async def live(call: Call) -> Answer:
    """Answer GET /v2/health/live."""
    return json_answer({"live": True})


async def ready(call: Call) -> Answer:
    """Answer GET /v2/health/ready: 503 from the moment that the server is told to end."""
    is_ready = not call.state.draining
    return json_answer({"ready": is_ready}, 200 if is_ready else 503)


async def model(call: Call) -> Answer:
    """Answer GET /v2/models/NAME: its tensors."""
    call.query()
    served = call.served(call.path["name"], call.path.get("version"))
    return json_answer(
        {
            "name": served.name,
            "versions": [served.version],
            "platform": "mobilenet-hub",
            "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, *served.image_size, 3]}],
            "outputs": [{"name": n, "datatype": "FP32", "shape": [-1, served.width(n)]} for n in served.outputs],
            "parameters": {"weights_sha256": served.weights_sha256, "inputs": _WANTED},
        }
    )


async def model_ready(call: Call) -> Answer:
    """Answer GET /v2/models/NAME/ready."""
    served = call.served(call.path["name"], call.path.get("version"))
    is_ready = not call.state.draining
    return json_answer({"name": served.name, "ready": is_ready}, 200 if is_ready else 503)


@dataclass(frozen=True, slots=True)
class _Asked:
    """An inference request, read and checked."""

    images: "np.ndarray | list[Any]"  # a float32 batch, or files and uint8 pictures
    outputs: Outputs
    binary: frozenset[str]  # the outputs that go back as bytes
    id: str | None


async def infer(call: Call) -> Answer:
    """Answer POST /v2/models/NAME/infer."""
    call.query()
    served = call.served(call.path["name"], call.path.get("version"))
    body = await call.body()
    state = call.state
    header = call.headers.get(HEADER_LENGTH.lower())
    asked = await state.in_thread(lambda: _read(served, body, header, state.check_size), quick=len(body) < _QUICK_BYTES)
    call.images = len(asked.images)
    together = tuple(name for name in served.outputs if name in asked.outputs)  # one engine, whatever their order
    work = Work(served, together, make=partial(_answer, asked))
    if isinstance(asked.images, np.ndarray):
        return await state.batch(work, asked.images)
    return await state.pictures(work, asked.images)


def _read(served: Served, body: bytes, header: str | None, check_size: Callable[[int], None]) -> _Asked:
    length = _header_length(header, len(body))
    asked = json_object(body[:length])
    binary = memoryview(body)[length:]
    inputs = asked.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise Refusal(400, f'"inputs" must be a list of one tensor: {_WANTED}')
    images = _images(inputs[0], binary, served.image_size, check_size)
    id_ = asked.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise Refusal(400, f'"id" must be a string, not {kind_of(id_)}')
    all_binary = _flag(asked.get("parameters"), "binary_data_output", "the request")
    outputs, as_bytes = _outputs(served, asked.get("outputs"), all_binary)
    return _Asked(images, outputs, as_bytes, id_)


def _header_length(header: str | None, size: int) -> int:
    if header is None:
        return size
    if not header.isascii() or not header.isdigit() or len(header) > 12 or int(header) > size:
        raise Refusal(400, f"{HEADER_LENGTH} must be at most the body's {size} bytes, not {header[:40]!r}")
    return int(header)


def _images(
    tensor: Any, binary: memoryview, wanted: tuple[int, int], check_size: Callable[[int], None]
) -> "np.ndarray | list[Any]":
    if not isinstance(tensor, dict):
        raise Refusal(400, f"an input must be an object with name, shape, datatype and data, not {kind_of(tensor)}")
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    known = {("images", "FP32"), ("images", "UINT8"), ("pictures", "BYTES")}
    if not isinstance(name, str) or not isinstance(datatype, str) or (name, datatype) not in known:
        raise Refusal(400, f"the input {str(name)[:80]!r} of {str(datatype)[:40]!r} is not known; give {_WANTED}")
    if not isinstance(shape, list) or not _is_shape(shape):
        raise Refusal(400, f"the shape of {name!r} must be a list of whole numbers from 1, e.g. [1, 224, 224, 3]")
    parameters = tensor.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise Refusal(400, f'"parameters" of {name!r} must be an object, not {kind_of(parameters)}')
    size = (parameters or {}).get("binary_data_size")
    if size is None and len(binary):
        raise Refusal(400, f"{len(binary)} bytes follow the JSON, and {name!r} has no binary_data_size")
    if size is not None and size != len(binary):
        raise Refusal(400, f"binary_data_size of {name!r} is {str(size)[:40]}, and {len(binary)} bytes follow the JSON")
    if size is not None and "data" in tensor:
        raise Refusal(400, f"{name!r} has both data and binary_data_size; give one")
    if size is None and not isinstance(tensor.get("data"), list):
        raise Refusal(400, f"{name!r} needs data, a list, or binary_data_size")
    data = tensor.get("data")
    if datatype == "BYTES":
        return _files(data, binary, shape, check_size)
    values = _values(data, binary, datatype, shape)
    check_size(shape[0])
    if datatype == "UINT8":
        return list(values)
    try:
        return check_batch(values, wanted)
    except InputError as error:
        raise Refusal(400, f"`images`: {error}") from None


def _is_shape(shape: list[Any]) -> bool:
    return 1 <= len(shape) <= 8 and all(
        isinstance(side, int) and not isinstance(side, bool) and 1 <= side < 1 << 31 for side in shape
    )


def _files(data: Any, binary: memoryview, shape: list[int], check_size: Callable[[int], None]) -> list[bytes]:
    count = prod(shape)
    if data is None:
        files = _elements(binary, count, check_size)
    else:
        texts = data
        while len(texts) == 1 and isinstance(texts[0], list):  # [[...]] of shape [1, n] or [n, 1]
            texts = texts[0]
        texts = [text[0] if isinstance(text, list) and len(text) == 1 else text for text in texts]
        if len(texts) != count:
            raise Refusal(400, f"`pictures` of shape {shape} must hold {count} files, not {len(texts)}")
        check_size(count)
        files = [picture_of_base64(text, f"picture {index}") for index, text in enumerate(texts)]
    return files


def _elements(binary: memoryview, count: int, check_size: Callable[[int], None]) -> list[bytes]:
    if count * _LENGTH_BYTES > len(binary):
        raise Refusal(400, f"`pictures` must hold {count} files, and {len(binary)} bytes cannot hold so many")
    check_size(count)
    files, position = [], 0
    while position < len(binary):
        if len(files) == count:
            raise Refusal(400, f"`pictures` must hold {count} files, and {len(binary) - position} bytes follow them")
        start = position + _LENGTH_BYTES
        length = int.from_bytes(binary[position:start], "little")
        if start + length > len(binary):
            raise Refusal(400, f"`pictures`: element {len(files)} claims {length} bytes, more than are left")
        files.append(bytes(binary[start : start + length]))
        position = start + length
    if len(files) != count:
        raise Refusal(400, f"`pictures` must hold {count} files, not {len(files)}")
    return files


def _values(data: Any, binary: memoryview, datatype: str, shape: list[int]) -> np.ndarray:
    """Return the numbers of `images` in their shape; of UINT8 as uint8."""
    if len(shape) != 4 or shape[3] != 3:
        raise Refusal(400, f"`images` must be [n, height, width, 3], RGB, not {shape}")
    item = 4 if datatype == "FP32" else 1
    if data is None:
        if len(binary) != prod(shape) * item:
            raise Refusal(400, f"`images` {datatype} {shape} takes {prod(shape) * item} bytes, not {len(binary)}")
        values = np.frombuffer(binary, "<f4" if datatype == "FP32" else np.uint8)
    else:
        values = number_array(data, "`images`").reshape(-1)
        if values.size != prod(shape):
            raise Refusal(400, f"`images` of shape {shape} must hold {prod(shape)} numbers, not {values.size}")
    values = values.reshape(shape)
    if datatype == "FP32" or data is None:
        return values
    if not (np.isfinite(values).all() and (values == np.clip(values, 0, 255).astype(int)).all()):
        raise Refusal(400, "`images` of UINT8 must hold whole numbers from 0 to 255")
    return values.astype(np.uint8)


def _outputs(served: Served, asked: Any, all_binary: bool) -> tuple[Outputs, frozenset[str]]:
    """Return the outputs that are asked for, all where none is named, and those that go back as bytes."""
    if asked is None or asked == []:
        return served.outputs, frozenset(served.outputs if all_binary else ())
    if not isinstance(asked, list) or not all(isinstance(output, dict) for output in asked):
        raise Refusal(400, '"outputs" must be a list of objects with a name')
    names, binary = [], set()
    for output in asked:
        name = output.get("name")
        if name not in served.outputs:
            raise Refusal(
                400, f"module {served.name!r} has no output {str(name)[:80]!r}; it has {', '.join(served.outputs)}"
            )
        if name in names:
            raise Refusal(400, f"the output {name!r} is asked for twice")
        names.append(name)
        parameters = output.get("parameters")
        if isinstance(parameters, dict) and "classification" in parameters:
            raise Refusal(400, "the classification extension is not known; ask for logits, or use POST /classify")
        own = isinstance(parameters, dict) and "binary_data" in parameters
        if _flag(parameters, "binary_data", f"the output {name!r}") if own else all_binary:
            binary.add(name)
    return tuple(names), frozenset(binary)


def _flag(parameters: Any, name: str, owner: str) -> bool:
    if parameters is None:
        return False
    if not isinstance(parameters, dict):
        raise Refusal(400, f'"parameters" of {owner} must be an object, not {kind_of(parameters)}')
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise Refusal(400, f"{name} of {owner} must be true or false, not {kind_of(value)}")
    return value


def _answer(asked: _Asked, work: Work) -> Answer:
    if work.failures():
        raise Refusal(400, bad_pictures(work.failures()))
    tensors, parts = [], []
    for name in asked.outputs:
        values = work.output(name)
        tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if name in asked.binary:
            data = values.astype("<f4", copy=False).tobytes()
            tensor["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            tensor["data"] = values.reshape(-1).tolist()
        tensors.append(tensor)
    about = {"model_name": work.served.name, "model_version": work.served.version}
    if asked.id is not None:
        about["id"] = asked.id
    answer = json_answer({**about, "outputs": tensors})
    if not parts:
        return answer
    length = str(len(answer.body))
    return Answer(
        b"".join([answer.body, *parts]), content_type="application/octet-stream", headers={HEADER_LENGTH: length}
    )
