"""The two networks as data: layers, TF-Slim variable names, shapes, strides, endpoints, parameter and MAC counts.

A network is a straight list of `ConvUnit`s (convolution, batch norm, perhaps ReLU6, perhaps a residual sum), then
global mean pooling and, where there are classes, a 1x1 convolution with bias. Everything else (the inference graph,
the Keras model, the readers' expected tensors) is derived from this list.

Sources: tensorflow/models research/slim nets/mobilenet_v1.py, nets/mobilenet/mobilenet_v2.py and conv_blocks.py;
arXiv 1704.04861 (table 1) and 1801.04381 (table 2).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import chain, pairwise
from math import isfinite, prod
from typing import Any, Literal, get_args

from mobilenet_hub.errors import InputError

BATCH_NORM_EPSILON = 1e-3  # slim.batch_norm's default, also that of mobilenet_v1_arg_scope
BATCH_NORM_MOMENTUM = 0.99  # of the published modules since version 3; 1 minus the step of the moving statistics
WEIGHT_DECAY = 4e-5  # on full convolutions only; slim's term is WEIGHT_DECAY * sum(w**2) / 2
WEIGHT_STDDEV = 0.09  # truncated normal initializer of every kernel
INPUT_CHANNELS = 3
INPUT_SCALE, INPUT_OFFSET = 2.0, -1.0  # images in [0, 1] enter the first unit as [-1, 1]
MAX_IMAGE_SIZE = 16_384  # beyond this a float32 image alone needs 3 GiB
IMAGENET_CLASSES = 1001  # index 0 is background

Padding = Literal["same", "symmetric", "bottom_right"]
_MAX_HIDDEN_LAYERS, _MAX_UNITS = 16, 1_000_000  # a forged number must not fill the memory
BATCH_NORM_LEAVES = ("gamma", "beta", "moving_mean", "moving_variance")
STATISTICS = ("moving_mean", "moving_variance")

# (nominal depth, stride) of Conv2d_0 and of the depthwise-separable blocks Conv2d_1..13: mobilenet_v1.py, _CONV_DEFS.
_V1_STEM = (32, 2)
_V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip

# (expansion, nominal depth, repeats, stride of the first): mobilenet_v2.py, V2_DEF; arXiv 1801.04381, table 2.
_V2_STEM = (32, 2)
_V2_BLOCKS = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
_V2_LAST = 1280


def is_image_size(value: object) -> bool:
    """Tell whether a value is a (height, width) that a network can take.

    Example:
        >>> is_image_size((224, 192)), is_image_size((224, 0)), is_image_size(224)
        (True, False, False)
    """
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MAX_IMAGE_SIZE for n in value)
    )


def height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a side or (height, width).

    Raises:
        InputError: neither of the two, or not between 1 and MAX_IMAGE_SIZE pixels.

    Example:
        >>> height_and_width(224)
        (224, 224)
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not is_image_size(size):
        raise InputError(
            f"the image size must be a side or (height, width), each 1 to {MAX_IMAGE_SIZE} pixels, not {image_size!r}"
        )
    return size[0], size[1]


@dataclass(frozen=True, slots=True)
class Variant:
    """How a network computes where it differs from TF-Slim's: those imported from peers, or with a head of their own.

    The one place that names these fields: module.json and Keras's saved configurations hold what `stated` returns.
    """

    batch_norm_epsilon: float = BATCH_NORM_EPSILON
    padding: Padding = "same"
    input_scale: float = INPUT_SCALE
    input_offset: float = INPUT_OFFSET  # images in [0, 1] enter the first unit as images * input_scale + input_offset
    temperature: float = 1.0  # probabilities are softmax(logits / temperature); the logits stay as they are
    hidden_units: tuple[int, ...] = ()  # widths of the dense ReLU layers between the features and the classifier

    @classmethod
    def of(cls, stated: Mapping[str, Any]) -> "Variant":
        """Return the variant of what `stated` gave, its fields among other keys; a lone hidden layer may be a number.

        Raises:
            InputError: a value that no network can have; names the key.

        Example:
            >>> Variant.of({"padding": "symmetric", "hidden_units": 100}).hidden_units
            (100,)
        """
        given = {name: stated[name] for name in VARIANT_KEYS if name in stated}
        if _is_count(units := given.get("hidden_units", ())):  # 0 where there is none
            units = (units,) if units else ()
        listed = isinstance(units, tuple | list) and len(units) <= _MAX_HIDDEN_LAYERS
        rules = {
            "batch_norm_epsilon": (_is_positive, "a number above 0"),
            "padding": (lambda value: value in get_args(Padding), f"one of {', '.join(get_args(Padding))}"),
            "input_scale": (_is_positive, "a number above 0"),
            "input_offset": (_is_number, "a number"),
            "temperature": (_is_positive, "a number above 0"),
            "hidden_units": (
                lambda _: listed and all(_is_count(n) and n for n in units),
                f"a number of units or a list, each up to {_MAX_UNITS}",
            ),
        }
        if wrong := [name for name in given if not rules[name][0](given[name])]:
            raise InputError(f"{wrong[0]} must be {rules[wrong[0]][1]}, not {given[wrong[0]]!r}")
        return cls(**{**given, "hidden_units": tuple(units)})

    def stated(self) -> dict[str, Any]:
        """Return the fields that differ from TF-Slim's, as JSON can hold them."""
        found = {name: getattr(self, name) for name in VARIANT_KEYS}
        found["hidden_units"] = self.hidden_units[0] if len(self.hidden_units) == 1 else list(self.hidden_units)
        return {name: value for name, value in found.items() if value not in (getattr(Variant(), name), [])}


