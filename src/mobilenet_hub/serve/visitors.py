"""Pages in the browser of whoever runs the server: which may have what is private, photos that were taught and found.

A page of another site can send requests here behind the back of whoever looks at it, and, where its name is made to
point at this machine (DNS rebinding), read the answers, too. The first says its Origin; the second comes under a name
that is not ours.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from mobilenet_hub.serve.limits import Refusal


@dataclass(frozen=True, slots=True)
class Visitors:
    """Who may ask for what is private.

    Attributes:
        private: the server listens to this machine alone and demands no token: then its names are known, and a page
            that comes under another is none of ours.
        names: further names that it has, say behind a proxy.
    """

    private: bool = False
    names: frozenset[str] = frozenset()

    def check_name(self, headers: Mapping[str, str]) -> None:
        """Refuse who asks a private server under a name that it does not have.

        Raises:
            Refusal: 403: so it is.
        """
        if self.private and not self._is_ours(headers.get("host", "")):
            raise Refusal(
                403,
                f"the server is asked as {headers.get('host', '')[:80]!r}, and listens to this machine alone; behind a "
                "proxy give it --token, or this name with --cors",
            )

    def check_page(self, headers: Mapping[str, str]) -> None:
        """Refuse the pages of others, and what `check_name` does.

        Raises:
            Refusal: 403: so it is.
        """
        origin = headers.get("origin")
        if origin is not None and _host(origin.partition("//")[2]) != _host(headers.get("host", "")):
            raise Refusal(403, f"pages of {origin[:80]!r} may not teach here")
        self.check_name(headers)

    def _is_ours(self, host: str) -> bool:
        name = _host(host)[0]
        # Only a name can be made to point elsewhere, not an address.
        return name == "localhost" or name.endswith(".localhost") or name in self.names or _is_address(name)


def _host(text: str) -> tuple[str, int | None]:
    """Return the name or address, and the port, of a Host header; ("", None) where it is none.

    Example:
        >>> _host("[::1]:8080"), _host("[")
        (('::1', 8080), ('', None))
    """
    try:
        split = urlsplit(f"//{text}")
        return split.hostname or "", split.port
    except ValueError:
        return "", None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
