"""A list of inputs that is made once, so that whoever reads it sees the same ones: the parts of a run, say."""

import os
from collections.abc import Iterable, Iterator
from glob import has_magic

from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.host.files import exists, is_folder, replacing
from mobilenet_hub.host.object_path import Place, place_of
from mobilenet_hub.host.stores import Address, is_address
from mobilenet_hub.images import in_store, inputs


class Listed:
    """The lines of a list, read anew each time that they are gone through."""

    def __init__(self, place: Place):
        """Say where it is."""
        self._place = place

    def __iter__(self) -> Iterator[str]:
        with self._place.open("rb") as stream:
            yield from (name for line in inputs.lines(stream) if (name := line.rstrip("\r\n")))


def listed(file: str | os.PathLike[str], images: Iterable[str | os.PathLike[str]]) -> Listed:
    """Return what a list holds; where there is none, it is made of the images first, whole or not at all.

    What lies in folders, below prefixes and under patterns is in it by name; archives and tables are one line each.

    Args:
        file: the list; an address in an object store, or a file that all who use it see.
        images: as for `items`.

    Raises:
        InputError: a name that no line can hold.
        OutputError: it cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> list(listed(f"{folder}/list.txt", ["b.jpg", "a.jpg"])), list(listed(f"{folder}/list.txt", ["c.jpg"]))
        (['b.jpg', 'a.jpg'], ['b.jpg', 'a.jpg'])
    """
    place = place_of(file)
    if not exists(place):
        try:
            with replacing(place) as stream:
                for name in _names(inputs.arguments(images)):
                    if "\n" in name or "\r" in name:
                        raise InputError(f"{name!r} has a line's end in its name and cannot stand in a list; rename it")
                    stream.write(os.fsencode(name) + b"\n")
        except InputError:
            raise
        except OSError as error:
            raise OutputError(f"the list {place} cannot be written: {error.strerror or error}") from error
    return Listed(place)


def _names(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if is_address(argument):
            yield from _stored(argument)
        elif is_folder(argument):
            yield from (item.key for item in inputs.items([argument]))
        elif has_magic(argument) and not exists(argument):
            yield from _names(found) if (found := inputs.matches(argument)) else [argument]
        else:
            yield argument


def _stored(argument: str) -> Iterator[str]:
    address = Address.parse(argument)
    if in_store.names_one(argument):
        yield argument
    elif in_store.has_magic(address):
        yield from (str(there) for there, _, _ in in_store.matching(address))
    else:
        yield from (str(there) for there, _ in in_store.below(address))
