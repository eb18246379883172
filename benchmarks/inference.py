"""Images a second of the same network here and in the engines called directly, beside what the machine can multiply.

    python benchmarks/inference.py [--rounds 30] [--batch 1 64] [--threads 2] [--precision f32 bf16 int8]
                                   [mobilenet_v1_100_224 ...]

Needs torch, tensorflow and openvino besides the package. The contenders take turns, round by round, so that a busy
machine is busy for all of them; the ratios are medians over the rounds. One of them multiplies matrices and nothing
else, with as many threads and in the same precision: the arithmetic limit. In f32 all must agree within 1e-3.
`benchmarks/layers.py` tells where the rest of the time goes.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from mobilenet_hub.architecture import BATCH_NORM_LEAVES, Architecture
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.inference.graph import fold_batch_norm, import_openvino
from mobilenet_hub.inference.litert_graph import build_litert
from mobilenet_hub.inference.quantize import Int8Engine, calibrated
from mobilenet_hub.module import Module, ModuleConfig

CONFIGURATIONS = ("mobilenet_v1_100_224", "mobilenet_v2_100_224", "mobilenet_v1_025_128", "mobilenet_v2_035_96")


def random_weights(network: Architecture) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    weights = {}
    for name, variable in network.variables.items():
        if name.endswith(("gamma", "moving_variance")):
            value = random.uniform(0.5, 1.5, variable.shape)
        elif name.endswith("weights"):
            fan_in = 9 if "depthwise" in name.rsplit("/", 1)[-1] else np.prod(variable.shape[:-1])
            value = random.standard_normal(variable.shape) * np.sqrt(2 / fan_in)
        else:
            value = random.uniform(-0.25, 0.25, variable.shape)
        weights[name] = value.astype(np.float32)
    return weights


def ours(module: Module, batch: int, threads: int, precision: str):
    """As the program does: one image on the engine that `auto` takes for few, several on the one for many."""
    if precision == "int8":
        quantized = Int8Engine(Engine(module, ["logits"], precision="f32", threads=threads), pictures(module))
        return lambda images: quantized.run(images)["logits"]
    engine = Engine(module, ["logits"], precision=precision, threads=threads, few=batch == 1)  # pyright: ignore[reportArgumentType]
    return lambda images: engine.run(images)["logits"]


def pictures(module: Module) -> np.ndarray:
    """What int8 is calibrated with."""
    return np.random.default_rng(2).integers(0, 256, (8, *module.config.image_size, 3), np.uint8)


def torch_network(module: Module):
    import torch

    network, weights = module.config.network, module.weights
    assert network.variant.padding == "same"

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolutions, self.norms = torch.nn.ModuleList(), torch.nn.ModuleList()
            for unit in network.units:
                groups = unit.in_channels if unit.depthwise else 1
                convolution = torch.nn.Conv2d(
                    unit.in_channels, unit.out_channels, unit.kernel_size, unit.stride, groups=groups, bias=False,
                    padding=1 if unit.kernel_size == 3 and unit.stride == 1 else 0,
                )  # fmt: skip
                kernel = weights[unit.kernel.name].transpose(2, 3, 0, 1) if unit.depthwise else (
                    weights[unit.kernel.name].transpose(3, 2, 0, 1))  # fmt: skip
                convolution.weight.data = torch.from_numpy(np.ascontiguousarray(kernel))
                norm = torch.nn.BatchNorm2d(unit.out_channels, eps=network.variant.batch_norm_epsilon)
                names = dict(zip(BATCH_NORM_LEAVES, ("weight", "bias", "running_mean", "running_var"), strict=True))
                for variable in unit.batch_norm:
                    getattr(norm, names[variable.name.rsplit("/", 1)[1]]).data = torch.from_numpy(  # pyright: ignore[reportArgumentType]
                        weights[variable.name]
                    )
                self.convolutions.append(convolution)
                self.norms.append(norm)
            kernel, bias = (weights[variable.name] for variable in network.classifier)
            self.logits = torch.nn.Linear(*kernel.shape[2:])
            self.logits.weight.data = torch.from_numpy(np.ascontiguousarray(kernel[0, 0].T))
            self.logits.bias.data = torch.from_numpy(bias)

        def forward(self, x):
            x, made = x * 2 - 1, []
            for unit, convolution, norm in zip(network.units, self.convolutions, self.norms, strict=True):
                if unit.stride == 2:  # even sizes only: TensorFlow pads after
                    x = torch.nn.functional.pad(x, (0, 1, 0, 1))
                x = norm(convolution(x))
                x = torch.nn.functional.relu6(x) if unit.relu6 else x
                x = x if unit.adds is None else x + made[unit.adds]
                made.append(x)
            return self.logits(x.mean((2, 3)))

    return Network().eval()


def pytorch(module: Module, batch: int, threads: int, precision: str, channels_last: bool = True):
    import torch

    torch.set_num_threads(threads)
    network = torch_network(module)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)  # pyright: ignore[reportCallIssue, reportArgumentType]

    def run(images):
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
            return network(x).numpy()

    return run


def openvino_directly(module: Module, batch: int, threads: int, precision: str):
    """The PyTorch network through OpenVINO's own converter, compiled for this very batch size."""
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = _converted(module, batch, precision, settings)
    return lambda images: compiled(images.transpose(0, 3, 1, 2))[0]


