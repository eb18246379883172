"""What an export was asked for, checked before anything is written: the formats and which options each one takes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.errors import InputError, MissingExtraError, MobileNetHubError
from mobilenet_hub.exporting.formats import (
    FORMATS,
    FREE,
    OPSETS,
    PRECISIONS,
    PROBABILITIES,
    Format,
    Free,
    Precision,
    find_format,
    takers,
)
from mobilenet_hub.hub.contract import Contract, find_contract, open_contract
from mobilenet_hub.images.batches import decode_batches
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.inputs import items
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.graph import output_names
from mobilenet_hub.keras.backends import require_keras
from mobilenet_hub.module import Module, ModuleConfig, check_has_weights, checked_image_size
from mobilenet_hub.weights.exported import carried_texts

if TYPE_CHECKING:
    from mobilenet_hub.hub.keras_layer import KerasLayer
    from mobilenet_hub.hub.load import LoadedModule

    Exportable = str | os.PathLike[str] | Module | LoadedModule | KerasLayer

CALIBRATION_IMAGES = 200


@dataclass(frozen=True)
class Options:
    """The options as the caller gave them; None or False where not given."""

    image_size: int | tuple[int, int] | Free | None = None
    batch_size: int | Free | None = None
    uint8_input: bool = False
    outputs: str | Sequence[str] | None = None
    opset: int | None = None
    precision: Precision | None = None
    calibration: str | os.PathLike[str] | None = None
    any_size: bool = False
    handle: str | None = None


@dataclass(frozen=True)
class Request:
    """A checked export: the module, and every choice made."""

    format: Format
    contract: Contract
    weights: Mapping[str, np.ndarray]
    image_size: tuple[int, int] | None  # None: any
    batch_size: int | None  # None: any
    outputs: tuple[str, ...]  # as the caller calls them: "logits", "features", "probabilities", slim's endpoints
    uint8_input: bool = False
    opset: int = OPSETS[1]
    precision: Precision = "float32"
    calibration: str | os.PathLike[str] | None = None
    handle: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the proof: the choices as JSON values

    @property
    def config(self) -> ModuleConfig:
        """The module's configuration, without the classifier where only features are exported."""
        return self.contract.config

    @property
    def module(self) -> Module:
        """The module as it is exported."""
        return Module(self.config, self.weights)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The outputs as `graph.build_graph` calls them."""
        return tuple("Predictions" if name == PROBABILITIES else name for name in self.outputs)

    @property
    def carried(self) -> dict[str, str]:
        """What the export carries of its module, by name, so that `convert` makes that module of it again."""
        classes = {"logits", "Logits", "Predictions"} & set(self.endpoints)
        module = self.module if classes or not self.config.num_classes else self.module.without_classifier()
        return carried_texts(module, folds=self.precision != "int8")

    @property
    def usual_size(self) -> tuple[int, int]:
        """The image size of the export or, where it takes any, the one that the module was trained at."""
        return self.image_size or self.config.image_size

    @property
    def photos(self) -> np.ndarray | None:
        """The calibration photos as uint8 [n, height, width, 3]; None where no folder was given.

        Raises:
            InputError: the folder holds no photo that can be read.
        """
        return self._calibration_photos[0]

    @property
    def left_out(self) -> tuple[Skipped, ...]:
        """What was to calibrate with, and is no photo."""
        return self._calibration_photos[1]

    @cached_property
    def _calibration_photos(self) -> tuple[np.ndarray | None, tuple[Skipped, ...]]:
        if self.calibration is None:
            return None, ()
        found, skipped, preprocessing = [], [], Preprocessing(self.usual_size, self.config.fit)
        for batch in decode_batches(items([self.calibration]), preprocessing):
            found.append(batch.images)
            skipped += batch.skipped
            if sum(map(len, found)) >= CALIBRATION_IMAGES:
                break
        photos = np.concatenate(found)[:CALIBRATION_IMAGES] if found else np.empty(0)
        if not len(photos):
            folder = os.fspath(self.calibration)
            why = f"{skipped[0].name}: {skipped[0].reason}".removeprefix(f"{folder}: ") if skipped else "no images"
            raise InputError(f"{folder} cannot be calibrated with: {why}")
        return photos, tuple(skipped)


def make_request(module: "Exportable", format: str, options: Options) -> Request:
    """Open the module and check every option against it and against the format.

    Raises:
        InputError: a format or option that there is not, or that does not fit the format or the module.
        MissingExtraError: a package that the format needs is not installed.
        MobileNetHubError: the module does not exist, cannot be fetched or is damaged.
    """
    chosen = find_format(format)
    _check_given(chosen, options)
    _check_packages(chosen)
    contract, weights = _opened(module)
    outputs = _outputs(chosen, contract.config, options.outputs)
    if not chosen.any_output and outputs == ("features",) and contract.config.num_classes:
        features = Module(contract.config, weights).without_classifier()
        contract, weights = replace(contract, config=features.config), features.weights
    image_size = _image_size(chosen, contract, options)
    request = Request(
        format=chosen,
        contract=contract,
        weights=weights,
        image_size=image_size,
        batch_size=_batch_size(chosen, options.batch_size),
        outputs=outputs,
        uint8_input=options.uint8_input,
        opset=options.opset or OPSETS[1],
        precision=options.precision or "float32",
        calibration=options.calibration,
        handle=options.handle,
    )
    return replace(request, facts=_facts(request))


def _opened(module: "Exportable") -> tuple[Contract, Mapping[str, np.ndarray]]:
    if isinstance(module, Module):
        check_has_weights(module.config, "export it")
        return find_contract(module.config.handle or "the module", module.config), module.weights
    if isinstance(module, str | os.PathLike):
        return open_contract(module)
    if hasattr(module, "contract") and hasattr(module, "network"):  # their classes take Keras to import
        return _as_now(module.contract, module.network.slim_weights())
    raise InputError(f"a module is a name, a folder, a layer or what hub.load gave, not {type(module).__name__}")


def _as_now(contract: Contract, weights: Mapping[str, np.ndarray]) -> tuple[Contract, Mapping[str, np.ndarray]]:
    """Forget what a module says of its making where it was trained further in memory, on nobody knows which photos."""
    config = contract.config
    if config.trained_on is None and config.metrics is None:
        return contract, weights
    try:
        _, before = open_contract(contract.name, fetch=False)
    except MobileNetHubError:
        before = {}
    if any(name not in before or not np.array_equal(before[name], array) for name, array in weights.items()):
        source = {"module": contract.name, "method": "in memory"}
        contract = replace(contract, config=replace(config, source=source, trained_on=None, metrics=None))
    return contract, weights


def _check_given(format: Format, options: Options) -> None:
    """Refuse options that the format has no use for, and values that no module allows."""
    for name in ("image_size", "batch_size", "uint8_input", "opset", "precision", "calibration", "handle"):
        if getattr(options, name) not in (None, False) and name not in format.options:
            raise InputError(f"`{name}` means nothing for {format.name}; it is for {takers(name)}")
    if options.precision not in (None, *PRECISIONS):
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {options.precision!r}")
    if (options.precision == "int8") and options.calibration is None:
        raise InputError("int8 needs images to calibrate with: give a folder of photos with calibration=FOLDER")
    if options.calibration is not None and options.precision != "int8":
        raise InputError("calibration images are for int8 only: add precision=int8, or leave `calibration` out")
    if options.opset is not None and not OPSETS[0] <= options.opset <= OPSETS[2]:
        raise InputError(f"opset must be {OPSETS[0]} to {OPSETS[2]}, not {options.opset!r}")


def _check_packages(format: Format) -> None:
    purpose = f"exporting to {format.name}"
    for package, extra in format.needs:
        if package == "keras":
            require_keras(purpose)  # and one of its backends
        elif find_spec(package) is None:
            raise MissingExtraError(package, extra, purpose)


def _outputs(format: Format, config: ModuleConfig, asked: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the outputs' names, each checked; scopes before endpoints ("MobilenetV2/layer_7") are taken off."""
    own = "logits" if config.num_classes else "features"
    names = (own,) if asked is None else (asked,) if isinstance(asked, str) else tuple(asked)
    names = tuple(name.removeprefix(f"{config.network.scope}/") for name in names)
    there = (*output_names(config.network), *((PROBABILITIES,) if config.num_classes else ()))
    for name in names:
        if name not in there:
            near = get_close_matches(name, there, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(there)}"
            raise InputError(f"{config.architecture} has no output {name!r}; {hint}")
    if not names or len(set(names)) != len(names):
        raise InputError(f"the outputs must be one or more different names, not {list(names)}")
    if not format.any_output and names not in ((own,), ("features",)):
        raise InputError(
            f"{format.name} holds the whole network, whose callers choose the outputs (return_endpoints=True gives "
            f"every endpoint); outputs can only be {own}{'' if own == 'features' else ' or features'} there"
        )
    return names