VARIANT_KEYS = tuple(one.name for one in fields(Variant))


@dataclass(frozen=True, slots=True)
class Variable:
    """One TF-Slim variable: its shape in TensorFlow's layout and how training treats it."""

    name: str
    shape: tuple[int, ...]
    trainable: bool  # False for the moving statistics
    regularized: bool  # True for the kernels of full convolutions, the classifier's included


@dataclass(frozen=True, slots=True)
class ConvUnit:
    """A convolution without bias, batch norm, then ReLU6 (`relu6`) and a residual sum (`adds`) where they are set."""

    scope: str  # TF-Slim variable scope, e.g. "MobilenetV2/expanded_conv_1/expand"
    depthwise: bool
    kernel_size: int
    stride: int
    in_channels: int
    out_channels: int
    relu6: bool
    endpoints: tuple[str, ...]  # slim's names for the output of this unit, e.g. ("layer_3", "layer_3/output")
    adds: int | None = None  # index of the unit whose output is added to this one's, after batch norm

    @property
    def kernel(self) -> Variable:
        """The kernel: [k, k, in, out], or [k, k, in, 1] where depthwise."""
        leaf, last = ("depthwise_weights", 1) if self.depthwise else ("weights", self.out_channels)
        shape = (self.kernel_size, self.kernel_size, self.in_channels, last)
        return Variable(f"{self.scope}/{leaf}", shape, trainable=True, regularized=not self.depthwise)

    @property
    def batch_norm(self) -> tuple[Variable, ...]:
        """Gamma, beta, moving_mean and moving_variance, each [out]."""
        return tuple(
            Variable(f"{self.scope}/BatchNorm/{leaf}", (self.out_channels,), leaf not in STATISTICS, False)
            for leaf in BATCH_NORM_LEAVES
        )


