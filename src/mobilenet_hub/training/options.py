"""How options of training refuse values that mean nothing."""

from collections.abc import Collection, Mapping

from mobilenet_hub.errors import InputError


def check_values(options: object, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Hold the fields of an options object against rules.

    Args:
        options: the object.
        rules: by field, whether its value is allowed, and what is.

    Raises:
        InputError: a value is not; names the field, what is allowed, and the value.

    Example:
        >>> check_values(1j, {"imag": (False, "a number from 2")})
        Traceback (most recent call last):
        mobilenet_hub.errors.InputError: imag must be a number from 2, not 1.0
    """
    for name, (holds, allowed) in rules.items():
        if not holds:
            raise InputError(f"{name} must be {allowed}, not {getattr(options, name)!r}")


def one_of(value: object, allowed: Collection[str]) -> tuple[bool, str]:
    """Return the rule that a value is one of some words.

    Example:
        >>> one_of("f16", ("f32", "bf16"))
        (False, 'one of f32, bf16')
    """
    return value in allowed, f"one of {', '.join(allowed)}"
