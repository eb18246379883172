"""A module that is served: its name in addresses, what computes it, and how pictures are brought to it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.images.decode import held_pixels
from mobilenet_hub.images.fit import Fit
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.embed import Embedder
from mobilenet_hub.inference.engine import Engine, EngineChoice, Precision
from mobilenet_hub.inference.explain import Explainer
from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import CONFIG_FILE, read_config
from mobilenet_hub.store import is_local, locate, resolve, weights_sha256

Outputs = tuple[str, ...]
LOGITS, FEATURES = "logits", "features"
MAX_PIXELS = 1 << 26  # held decoded: beyond, a small file fills the memory
_LARGE_PIXELS = 1 << 22  # from which only one picture is decoded at a time
_large_picture = Lock()


class Postponed(Exception):
    """A large picture that would have to wait for another one."""


@dataclass(frozen=True, slots=True)
class Options:
    """How every module is opened."""

    precision: Precision = "auto"
    image_size: int | tuple[int, int] | None = None
    fit: Fit | None = None
    threads: int | None = None
    any_size: bool = False
    engine: EngineChoice = "auto"


class Served:
    """One module, ready to answer.

    Attributes:
        name: as in addresses.
        version: of the published module; "1" for others.
        folder: the module folder.
        config: the module's configuration.
        weights_sha256: of its weights' file.
        classifier: None where the module has none.
        embedder: its features.
        image_size: (height, width) that pictures are brought to.
        outputs: what it can compute, the main one first.
    """

    def __init__(self, name: str, version: str, folder: Path, options: Options | None = None):
        """Open a module folder, or a folder or archive that holds a module in its own format.

        Raises:
            InputError, InvalidModuleError: as `Classifier` and `Embedder` do.
        """
        self.name, self.version, self.folder = name, version, folder
        self._options = options or Options()
        found = locate(folder, usual_size=self._options.image_size)
        self._source = found
        self.config = found.config if isinstance(found, Module) else read_config(found)
        self.weights_sha256 = weights_sha256(found)
        asked = (found, self._options.precision, self._options.image_size)
        more = {"fit": self._options.fit, "threads": self._options.threads, "any_size": self._options.any_size}
        more["engine"] = self._options.engine
        self.embedder = Embedder(*asked, **more)
        self.classifier = Classifier(*asked, **more) if self.config.num_classes else None
        self.image_size = self.embedder.image_size
        self.fit: Fit = self.embedder.fit
        self.outputs: Outputs = (LOGITS, FEATURES) if self.classifier else (FEATURES,)
        self._engines: dict[Outputs, Engine] = {(FEATURES,): self.embedder.engine}
        if self.classifier:
            self._engines[LOGITS,] = self.classifier.engine
        self._lock = Lock()

    @property
    def main_output(self) -> str:
        """The logits where there is a classifier, else the features."""
        return self.outputs[0]

    def width(self, output: str) -> int:
        """Return how many numbers an output has for each picture."""
        return self.config.num_classes if output == LOGITS else self.embedder.num_features

    def engine(self, outputs: Outputs) -> Engine:
        """Return what computes these outputs; it is compiled when it first runs."""
        with self._lock:
            if outputs not in self._engines:
                self._engines[outputs] = Engine(
                    self._source,
                    outputs,
                    image_size=self.image_size,
                    precision=self._options.precision,
                    threads=self._options.threads,
                    any_size=True,
                    engine=self._options.engine,
                )
            return self._engines[outputs]

    def explainer(self) -> Explainer:
        """Return what explains the classifier's answers; from then on, `engine` has its outputs.

        Raises:
            InputError: the module keeps a quantized file.
        """
        assert self.classifier is not None
        explainer = self.classifier.explainer
        with self._lock:
            self._engines.setdefault((LOGITS, explainer.feature_map), explainer.engine)
        return explainer

    def warm_up(self, sizes: Sequence[int] = (1,)) -> None:
        """Compile what most requests need, for batches of these sizes."""
        engine = self.engine((self.main_output,))
        for size in sizes:
            (engine.run if size == 1 else engine.run_here)(self.blank(size))

    def blank(self, count: int) -> np.ndarray:
        """Return black images, uint8 [count, height, width, 3]."""
        return np.zeros((count, *self.image_size, 3), np.uint8)

    def load(self, picture: "bytes | np.ndarray", *, patient: bool = True) -> np.ndarray:
        """Bring one picture to the network's input, uint8 [height, width, 3].

        Raises:
            ImageError: it cannot be read, or has too many pixels.
            Postponed: it is large, another large one is being decoded, and the caller is not patient.
        """
        least = self.embedder.preprocessing.sufficient_size
        held = held_pixels(picture, least) if isinstance(picture, bytes) else 0
        if held is not None and held > MAX_PIXELS:
            raise ImageError(
                f"{held / 1e6:.0f} million pixels would have to be held, and this server's limit is "
                f"{MAX_PIXELS / 1e6:.0f} million; reduce the picture first"
            )
        if held is not None and held <= _LARGE_PIXELS:
            return self.embedder.preprocessing.load(picture)
        if not _large_picture.acquire(blocking=patient):
            raise Postponed
        try:
            return self.embedder.preprocessing.load(picture)
        finally:
            _large_picture.release()


@dataclass
class Modules:
    """The modules that are served by name; the first is the one that is meant where none is named."""

    by_name: dict[str, Served] = field(default_factory=dict)

    @property
    def first(self) -> Served:
        """The module that is meant where none is named."""
        return next(iter(self.by_name.values()))

    def add(self, module: str | os.PathLike[str], options: Options) -> Served:
        """Open a module by any of its names.

        Raises:
            InputError: another of the same name is served already.
            The errors of `resolve` and of `Served`.
        """
        folder = resolve(module)
        name, version = served_name(module, folder)
        if name in self.by_name:
            raise InputError(
                f"two modules would be served as {name!r} ({self.by_name[name].folder} and {folder}): rename one folder"
            )
        self.by_name[name] = Served(name, version, folder, options)
        return self.by_name[name]


def served_name(module: str | os.PathLike[str], folder: Path) -> tuple[str, str]:
    """Return a module's name in addresses, and its version.

    Args:
        module: as the user named it.
        folder: where it is.

    Example:
        >>> served_name("google/imagenet/mobilenet_v2_130_224/feature_vector/5", Path("in/the/cache"))
        ('mobilenet_v2_130_224-feature_vector', '5')
        >>> served_name("starter", Path("starter"))
        ('starter', '1')
    """
    from mobilenet_hub.catalog.find import find_module

    if isinstance(module, os.PathLike) or is_local(module):
        from mobilenet_hub.store.places import module_named_by

        # A published module in its own format often lies in a folder that is named by its version alone.
        found = None if (folder / CONFIG_FILE).is_file() else module_named_by(folder)
        if found is None:
            # Not where a link leads: `shop -> releases/42` is "shop", today and when it leads to 43.
            return os.path.basename(os.path.abspath(folder)) or "module", "1"  # noqa: PTH100, PTH119
    else:
        found = find_module(module)
    short = found.stem.removeprefix("google/").removeprefix("imagenet/")
    return short.replace("/", "-"), str(found.version)
