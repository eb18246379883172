"""Modules at addresses of anybody's: `http://host/me/flowers/1`, as `export --format site` makes them.

tensorflow_hub asks such an address for a compressed SavedModel, and so do we. There is no catalog to hold it against:
the module is what the file says. In the cache it goes by its host and path.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from mobilenet_hub.catalog.names import is_published_place
from mobilenet_hub.errors import UnknownModuleError

_WORD = re.compile(r"(?!\.)[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Address:
    """Where a module of one's own is served."""

    url: str  # without a query
    handle: str  # its name in the cache: host and path

    @property
    def archive(self) -> str:
        """The address of its archive."""
        return f"{self.url}?tf-hub-format=compressed"


def own_address(name: object) -> Address | None:
    """Return the address that a module's name is; None where it is none, or one of TF Hub or Kaggle.

    Raises:
        UnknownModuleError: an address that cannot be a module's.

    Example:
        >>> own_address("http://localhost:8000/me/flowers/1").handle
        'localhost_8000/me/flowers/1'
        >>> own_address("https://tfhub.dev/google/imagenet/mobilenet_v2_130_224/feature_vector/5") is None
        True
    """
    if not isinstance(name, str) or not name.strip().lower().startswith(("http://", "https://")):
        return None
    try:
        url = urlsplit(name.strip())
        host, port = (url.hostname or "").lower(), url.port
    except ValueError as error:
        raise UnknownModuleError(f"{name!r} is no address of a module: {error}") from None
    if is_published_place(host):
        return None
    words = [word for word in unquote(url.path).split("/") if word]
    if not words or not all(map(_WORD.fullmatch, [host, *words])) or url.username or url.password:
        raise UnknownModuleError(
            f"{name!r} is no address of a module; it should be as http://host/me/flowers/1, without user or password, "
            "its words of letters, digits, - _ and ."
        )
    place = host if port is None else f"{host}:{port}"
    path = "/".join(words)
    return Address(f"{url.scheme.lower()}://{place}/{path}", f"{place.replace(':', '_')}/{path}")