@dataclass(frozen=True)
class Architecture:
    """One MobileNet: its units in order, and what follows them.

    Every unit takes the output of the one before it; the first takes images scaled to [-1, 1].
    """

    name: str  # "mobilenet_v1" or "mobilenet_v2"
    scope: str  # "MobilenetV1" or "MobilenetV2"
    depth_multiplier: float
    num_classes: int  # 0 where there is no classifier
    units: tuple[ConvUnit, ...]
    dropout_rate: float  # before the classifier, in training only
    variant: Variant = field(default_factory=Variant)

    @property
    def num_features(self) -> int:
        """The length of the feature vector."""
        return self.units[-1].out_channels

    @property
    def hidden(self) -> tuple[tuple[Variable, Variable], ...]:
        """The weights [1, 1, inputs, units] and biases [units] of each hidden layer, in order; ReLU follows each."""
        widths = (self.num_features, *self.variant.hidden_units) if self.num_classes else (0,)
        names = (f"Hidden_{at}" if at else "Hidden" for at in range(len(widths) - 1))
        return tuple(self._dense(name, *sizes) for name, sizes in zip(names, pairwise(widths), strict=True))

    @property
    def classifier(self) -> tuple[Variable, ...]:
        """The classifier's weights [1, 1, inputs, classes] and biases [classes]; empty where there is none."""
        inputs = (self.num_features, *self.variant.hidden_units)[-1]
        return self._dense("Conv2d_1c_1x1", inputs, self.num_classes) if self.num_classes else ()

    @property
    def dense(self) -> tuple[tuple[Variable, ...], ...]:
        """The weights and biases of every layer behind the features: the hidden ones', then the classifier's."""
        return (*self.hidden, self.classifier) if self.num_classes else ()

    def _dense(self, layer: str, inputs: int, outputs: int) -> tuple[Variable, Variable]:
        scope = f"{self.scope}/Logits/{layer}"
        return (
            Variable(f"{scope}/weights", (1, 1, inputs, outputs), trainable=True, regularized=True),
            Variable(f"{scope}/biases", (outputs,), trainable=True, regularized=False),
        )

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """Every variable by its TF-Slim name, in the order in which TF-Slim makes them."""
        units = (variable for unit in self.units for variable in (unit.kernel, *unit.batch_norm))
        return {variable.name: variable for variable in (*units, *chain.from_iterable(self.dense))}

    @cached_property
    def endpoints(self) -> tuple[str, ...]:
        """Slim's endpoint names in order: the units', then global_pool and, with a classifier, Logits, Predictions."""
        names = tuple(name for unit in self.units for name in unit.endpoints)
        return (*names, "global_pool", *(("Logits", "Predictions") if self.num_classes else ()))

    def output_sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Return (height, width) after each unit for images of that size."""
        sizes = []
        for unit in self.units:
            height = output_size(height, unit.kernel_size, unit.stride, self.variant.padding)
            width = output_size(width, unit.kernel_size, unit.stride, self.variant.padding)
            sizes.append((height, width))
        return tuple(sizes)

    def endpoint_shapes(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Return each endpoint's shape without the batch axis: [h, w, c], [1, 1, c] for global_pool, [classes]."""
        shapes: dict[str, tuple[int, ...]] = {}
        for unit, size in zip(self.units, self.output_sizes(height, width), strict=True):
            shapes.update(dict.fromkeys(unit.endpoints, (*size, unit.out_channels)))
        shapes["global_pool"] = (1, 1, self.num_features)
        if self.num_classes:
            shapes["Logits"] = shapes["Predictions"] = (self.num_classes,)
        return shapes

    def macs(self, height: int, width: int) -> int:
        """Return the multiply-accumulates of one image's convolutions and, where there is one, the classifier."""
        total = sum(prod(v.shape) for v in chain.from_iterable(self.dense) if v.regularized)
        for unit, (out_height, out_width) in zip(self.units, self.output_sizes(height, width), strict=True):
            total += out_height * out_width * prod(unit.kernel.shape)
        return total

    def parameters(self, trainable: bool | None = None) -> int:
        """Return the number of parameters: all, the trainable ones (True), or the moving statistics (False)."""
        return sum(prod(v.shape) for v in self.variables.values() if trainable in (None, v.trainable))


def mobilenet_v1(depth_multiplier: float = 1.0, num_classes: int = IMAGENET_CLASSES) -> Architecture:
    """Return MobileNet V1 at any depth multiplier > 0; 0 classes gives the feature vector network.

    Depths are truncated, not rounded, and at least 8 (mobilenet_v1.py: `max(int(d * multiplier), min_depth)`).

    Raises:
        InputError: the depth multiplier is not a positive number, or the number of classes is negative.

    Example:
        >>> mobilenet_v1(0.25).num_features
        256
    """
    _check(depth_multiplier, num_classes)
    scope = "MobilenetV1"

    def depth(nominal: int) -> int:
        return max(int(nominal * depth_multiplier), 8)

    def unit(name: str, depthwise: bool, kernel: int, stride: int, channels: int, out: int) -> ConvUnit:
        return ConvUnit(f"{scope}/{name}", depthwise, kernel, stride, channels, out, True, (name,))

    channels = depth(_V1_STEM[0])
    units = [unit("Conv2d_0", False, 3, _V1_STEM[1], INPUT_CHANNELS, channels)]
    for i, (nominal, stride) in enumerate(_V1_BLOCKS, start=1):
        units.append(unit(f"Conv2d_{i}_depthwise", True, 3, stride, channels, channels))
        units.append(unit(f"Conv2d_{i}_pointwise", False, 1, 1, channels, depth(nominal)))
        channels = depth(nominal)
    return Architecture("mobilenet_v1", scope, depth_multiplier, num_classes, tuple(units), dropout_rate=0.001)


