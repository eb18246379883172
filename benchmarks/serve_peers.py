"""What benchmarks/serve.py sets beside our server: the same network behind other people's, as their documents say.

Each row of `PEERS` is a program that prints the port which it answers on, the path, and how a photo is put into a
request there. All but TensorFlow run our engine, so that the server is what differs.
"""

import base64
import json
from typing import NamedTuple

BOUNDARY = "a-photo-ends-here"


def as_jpeg(data):
    """Return (body, its Content-Type): the file itself."""
    return data, "image/jpeg"


def as_form(data):
    """Return (body, its Content-Type): a form with one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    head += "Content-Type: image/jpeg\r\n\r\n"
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


def as_json(data):
    """Return (body, its Content-Type): base64 under a name."""
    return json.dumps({"image": base64.b64encode(data).decode()}).encode(), "application/json"


def as_instances(data):
    """Return (body, its Content-Type): as TensorFlow Serving takes pictures."""
    return json.dumps({"instances": [{"b64": base64.b64encode(data).decode()}]}).encode(), "application/json"


class Peer(NamedTuple):
    """Another server: its name, the packages that it needs, its program, the path, and how a photo is sent."""

    name: str
    packages: tuple[str, ...]
    program: str
    path: str
    wrap: object


_PORT = """
import socket
with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    port = taken.getsockname()[1]
"""

_FASTAPI = """
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from mobilenet_hub.inference.classify import Classifier
classifier = Classifier({module!r})
app = FastAPI()
@app.post("/classify")
async def classify(request: Request):
    data = await request.body()
    found = (await run_in_threadpool(classifier.classify, data, 5))[0]
    return {{"labels": found.labels, "scores": found.scores}}
print("ready :%d" % port, flush=True)
uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")
"""

_LITSERVE = """
import base64
import litserve
from mobilenet_hub.inference.classify import Classifier
class Api(litserve.LitAPI):
    def setup(self, device):
        self.classifier = Classifier({module!r})
    def decode_request(self, request):
        return base64.b64decode(request["image"])
    def predict(self, batch):
        return self.classifier.classify(batch, 5)
    def encode_response(self, found):
        return {{"labels": found.labels, "scores": found.scores}}
if __name__ == "__main__":
    # one worker with batches: as many workers as cores have each an engine that takes all cores
    print("ready :%d" % port, flush=True)
    server = litserve.LitServer(Api(max_batch_size=16, batch_timeout=0.005), accelerator="cpu")
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")
"""

_BENTOML = """
import os, subprocess, sys, tempfile
from pathlib import Path
service = '''
from pathlib import Path
from typing import Annotated
import bentoml
from bentoml.validators import ContentType
from mobilenet_hub.inference.classify import Classifier
@bentoml.service(workers=1)
class Labels:
    def __init__(self):
        self.classifier = Classifier({module!r})
    @bentoml.api
    def classify(self, image: Annotated[Path, ContentType("image/jpeg")]) -> dict:
        found = self.classifier.classify(image, 5)[0]
        return {{"labels": found.labels, "scores": found.scores}}
'''
folder = tempfile.mkdtemp()
Path(folder, "service.py").write_text(service)
os.chdir(folder)
os.environ.update(BENTOML_DO_NOT_TRACK="true", BENTOML_HOME=folder)
print("ready :%d" % port, flush=True)
words = ["serve", "service:Labels", "--quiet", "--host", "127.0.0.1", "--port", str(port)]
os.dup2(2, 1)
os.execv(sys.executable, [sys.executable, "-m", "bentoml", *words])
"""

_TENSORFLOW = """
import base64, os, subprocess, sys, tempfile
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
folder = tempfile.mkdtemp() + "/saved"
words = ["export", {module!r}, "--format", "tf-hub", "-o", folder, "--quiet"]
subprocess.run([sys.executable, "-m", "mobilenet_hub.cli.main", *words], check=True, stdout=2)
import tensorflow as tf
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from mobilenet_hub.inference.classify import Classifier
loaded = tf.saved_model.load(folder)
default = loaded.signatures["serving_default"]
size = Classifier({module!r}).image_size
@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def logits(data):
    image = tf.image.resize(tf.io.decode_jpeg(data, 3), size) / 255
    return list(default(image[tf.newaxis]).values())[0]
logits(tf.io.encode_jpeg(tf.zeros([9, 9, 3], tf.uint8)))
app = FastAPI()
@app.post("/v1/models/m:predict")
async def predict(request: Request):
    body = await request.json()
    data = [base64.b64decode(entry["b64"]) for entry in body["instances"]]
    found = await run_in_threadpool(lambda: [logits(one)[0].numpy().tolist() for one in data])
    return {{"predictions": found}}
print("ready :%d" % port, flush=True)
uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")
"""

PEERS = (
    Peer("FastAPI, a call for each request", ("fastapi", "uvicorn"), _PORT + _FASTAPI, "/classify", as_jpeg),
    Peer("LitServe, batches up to 16", ("litserve",), _PORT + _LITSERVE, "/predict", as_json),
    Peer("BentoML", ("bentoml",), _PORT + _BENTOML, "/classify", as_form),
    Peer(
        "TensorFlow's SavedModel behind REST",
        ("tensorflow", "fastapi", "uvicorn"),
        _PORT + _TENSORFLOW,
        "/v1/models/m:predict",
        as_instances,
    ),
)
