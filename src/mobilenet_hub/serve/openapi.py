"""/openapi.json: the description of all that the server answers, made from what is served."""

from typing import Any

from mobilenet_hub.serve.explain import MOST_CLASSES, MOST_PICTURES
from mobilenet_hub.serve.limits import Limits
from mobilenet_hub.serve.own import DEFAULT_TOP, MOST_ASKED, MOST_NEIGHBOURS, NPY
from mobilenet_hub.serve.served import Modules
from mobilenet_hub.serve.tensorflow_serving import LABEL
from mobilenet_hub.version import __version__

Schema = dict[str, Any]
_NUMBERS: Schema = {"type": "array", "items": {"type": "number"}}
_ROWS: Schema = {"type": "array", "items": {"anyOf": [_NUMBERS, {"type": "null"}]}}
_TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
_REASONS = {
    400: "The body is not what it must be, or a picture cannot be read: its index and the reason.",
    401: "A token is needed.",
    403: "The page of another site asks, or the server is asked under a name that is not its own.",
    404: "No such module or version.",
    409: "A training is running.",
    408: "The body did not arrive in time.",
    411: "The body's length is missing.",
    413: "The body is too long, or holds more images than the queue.",
    415: "No Content-Type or Content-Encoding that is known.",
    422: "A parameter of the address means nothing.",
    501: "This installation cannot make the file.",
    507: "The teaching folder or its disk takes no more.",
    503: "The queue is full, or the server is ending; Retry-After says when to come again.",
}


def describe(modules: Modules, limits: Limits, *, similar: bool = False, teach: bool = False) -> Schema:
    """Return the OpenAPI 3.1 document.

    Args:
        modules: whose names and versions the addresses take.
        limits: what bodies and batches are bounded by.
        similar: whether there is an index of photos.
        teach: whether the page may teach.
    """
    names = sorted(modules.by_name)
    versions = sorted({served.version for served in modules.by_name.values()})
    name = _parameter("name", "path", {"type": "string", "enum": names}, required=True)
    version = _parameter("version", "path", {"type": "string", "enum": versions}, required=True)
    paths: dict[str, Schema] = {**_own(names, limits), **_plain()}
    if similar:
        paths["/similar"] = _similar(limits)
    if teach:
        paths.update(_teach(limits))
    label = _parameter("label", "path", {"type": "string", "enum": [LABEL]}, required=True)
    for part, more in (("", []), ("/versions/{version}", [version]), ("/labels/{label}", [label])):
        for path, item in _of_module().items():
            if part == "/labels/{label}" and not path.startswith("/v1/"):
                continue  # TensorFlow Serving alone knows labels
            paths[path.replace("{name}", "{name}" + part, 1)] = {**item, "parameters": [name, *more]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mobilenet serve",
            "version": __version__,
            "description": "Our own requests, TensorFlow Serving's REST interface, and the Open Inference Protocol v2.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "reason"],
                "properties": {"index": {"type": "integer"}, "reason": {"type": "string"}},
            },
        },
    },
}


def _parameter(name: str, where: str, schema: Schema, *, required: bool = False, about: str = "") -> Schema:
    described = {"description": about} if about else {}
    return {"name": name, "in": where, "required": required, **described, "schema": schema}


def _operation(about: str, good: Schema, errors: tuple[int, ...], **more: Any) -> Schema:
    responses = {"200": good}
    for status in errors:
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        responses[str(status)] = {"description": _REASONS[status], "content": content}
    return {"summary": about, "responses": responses, **more}


def _json(about: str, schema: Schema) -> Schema:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


_STRING: Schema = {"type": "string"}
_BINARY: Schema = {"type": "string", "format": "binary"}
_EXPLAIN = (
    f"Add what spoke for so many of the likeliest classes; for at most {MOST_PICTURES} pictures. A map's mean plus the "
    "bias is the logit; rows and columns say where it lies, in pixels of what the network saw."
)
_EXPLANATION = _object(
    label=_STRING,
    index={"type": "integer"},
    logit={"type": "number"},
    bias={"type": "number"},
    map={"type": "array", "items": _NUMBERS},
    rows=_NUMBERS,
    columns=_NUMBERS,
    where=_STRING,
    picture={"type": "string", "description": "A data: address of a JPEG, the photo with the map over it."},
)
_POST_ERRORS = (400, 401, 404, 408, 411, 413, 415, 422, 503)
_GET_ERRORS = (401, 404, 422)


