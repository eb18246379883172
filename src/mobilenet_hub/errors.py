"""Every error that this package raises on purpose.

MobileNetHubError
├── UnknownModuleError   (ValueError)         a module name that never existed, or cannot be read as one
├── ModuleUnavailableError (FileNotFoundError) a module that exists but is neither in the cache nor fetchable
├── InvalidModuleError   (ValueError)         a module folder or set of tensors that is not a MobileNet
├── CorruptFileError     (ValueError)         a weights file or archive that is damaged or not of its format
├── ImageError           (ValueError)         one image that cannot be decoded
├── InputError           (ValueError)         an argument or array of the wrong shape, range, dtype or value
├── MissingExtraError    (ImportError)        an optional dependency is absent; the text has the install line
├── DownloadError        (OSError)            a fetch that failed
│   └── OfflineError                          a fetch that MOBILENET_HUB_OFFLINE=1 forbids
├── OutputError          (OSError)            a result that could not be written
├── AccuracyError        (AssertionError)     a trained module that is less accurate than was asked for
├── DivergedError        (ArithmeticError)    training that led to no usable weights
└── ProofError           (ArithmeticError)    an export whose own runtime gives something else than the module

Each also inherits the builtin that a user would catch. The text says what happened, what was received and what
to do.
"""


class MobileNetHubError(Exception):
    """The base class of every error of this package."""


class UnknownModuleError(MobileNetHubError, ValueError):
    """A module name that never existed, or cannot be read as one."""


class ModuleUnavailableError(MobileNetHubError, FileNotFoundError):
    """A module that exists but is neither in the cache nor fetchable."""


class InvalidModuleError(MobileNetHubError, ValueError):
    """A module folder or set of tensors that is not exactly one MobileNet."""


class CorruptFileError(MobileNetHubError, ValueError):
    """A weights file or archive that is damaged, cut off or not of its format."""


class ImageError(MobileNetHubError, ValueError):
    """One image that cannot be decoded; bulk commands list it, with `reason`, and go on."""

    def __init__(self, reason: str, source: str = ""):
        super().__init__(f"{source}: {reason}" if source else reason)
        self.reason = reason


class InputError(MobileNetHubError, ValueError):
    """An argument or array of the wrong shape, range, dtype or value."""


class MissingExtraError(MobileNetHubError, ImportError):
    """An optional dependency is absent; the text holds the exact install line."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f"{purpose} needs {package}, which is not installed. Run: pip install 'mobilenet-hub[{extra}]'"
        )
        self.package = package
        self.extra = extra


class DownloadError(MobileNetHubError, OSError):
    """A fetch that failed, with the address and the reason."""


class OfflineError(DownloadError):
    """A fetch that MOBILENET_HUB_OFFLINE=1 forbids."""


class OutputError(MobileNetHubError, OSError):
    """A result that could not be written."""


class AccuracyError(MobileNetHubError, AssertionError):
    """A trained module that is less accurate than was asked for; it is not written."""


class DivergedError(MobileNetHubError, ArithmeticError):
    """Training that led to no usable weights: its loss grew without bound, or is no number; nothing is kept."""


class ProofError(MobileNetHubError, ArithmeticError):
    """An export whose own runtime gives something else than the module; nothing of it is kept."""
