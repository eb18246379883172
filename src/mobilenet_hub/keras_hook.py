"""Registers our layers with Keras as soon as Keras is imported, so that saved models load after `import mobilenet_hub`.

Keras looks classes up among those registered and imports none by itself, and we import no Keras. So we wait for it:
a finder that sees the import of Keras, lets it happen, and then imports the file that registers. Standard library only.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_REGISTERS = "mobilenet_hub.hub.keras_layer"  # and what it imports: layers, models
_BELOW = ("mobilenet_hub.kernels", "mobilenet_hub.layers", "mobilenet_hub.models")


def install() -> None:
    """Register now if Keras is imported already, else when it will be."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "saving"):
        import_module(_REGISTERS)
    else:
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(Loader):
    def __init__(self, inner: Loader):
        self.inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        # One of these, imported by name, is what asked for Keras: it is half made, and no floor above it can be built.
        if not any(name in sys.modules for name in _BELOW):
            import_module(_REGISTERS)