def _own(names: list[str], limits: Limits) -> dict[str, Schema]:
    module = _parameter("module", "query", {"type": "string", "enum": names})
    top_schema: Schema = {"type": "integer", "minimum": 1, "maximum": MOST_ASKED, "default": DEFAULT_TOP}
    prediction = _object(
        name=_STRING, labels=_TEXTS, scores=_NUMBERS, indices={"type": "array", "items": {"type": "integer"}}
    )
    prediction["properties"]["explanations"] = {"type": "array", "items": _EXPLANATION}
    explain: Schema = {"type": "integer", "minimum": 1, "maximum": MOST_CLASSES}
    about = {"module": _STRING, "weights_sha256": _STRING}
    labels = _object(**about, predictions={"type": "array", "items": prediction})
    features = _json("A feature vector for each picture.", _object(**about, features=_ROWS))
    features["content"][NPY] = {"schema": {"type": "string", "format": "binary"}}
    return {
        "/classify": {
            "post": _operation(
                "The likeliest classes of each picture.",
                _json("The likeliest first.", labels),
                _POST_ERRORS,
                requestBody=_pictures(limits),
                parameters=[
                    _parameter("top", "query", top_schema),
                    _parameter("explain", "query", explain, about=_EXPLAIN),
                    module,
                ],
            )
        },
        "/embed": {
            "post": _operation(
                "The feature vector of each picture.",
                features,
                _POST_ERRORS,
                requestBody=_pictures(limits),
                parameters=[module],
            )
        },
    }


def _similar(limits: Limits) -> Schema:
    match = _object(path=_STRING, similarity={"type": "number"})
    matches = {"type": "array", "items": {"anyOf": [{"type": "array", "items": match}, {"type": "null"}]}}
    k = _parameter("k", "query", {"type": "integer", "minimum": 1, "maximum": MOST_NEIGHBOURS, "default": 10})
    operation = _operation(
        "The nearest photos of the collection, the nearest first, for each picture.",
        _json("Their paths and cosine similarities.", _object(matches=matches)),
        _POST_ERRORS,
        requestBody=_pictures(limits),
        parameters=[k],
    )
    return {"post": operation}


def _teach(limits: Limits) -> dict[str, Schema]:
    from mobilenet_hub.serve.teach import DOWNLOADS  # here: only who teaches has it open

    state = _json(
        "The classes, how far a training is, what came of it.",
        _object(
            classes={"type": "array", "items": _object(name=_STRING, photos={"type": "integer"})},
            training={"type": "boolean"},
            stage=_STRING,
            done={"type": "integer"},
            total={"type": "integer"},
            failure=_STRING,
            module={"type": ["string", "null"]},
            metrics={"type": ["object", "null"]},
        ),
    )
    name = _parameter("name", "query", _STRING, required=True)
    form = _parameter("format", "query", {"type": "string", "enum": list(DOWNLOADS)})
    file = {"description": "The file.", "content": {"application/octet-stream": {"schema": _BINARY}}}
    report = {"description": "A page.", "content": {"text/html": {"schema": _STRING}}}
    classes = (401, 403, 404, 422, 507)
    begun = _operation("Begin to train.", state, (401, 403, 409, 422, 507))
    begun["responses"]["202"] = begun["responses"].pop("200")
    photos = _operation(
        "Add photos to a class.",
        state,
        (*_POST_ERRORS, 403, 507),
        requestBody=_pictures(limits),
        parameters=[_parameter("class", "query", _STRING, required=True)],
    )
    return {
        "/teach": {"get": _operation("What is taught.", state, classes)},
        "/teach/classes": {
            "post": _operation("Add a class.", state, classes, parameters=[name]),
            "delete": _operation("Remove a class and its photos.", state, (*classes, 409), parameters=[name]),
        },
        "/teach/photos": {"post": photos},
        "/teach/train": {"post": begun},
        "/teach/report": {"get": _operation("The report of the training.", report, classes)},
        "/teach/download": {
            "get": _operation("What was trained.", file, (*classes, 409, 501), parameters=[form]),
        },
    }


def _pictures(limits: Limits) -> Schema:
    file = _BINARY
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "array", "items": file, "minItems": 1, "maxItems": limits.queue}},
    }
    return {
        "required": True,
        "description": f"One picture, or a form with any number of files; at most {limits.max_body} bytes.",
        "content": {
            "image/*": {"schema": file},
            "application/octet-stream": {"schema": file},
            "multipart/form-data": {"schema": form},
        },
    }


