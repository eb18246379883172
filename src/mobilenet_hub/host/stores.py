"""Object stores: what an s3:// or gs:// address names, pyarrow's file system for it, and its errors in our words.

What a store says goes into one of three kinds. An object that is not there is like a file that is not there. A name
that means nothing to it, or credentials that do not do, is the user's to mend. Anything else is the store's or the
network's fault; it was tried again with pauses that grow, and is no fault of any picture.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from mobilenet_hub.errors import InputError
from mobilenet_hub.host.environment import setting

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

Read = TypeVar("Read")

SCHEMES = {"s3": "s3://", "gs": "gs://"}
_ADDRESS = re.compile(r"(s3|gs)://([^/]*)/?(.*)", re.DOTALL | re.IGNORECASE)
_FLATTENED = re.compile(r"(.*/)?(s3|gs):[\\/]+.*", re.DOTALL | re.IGNORECASE)  # also what `Path` makes of an address
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10.0, 30.0
CONNECTIONS = 32  # to one store, for what is read
_ATTEMPTS = 6  # with pauses that double, up to 20 s
_GIVE_UP_S = 60  # for Google's client, which counts seconds
_SERVERS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}
_PROTOCOLS = {"s3": "https", "gs": "http"}  # where its address names none; an emulator of Google's has no other
_ANONYMOUS = {"s3": "AWS_NO_SIGN_REQUEST", "gs": "GS_NO_SIGN_REQUEST"}
_YES = frozenset(["1", "true", "yes", "on"])

_CUT_OFF = "AWS Error NETWORK_CONNECTION during GetObject operation: the answer was cut off"
_AGAIN = re.compile(r"flush response stream|the answer was cut off")
FIRST_PAUSE_S = 0.1

_AWS = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))? during (\w+) operation: (.*)", re.DOTALL)
_DENIED = re.compile(
    r"ACCESS_?DENIED|EXPIRED|CREDENTIAL|SIGNATURE|TOKEN|ACCESS_?KEY_?ID|UNRECOGNIZED_CLIENT|AUTHORIZED|OPT_IN",
    re.IGNORECASE,
)


class StoreError(InputError, OSError):
    """A store that does not do what it is asked; the text says what it said and what to do."""


class NoSuchObjectError(StoreError, FileNotFoundError):
    """An object that is not there."""


class DeniedError(StoreError, PermissionError):
    """What the credentials may not do."""


@dataclass(frozen=True, slots=True)
class Address:
    """A place in an object store."""

    scheme: str  # "s3" or "gs"
    bucket: str
    key: str  # "" for the bucket itself; no "/" at its end

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an address.

        Raises:
            InputError: it names no bucket.

        Example:
            >>> Address.parse("s3://bucket/photos/1.jpg")
            Address(scheme='s3', bucket='bucket', key='photos/1.jpg')
        """
        found = _ADDRESS.fullmatch(text)
        if not found or not found[2]:
            raise InputError(f"{text!r} names no bucket; an address is as s3://bucket/photos or gs://bucket/photos")
        return cls(found[1].lower(), found[2], found[3].rstrip("/"))

    def __str__(self) -> str:
        return f"{SCHEMES[self.scheme]}{self.bucket}" + (f"/{self.key}" if self.key else "")

    @property
    def path(self) -> str:
        """What pyarrow calls it."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    def filesystem(self) -> "FileSystem":
        """Return pyarrow's file system for it, one for each bucket and process.

        Raises:
            StoreError: it cannot be reached.
        """
        with explained(self):
            return _filesystem(self.scheme, self.bucket, endpoint(self.scheme), os.getpid())


def is_address(name: object) -> bool:
    """Tell whether this is the text of an address in an object store.

    Example:
        >>> is_address("s3://bucket/photos"), is_address("photos/s3://")
        (True, False)
    """
    return isinstance(name, str) and bool(_ADDRESS.fullmatch(name))


def demand_local(path: str | os.PathLike[str], purpose: str) -> None:
    """Refuse an address where only a path of this machine will do; also one that `Path` has made a path of.

    Raises:
        InputError: it is one.

    Example:
        >>> demand_local("photos", "the folder")
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
    if _FLATTENED.fullmatch(text):
        raise InputError(
            f"{text} is an address in an object store, where {purpose} has to be on this machine; copy it here first "
            "(the IMAGES and OUT of `embed` and `classify`, and `merge`, may be such addresses)"
        )


def endpoint(scheme: str) -> str:
    """Return the address of the server that an environment variable names; "" for Amazon's or Google's own."""
    found = next((found for name in _SERVERS[scheme] if (found := setting(name))), "")
    return found if not found or "://" in found else f"{_PROTOCOLS[scheme]}://{found}"


def is_anonymous(scheme: str) -> bool:
    """Tell whether an environment variable says that no credentials are to be used."""
    return setting(_ANONYMOUS[scheme]).lower() in _YES


def where_stores_are() -> dict[str, str]:
    """Return the variables that say so and are set, for processes elsewhere; credentials, which are secret, are not."""
    names = (
        *_SERVERS["s3"],
        *_SERVERS["gs"],
        *_ANONYMOUS.values(),
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_CA_BUNDLE",
    )
    return {name: value for name in names if (value := setting(name))}


def attempts() -> int:
    """Return how often a request is tried."""
    asked = setting("AWS_MAX_ATTEMPTS")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else _ATTEMPTS