def _image_size(format: Format, contract: Contract, options: Options) -> tuple[int, int] | None:
    asked, fixed = options.image_size, contract.size is not None and not options.any_size
    if asked == FREE:
        if format.free_size == "never":
            free = [one.name for one in FORMATS.values() if one.free_size != "never" and "image_size" in one.options]
            raise InputError(f"{format.name} is exported for one image size; free sizes are for {' and '.join(free)}")
        if fixed:
            height, width = contract.config.image_size
            raise InputError(
                f"{contract.name} takes images of {height}x{width} pixels only; for a free size take a V1 module of "
                "version 3 to 5, or insist with any_size=True"
            )
        return None
    if asked is None and (format.free_size == "always" or (format.free_size == "where allowed" and not fixed)):
        return None
    return checked_image_size(contract.config, asked, any_size=options.any_size)


def _batch_size(format: Format, asked: int | Free | None) -> int | None:
    if asked is None:
        return format.default_batch
    if asked == FREE:
        return None
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise InputError(f'the batch size must be a number of images from 1, or "free", not {asked!r}')
    return asked


def _facts(request: Request) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "module": request.contract.name,
        "architecture": request.config.architecture,
        "depth_multiplier": request.config.depth_multiplier,
        "image_size": list(request.image_size) if request.image_size else FREE,
        "batch_size": request.batch_size or FREE,
        "outputs": list(request.outputs),
    }
    for name in sorted(request.format.options & {"uint8_input", "opset", "precision"}):
        facts[name] = getattr(request, name)
    return facts