def openvino_in_streams(module: Module, batch: int, threads: int, precision: str):
    """As above, the batch cut into parts of one image over as many streams as threads."""
    ov = import_openvino()
    compiled = _converted(module, 1, precision, {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads})
    queue = ov.AsyncInferQueue(compiled, threads)
    results = np.empty((batch, module.config.num_classes), np.float32)
    queue.set_callback(lambda request, i: results.__setitem__(i, request.get_output_tensor(0).data[0]))

    def run(images):
        for i, image in enumerate(images.transpose(0, 3, 1, 2)):
            queue.start_async([image[np.newaxis]], i)
        queue.wait_all()
        return results

    return run


def _converted(module: Module, batch: int, precision: str, settings: dict):
    import torch

    ov = import_openvino()
    example = torch.zeros(batch, 3, *module.config.image_size)
    model = ov.convert_model(torch_network(module), example_input=example, input=list(example.shape))
    return ov.Core().compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": precision})


def litert(module: Module, batch: int, threads: int, precision: str):
    """TensorFlow's conversion, for this very batch size, in one interpreter over all threads."""
    return _interpreter(_from_tensorflow(module, batch, precision), threads)


def litert_alone(module: Module, batch: int, threads: int, precision: str):
    """TensorFlow's conversion for one image, in an interpreter for each thread."""
    return _interpreters(_from_tensorflow(module, 1, precision), threads)


def litert_of_ours(module: Module, batch: int, threads: int, precision: str):
    """Our own int8 file, in an interpreter over all threads, or for several images in one for each."""
    network, size = module.config.network, module.config.image_size
    int8 = calibrated(network, module.weights, pictures(module), threads=threads)
    model = build_litert(network, module.weights, size, ["logits"], input_type="uint8", arithmetic=int8)
    return (_interpreter if batch == 1 else _interpreters)(model, threads)


def _interpreter(model: bytes, threads: int):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(images):
        interpreter.set_tensor(source, images)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return run