def _plain() -> dict[str, Schema]:
    answers = {
        "/v2": ("What this server is.", _object(name=_STRING, version=_STRING, extensions=_TEXTS)),
        "/v2/health/live": ("Whether the process is there.", _object(live={"type": "boolean"})),
        "/v2/health/ready": ("Whether it takes requests.", _object(ready={"type": "boolean"})),
        "/openapi.json": ("This description.", {"type": "object"}),
    }
    paths = {}
    for path, (about, schema) in answers.items():
        errors = (503,) if path.endswith("/ready") else (401, 422)
        paths[path] = {"get": _operation(about, _json(about, schema), errors)}
    about = "Counters and histograms for Prometheus."
    text = {"description": about, "content": {"text/plain": {"schema": _STRING}}}
    paths["/metrics"] = {"get": _operation(about, text, (401,))}
    return paths


def _of_module() -> dict[str, Schema]:
    """Return the addresses that hold a module's name; with a version they are the same."""
    tf, v2 = "/v1/models/{name}", "/v2/models/{name}"
    return {
        tf: {"get": _operation("TensorFlow Serving: status.", _json("Its state.", _STATUS), _GET_ERRORS)},
        f"{tf}/metadata": {
            "get": _operation("TensorFlow Serving: signatures.", _json("Its signatures.", _METADATA), _GET_ERRORS)
        },
        f"{tf}:predict": {
            "post": _operation(
                "TensorFlow Serving: raw logits or features.",
                _json("Rows, as asked.", {"oneOf": [_object(predictions=_ROWS), _object(outputs=_ROWS)]}),
                _POST_ERRORS,
                requestBody={"required": True, "content": {"application/json": {"schema": _PREDICT}}},
            )
        },
        v2: {"get": _operation("Open Inference: tensors.", _json("Its tensors.", _MODEL), _GET_ERRORS)},
        f"{v2}/ready": {
            "get": _operation(
                "Open Inference: readiness.",
                _json("Ready.", _object(name=_STRING, ready={"type": "boolean"})),
                (401, 404, 503),
            )
        },
        f"{v2}/infer": {
            "post": _operation(
                "Open Inference: inference; with the binary tensor data extension.",
                _inferred(),
                _POST_ERRORS,
                requestBody={
                    "required": True,
                    "content": {
                        "application/json": {"schema": _INFER},
                        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                    },
                },
            )
        },
    }


_STATUS = _object(
    model_version_status={"type": "array", "items": _object(version=_STRING, state=_STRING, status={"type": "object"})}
)
_METADATA = _object(model_spec={"type": "object"}, metadata={"type": "object"})
_PICTURE: Schema = _object(b64={"type": "string", "contentEncoding": "base64"})
_IMAGES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {"anyOf": [_PICTURE, {"type": "array"}, {"type": "object"}]},
}
_PREDICT: Schema = {
    "type": "object",
    "properties": {
        "signature_name": _STRING,
        "instances": _IMAGES,
        "inputs": {"anyOf": [_IMAGES, {"type": "object"}]},
    },
    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    "additionalProperties": False,
}
_SHAPE: Schema = {"type": "array", "items": {"type": "integer"}}
_TENSOR = {"name": _STRING, "shape": _SHAPE, "datatype": _STRING}
_MODEL = _object(
    name=_STRING,
    versions=_TEXTS,
    platform=_STRING,
    inputs={"type": "array", "items": _object(**_TENSOR)},
    outputs={"type": "array", "items": _object(**_TENSOR)},
)
_INPUT: Schema = {
    **_object(**_TENSOR),
    "properties": {
        "name": {"enum": ["images", "pictures"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 4},
        "datatype": {"enum": ["FP32", "UINT8", "BYTES"]},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
}
_INFER: Schema = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": _STRING,
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _INPUT},
        "outputs": {"type": "array", "items": _object(name={"enum": ["logits", "features"]})},
    },
}


def _inferred() -> Schema:
    tensor = {**_object(**_TENSOR), "properties": {**_TENSOR, "data": _NUMBERS, "parameters": {"type": "object"}}}
    body = _object(model_name=_STRING, model_version=_STRING, outputs={"type": "array", "items": tensor})
    good = _json("The outputs that were asked for.", body)
    good["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return good