def mobilenet_v2(depth_multiplier: float = 1.0, num_classes: int = IMAGENET_CLASSES) -> Architecture:
    """Return MobileNet V2 at any depth multiplier > 0; 0 classes gives the feature vector network.

    Depths are rounded to multiples of 8 from the exact product (conv_blocks.py, `_make_divisible`), and multipliers
    below 1 do not shrink the last convolution (`finegrain_classification_mode`), as in every published module.

    Raises:
        InputError: the depth multiplier is not a positive number, or the number of classes is negative.

    Example:
        >>> mobilenet_v2(1.4).num_features
        1792
    """
    _check(depth_multiplier, num_classes)
    scope = "MobilenetV2"
    channels = make_divisible(_V2_STEM[0] * depth_multiplier)
    units = [ConvUnit(f"{scope}/Conv", False, 3, _V2_STEM[1], INPUT_CHANNELS, channels, True, ("layer_1",))]
    blocks = ((t, depth, stride if i == 0 else 1) for t, depth, n, stride in _V2_BLOCKS for i in range(n))
    for index, (expansion, nominal, stride) in enumerate(blocks):
        out = make_divisible(nominal * depth_multiplier)
        units.extend(_inverted_residual(scope, index, len(units) - 1, channels, expansion, stride, out))
        channels = out
    last = _V2_LAST if depth_multiplier < 1 else make_divisible(_V2_LAST * depth_multiplier)
    units.append(ConvUnit(f"{scope}/Conv_1", False, 1, 1, channels, last, True, ("layer_19",)))
    return Architecture("mobilenet_v2", scope, depth_multiplier, num_classes, tuple(units), dropout_rate=0.2)


def _inverted_residual(
    scope: str, index: int, before: int, channels: int, expansion: int, stride: int, out: int
) -> Iterator[ConvUnit]:
    """Yield one block of conv_blocks.expanded_conv: expand (not where expansion is 1), depthwise, linear project."""
    scope = f"{scope}/expanded_conv" + (f"_{index}" if index else "")
    layer = f"layer_{index + 2}"
    inner = make_divisible(channels * expansion) if expansion > 1 else channels
    if inner > channels:
        yield ConvUnit(f"{scope}/expand", False, 1, 1, channels, inner, True, (f"{layer}/expansion_output",))
    yield ConvUnit(f"{scope}/depthwise", True, 3, stride, inner, inner, True, (f"{layer}/depthwise_output",))
    residual = before if stride == 1 and channels == out else None
    yield ConvUnit(f"{scope}/project", False, 1, 1, inner, out, False, (layer, f"{layer}/output"), residual)


BUILDERS = {"mobilenet_v1": mobilenet_v1, "mobilenet_v2": mobilenet_v2}


def architecture(name: str, depth_multiplier: float, num_classes: int) -> Architecture:
    """Return the network of that name ("mobilenet_v1" or "mobilenet_v2").

    Raises:
        InputError: another name, a depth multiplier that is not a positive number, or a negative number of classes.
    """
    if name not in BUILDERS:
        raise InputError(f"architecture {name!r} is unknown; use one of {', '.join(BUILDERS)}")
    return BUILDERS[name](depth_multiplier, num_classes)


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor`, never below it, nor more than 10 % below `value` (conv_blocks.py)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def pad_amounts(size: int, kernel_size: int, stride: int, padding: Padding = "same") -> tuple[int, int]:
    """Return the zeros (before, after) one axis of length `size`.

    "same" is TensorFlow's rule: ceil(size / stride) outputs, the odd zero after. "symmetric" is PyTorch's
    (kernel - 1) // 2 on both sides; "bottom_right" is keras.applications' V1: like "same" of an even size, always.
    """
    if padding == "same":
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        return total // 2, total - total // 2
    return fixed_pad_amounts(kernel_size, stride, padding)


def fixed_pad_amounts(kernel_size: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Return the zeros (before, after) an axis of any length, by a rule that does not depend on it: all but "same".

    Example:
        >>> fixed_pad_amounts(3, 2, "symmetric"), fixed_pad_amounts(3, 2, "bottom_right")
        ((1, 1), (0, 1))
    """
    if padding == "symmetric":
        return (kernel_size - 1) // 2, (kernel_size - 1) // 2
    total = max(kernel_size - stride, 0)
    return total // 2, total - total // 2


def output_size(size: int, kernel_size: int, stride: int, padding: Padding = "same") -> int:
    """Return the length of one axis after a convolution."""
    return (size + sum(pad_amounts(size, kernel_size, stride, padding)) - kernel_size) // stride + 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and value > 0


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_UNITS


def _check(depth_multiplier: float, num_classes: int) -> None:
    if not (isinstance(depth_multiplier, int | float) and isfinite(depth_multiplier) and depth_multiplier > 0):
        raise InputError(f"the depth multiplier must be a number above 0, not {depth_multiplier!r}")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
        raise InputError(f"the number of classes must be 0 (features only) or more, not {num_classes!r}")