def _interpreters(model: bytes, threads: int):
    runs = [_interpreter(model, 1) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def part(number: int, images):
        return [runs[number](image[np.newaxis]) for image in images]

    def run(images):
        parts = pool.map(part, range(threads), np.array_split(images, threads))
        return np.concatenate([one for results in parts for one in results])

    return run


def _from_tensorflow(module: Module, batch: int, precision: str) -> bytes:
    import tensorflow as tf

    network, weights = module.config.network, module.weights
    folded = [fold_batch_norm(network, unit, weights) for unit in network.units]
    kernel, bias = (weights[variable.name] for variable in network.classifier)

    @tf.function(input_signature=[tf.TensorSpec((batch, *module.config.image_size, 3))])
    def forward(x):
        x, made = x * 2 - 1, []
        for unit, (filters, offset) in zip(network.units, folded, strict=True):
            convolve = tf.nn.depthwise_conv2d if unit.depthwise else tf.nn.conv2d
            x = tf.nn.bias_add(convolve(x, filters, [1, unit.stride, unit.stride, 1], "SAME"), offset)  # pyright: ignore[reportArgumentType]
            x = tf.nn.relu6(x) if unit.relu6 else x
            x = x if unit.adds is None else x + made[unit.adds]
            made.append(x)
        return tf.matmul(tf.reduce_mean(x, (1, 2)), kernel[0, 0]) + bias

    converter = tf.lite.TFLiteConverter.from_concrete_functions([forward.get_concrete_function()])  # pyright: ignore[reportFunctionMemberAccess]
    if precision == "int8":
        given = [
            [np.stack([picture] * batch).astype(np.float32) / 255]
            for picture in pictures(module)[: 8 if batch == 1 else 2]
        ]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(given)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
    return converter.convert()


def multiplying(module: Module, batch: int, threads: int, precision: str):
    """As many multiply-adds as the batch has, in the products of two matrices: what the machine can do at most."""
    import torch

    torch.set_num_threads(threads)
    side = SIDE if precision != "int8" else 2 * SIDE
    made = torch.randn(2, side, side)
    one, other = made.bfloat16() if precision == "bf16" else (made * 30).to(torch.int8) if precision == "int8" else made
    product = torch._int_mm if precision == "int8" else torch.matmul  # pyright: ignore[reportPrivateImportUsage]
    times = batch * module.config.network.macs(*module.config.image_size) / side**3

    def run(images):
        """Return how many times as much it has done."""
        for _ in range(max(1, round(times))):
            product(one, other)
        return max(1, round(times)) / times

    return run


SIDE = 1024  # of the matrices: the rate no longer grows behind it
_TURN_S = 0.05
PAUSE_S = 0.3  # the threads of the one before, PyTorch's too, look for work up to 0.2 s, on the cores of the next
LIMIT = "nothing but products of matrices"
CONTENDERS = {
    "f32": {
        "mobilenet-hub": ours,
        "OpenVINO directly": openvino_directly,
        "OpenVINO in streams": openvino_in_streams,
        "LiteRT directly": litert,
        "LiteRT, an interpreter a thread": litert_alone,
        "PyTorch, channels last": pytorch,
        "PyTorch": partial(pytorch, channels_last=False),
        LIMIT: multiplying,
    },
    "bf16": {
        "mobilenet-hub": ours,
        "OpenVINO directly": openvino_directly,
        "OpenVINO in streams": openvino_in_streams,
        LIMIT: multiplying,
    },
    "int8": {
        "mobilenet-hub": ours,
        "our file in LiteRT directly": litert_of_ours,
        "TensorFlow's file in LiteRT": litert,
        "TensorFlow's, an interpreter a thread": litert_alone,
        LIMIT: multiplying,
    },
}


def module_of(name: str) -> Module:
    """A network of this name, mobilenet_v1_025_128, say, with random weights: its time does not depend on them."""
    stem, depth, size = name.rsplit("_", 2)
    config = ModuleConfig(stem, int(depth) / 100, (int(size), int(size)), 1001)
    return Module(config, random_weights(config.network))


def measure(name: str, batch: int, threads: int, rounds: int, precision: str) -> None:
    module = module_of(name)
    network, config = module.config.network, module.config
    random = np.random.default_rng(1)
    images = random.random((batch, *config.image_size, 3), np.float32)
    if precision == "int8":
        images = random.integers(0, 256, images.shape, np.uint8)
    runs = {contender: make(module, batch, threads, precision) for contender, make in CONTENDERS[precision].items()}
    expected = runs["mobilenet-hub"](images)
    repeats, done = {}, dict.fromkeys(runs, 1.0)
    for contender, run in runs.items():
        result = run(images)
        if contender == LIMIT:
            done[contender] = result
        elif precision == "f32":
            assert np.abs(result - expected).max() < 1e-3 * np.abs(expected).max(), contender
        start = time.perf_counter()
        run(images)
        repeats[contender] = max(1, round(_TURN_S / (time.perf_counter() - start)))
    rates = {contender: [] for contender in runs}
    for _ in range(rounds):
        for contender, run in runs.items():
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            for _ in range(repeats[contender]):
                run(images)
            taken = time.perf_counter() - start
            rates[contender].append(done[contender] * repeats[contender] * batch / taken)
    gigaflops = 2e-9 * network.macs(*config.image_size)
    print(f"\n{name}, batch {batch}, {threads} threads, {precision}: {gigaflops:.3f} billion operations an image\n")
    print("| | images a second, best round | billion operations a second | mobilenet-hub is, median of the rounds |")
    print("|---|--:|--:|--:|")
    for contender, rounds_of_it in rates.items():
        ratio, best = np.median(np.divide(rates["mobilenet-hub"], rounds_of_it)), max(rounds_of_it)
        print(f"| {contender} | {best:.0f} | {best * gigaflops:.0f} | {ratio:.2f}x |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configurations", nargs="*", default=CONFIGURATIONS)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--precision", nargs="+", choices=CONTENDERS, default=["f32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    for name in args.configurations:
        for batch in args.batch:
            for precision in args.precision:
                measure(name, batch, args.threads, args.rounds, precision)


if __name__ == "__main__":
    main()
