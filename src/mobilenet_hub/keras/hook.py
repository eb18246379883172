"""Registers our layers with Keras as soon as Keras is imported, so that saved models load after `import mobilenet_hub`.

Keras looks classes up among those registered and imports none by itself, and we import no Keras. So we wait for it:
a finder that sees the import of Keras, lets it happen, and then imports the file that registers.
"""

import sys
from importlib import import_module

TYPE_CHECKING = False  # typing's own costs more time than all of this file
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_REGISTERS = "mobilenet_hub.hub.keras_layer"  # and what it imports: layers, models
_BELOW = ("mobilenet_hub.keras.", "mobilenet_hub.hub.")  # where that lies


def install() -> None:
    """Register now if Keras is imported already, else when it will be."""
    if hasattr(sys.modules.get("keras"), "saving"):
        import_module(_REGISTERS)
    else:
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras:
    """A finder (importlib.abc.MetaPathFinder) that answers for "keras" until it is imported, and then goes.

    Being asked is not yet an import: TensorFlow looks Keras up long before it imports it.
    """

    def find_spec(self, fullname: str, path: object, target: "ModuleType | None" = None) -> "ModuleSpec | None":
        if fullname != "keras":
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(fullname, None, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: "ModuleType") -> None:
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                execute(module)
                if not _half_made():
                    import_module(_REGISTERS)

            spec.loader.exec_module = execute_and_register
        return spec


def _half_made() -> bool:
    """Tell whether one of our own files is what asked for Keras: half made, it bears no file above it."""
    files = [module for name, module in list(sys.modules.items()) if name.startswith(_BELOW)]
    return any(getattr(getattr(file, "__spec__", None), "_initializing", False) for file in files)