def region() -> str | None:
    """Return the region that an environment variable names."""
    return setting("AWS_REGION") or setting("AWS_DEFAULT_REGION") or None


@cache
def _filesystem(scheme: str, bucket: str, server: str, process: int) -> "FileSystem":
    """Open it; `process` is there because no connection survives a fork."""
    protocol, _, host = server.rpartition("://")
    if scheme == "gs":
        from datetime import timedelta

        from pyarrow.fs import GcsFileSystem

        there: dict[str, Any] = {"endpoint_override": host, "scheme": protocol} if server else {}
        return GcsFileSystem(
            anonymous=is_anonymous("gs") or bool(server), retry_time_limit=timedelta(seconds=_GIVE_UP_S), **there
        )
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    there = {"endpoint_override": host, "scheme": protocol or "https", "region": region()}
    if not server:
        there = {"region": resolve_s3_region(bucket)}  # asked without credentials; also tells that there is no bucket
    if own := setting("AWS_CA_BUNDLE"):
        there["tls_ca_file_path"] = own
    return S3FileSystem(
        anonymous=is_anonymous("s3"),
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=ANSWER_TIMEOUT_S,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts()),
        **there,
    )


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turn what a store's library raises into a `StoreError`.

    Raises:
        NoSuchObjectError: it is not there.
        StoreError: anything else; with what to do.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise refusal(address, str(error), error) from error
    except ValueError as error:
        from pyarrow import ArrowInvalid

        if not isinstance(error, ArrowInvalid):
            raise
        raise StoreError(f"{address}: pyarrow takes no such address ({error})") from error


def refusal(address: Address, text: str, error: OSError | None = None) -> StoreError:
    """Return the error for what a store's library said."""
    found = _AWS.search(text)
    code, status = (found[1], found[2] or "") if found else ("", "")
    said = " ".join(text.split())
    where = f"{SCHEMES[address.scheme]}{address.bucket}"
    if code == "NO_SUCH_BUCKET" or "bucket does not exist" in text or re.search(r"[Bb]ucket '[^']*' not found", text):
        return StoreError(f"{address}: there is no bucket {address.bucket}; is its name right, and the server's?")
    if isinstance(error, FileNotFoundError) or code in ("NO_SUCH_KEY", "RESOURCE_NOT_FOUND"):
        return NoSuchObjectError(f"{address}: no such object")
    untold = status == "400" and "during Head" in text  # whose answers have no text
    if status in ("301", "307") or "PermanentRedirect" in text or "AuthorizationHeaderMalformed" in text or untold:
        server = endpoint(address.scheme)
        other = f"; or {server} is not the address of its server" if server and not untold else ""
        return StoreError(
            f"{where} is in another region than {region() or 'the one assumed'}: set AWS_REGION to the bucket's"
            f"{'; or the credentials have expired' if untold else other} ({said})"
        )
    if _DENIED.search(code) or status in ("401", "403") or isinstance(error, PermissionError) or _is_denied(text):
        return DeniedError(f"{address}: access is denied. {CREDENTIALS[address.scheme]} ({said})")
    if code == "NETWORK_CONNECTION" or "curl" in text.lower():
        server = endpoint(address.scheme)
        at = f"at {server} " if server else ""
        names = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}[address.scheme]
        return StoreError(
            f"{address}: the store {at}does not answer, or the connection breaks; it was tried {attempts()} times. "
            f"Is the network there, and {names} right where it is set? ({said})"
        )
    return StoreError(f"{address}: the store fails, after several tries ({said}); try again later")


def reading(address: Address, read: Callable[[], Read]) -> Read:
    """Return what a reading of an object gives; what pyarrow itself does not try again is tried again here.

    Its client gives up where the text of an error is longer than the bytes that were asked for, and may take an answer
    that was cut off for the whole one, which `complete` reports.

    Raises:
        NoSuchObjectError: it is not there.
        StoreError: it cannot be read.
    """
    pause_s = FIRST_PAUSE_S
    for left in reversed(range(attempts())):
        try:
            with explained(address):
                return read()
        except StoreError as error:
            if not left or not _AGAIN.search(str(error)):
                raise
        time.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s *= 2
    raise AssertionError("the last try returns or raises")


def is_plain(address: Address) -> bool:
    """Tell whether pyarrow can ask for an object: not where a part of its key is empty or dots, as in a//b and a/../b.

    Example:
        >>> is_plain(Address("s3", "bucket", "a/b.jpg")), is_plain(Address("s3", "bucket", "a//b.jpg"))
        (True, False)
    """
    return not {"", ".", ".."} & set(address.key.split("/"))


def complete(data: bytes, size: int) -> bytes:
    """Return what was read where it is all that was asked for: what is cut off `reading` asks for again.

    Raises:
        OSError: it is shorter.
    """
    if len(data) < size:
        raise OSError(_CUT_OFF)
    return data


def _is_denied(text: str) -> bool:
    return any(words in text for words in ("Permission denied", "PERMISSION_DENIED", "UNAUTHENTICATED", "credentials"))


CREDENTIALS = {
    "s3": "Credentials are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE and ~/.aws, or the role "
    "of this machine; none were found, or they may not do this. For a public bucket set AWS_NO_SIGN_REQUEST=yes",
    "gs": "Credentials are taken from GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, or the "
    "role of this machine; none were found, or they may not do this. For a public bucket set GS_NO_SIGN_REQUEST=yes",
}
