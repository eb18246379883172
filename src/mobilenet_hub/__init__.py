"""Every MobileNet V1 and V2 of TensorFlow Hub: classify, embed, fine-tune and export.

    import mobilenet_hub as hub

Nothing heavy is imported here: each public name below is loaded from its file on first use.
"""

from importlib import import_module

from mobilenet_hub.keras import hook
from mobilenet_hub.version import __version__ as __version__

TYPE_CHECKING = False  # typing's own costs more time than all of this file
if TYPE_CHECKING:  # what editors and type checkers read; a test holds it against _OWNERS
    from mobilenet_hub.architecture import Architecture as Architecture
    from mobilenet_hub.catalog.models import models as models
    from mobilenet_hub.catalog.published import PublishedModule as PublishedModule
    from mobilenet_hub.errors import AccuracyError as AccuracyError
    from mobilenet_hub.errors import CorruptFileError as CorruptFileError
    from mobilenet_hub.errors import DivergedError as DivergedError
    from mobilenet_hub.errors import DownloadError as DownloadError
    from mobilenet_hub.errors import ImageError as ImageError
    from mobilenet_hub.errors import InputError as InputError
    from mobilenet_hub.errors import InvalidModuleError as InvalidModuleError
    from mobilenet_hub.errors import MissingExtraError as MissingExtraError
    from mobilenet_hub.errors import MobileNetHubError as MobileNetHubError
    from mobilenet_hub.errors import ModuleUnavailableError as ModuleUnavailableError
    from mobilenet_hub.errors import OfflineError as OfflineError
    from mobilenet_hub.errors import OutputError as OutputError
    from mobilenet_hub.errors import ProofError as ProofError
    from mobilenet_hub.errors import UnknownModuleError as UnknownModuleError
    from mobilenet_hub.evaluation.evaluate import Evaluation as Evaluation
    from mobilenet_hub.evaluation.evaluate import evaluate as evaluate
    from mobilenet_hub.evaluation.metrics import Metrics as Metrics
    from mobilenet_hub.exporting.export import export as export
    from mobilenet_hub.exporting.proof import Proof as Proof
    from mobilenet_hub.hub.keras_layer import KerasLayer as KerasLayer
    from mobilenet_hub.hub.load import LoadedModule as LoadedModule
    from mobilenet_hub.hub.load import load as load
    from mobilenet_hub.hub.module import Module as Module
    from mobilenet_hub.hub.module import ModuleSpec as ModuleSpec
    from mobilenet_hub.hub.module import get_expected_image_size as get_expected_image_size
    from mobilenet_hub.hub.module import get_num_image_channels as get_num_image_channels
    from mobilenet_hub.hub.module import load_module_spec as load_module_spec
    from mobilenet_hub.inference.bench import Speed as Speed
    from mobilenet_hub.inference.bench import bench as bench
    from mobilenet_hub.inference.classify import Classifier as Classifier
    from mobilenet_hub.inference.classify import Prediction as Prediction
    from mobilenet_hub.inference.classify import explain as explain
    from mobilenet_hub.inference.embed import Embedder as Embedder
    from mobilenet_hub.inference.explain import Explanation as Explanation
    from mobilenet_hub.search.check import Findings as Findings
    from mobilenet_hub.search.check import check as check
    from mobilenet_hub.search.dedupe import Duplicate as Duplicate
    from mobilenet_hub.search.dedupe import Duplicates as Duplicates
    from mobilenet_hub.search.dedupe import Group as Group
    from mobilenet_hub.search.dedupe import dedupe as dedupe
    from mobilenet_hub.search.similar import Match as Match
    from mobilenet_hub.search.similar import Searcher as Searcher
    from mobilenet_hub.search.similar import similar as similar
    from mobilenet_hub.store import resolve as resolve
    from mobilenet_hub.store.pull import pull as pull
    from mobilenet_hub.training.augment import Augmentation as Augmentation
    from mobilenet_hub.training.frozen import FrozenOptions as FrozenOptions
    from mobilenet_hub.training.schedule import GradientOptions as GradientOptions
    from mobilenet_hub.training.train import TrainResult as TrainResult
    from mobilenet_hub.training.train import train as train
    from mobilenet_hub.weights.convert import convert as convert

# Public name -> the file that owns it.
_OWNERS: dict[str, str] = {
    "AccuracyError": "errors",
    "Architecture": "architecture",
    "Augmentation": "training.augment",
    "Classifier": "inference.classify",
    "CorruptFileError": "errors",
    "DivergedError": "errors",
    "DownloadError": "errors",
    "Duplicate": "search.dedupe",
    "Duplicates": "search.dedupe",
    "Embedder": "inference.embed",
    "Evaluation": "evaluation.evaluate",
    "Explanation": "inference.explain",
    "Findings": "search.check",
    "FrozenOptions": "training.frozen",
    "GradientOptions": "training.schedule",
    "Group": "search.dedupe",
    "ImageError": "errors",
    "InputError": "errors",
    "InvalidModuleError": "errors",
    "KerasLayer": "hub.keras_layer",
    "LoadedModule": "hub.load",
    "Match": "search.similar",
    "Metrics": "evaluation.metrics",
    "MissingExtraError": "errors",
    "MobileNetHubError": "errors",
    "Module": "hub.module",
    "ModuleSpec": "hub.module",
    "ModuleUnavailableError": "errors",
    "OfflineError": "errors",
    "OutputError": "errors",
    "Prediction": "inference.classify",
    "Proof": "exporting.proof",
    "ProofError": "errors",
    "PublishedModule": "catalog.published",
    "Searcher": "search.similar",
    "Speed": "inference.bench",
    "TrainResult": "training.train",
    "UnknownModuleError": "errors",
    "bench": "inference.bench",
    "check": "search.check",
    "convert": "weights.convert",
    "dedupe": "search.dedupe",
    "evaluate": "evaluation.evaluate",
    "explain": "inference.classify",
    "export": "exporting.export",
    "get_expected_image_size": "hub.module",
    "get_num_image_channels": "hub.module",
    "load": "hub.load",
    "load_module_spec": "hub.module",
    "models": "catalog.models",
    "pull": "store.pull",
    "resolve": "store",
    "similar": "search.similar",
    "train": "training.train",
}

__all__ = sorted([*_OWNERS, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


if not TYPE_CHECKING:  # a type checker that saw it would take any name for one of ours

    def __getattr__(name: str):
        """Load a public name from its file on first use (PEP 562)."""
        if name == "adapters":  # a room and not a name of one
            return import_module("mobilenet_hub.adapters")
        if name not in _OWNERS:
            if name.startswith("_"):  # what other programs ask every module for
                raise AttributeError(f"module 'mobilenet_hub' has no attribute {name!r}")
            from difflib import get_close_matches

            from mobilenet_hub.hub.gone import instead_of

            if instead := instead_of(name):
                raise AttributeError(f"mobilenet_hub has no {name!r} of tensorflow_hub: {instead}", name=name)
            near = get_close_matches(name, _OWNERS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise AttributeError(f"module 'mobilenet_hub' has no attribute {name!r}{hint}", name=name)
        owner = _OWNERS[name]
        if owner.startswith("hub."):
            from mobilenet_hub.keras.backends import require_keras

            require_keras(f"hub.{name}")
        value = getattr(import_module(f"mobilenet_hub.{owner}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names."""
    return __all__


hook.install()
