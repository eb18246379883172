"""What S3 can and pyarrow's file system cannot: pages of names, writing under a condition, one request for an object.

All of it with botocore, which is no part of the base install: where it is missing, folders are listed whole, one by
one, a condition becomes a look before the write (host/object_path.py), and an object is asked for its size first.
"""

import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote, urlsplit

from mobilenet_hub.host.stores import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    CONNECTIONS,
    CREDENTIALS,
    FIRST_PAUSE_S,
    Address,
    StoreError,
    attempts,
    endpoint,
    explained,
    is_anonymous,
    refusal,
    region,
)

_REFUSED = (400, 401, 403)
_REFUSAL = re.compile(r"<Code>(\w+)</Code>.*?<Message>(.*?)</Message>", re.DOTALL)
_REFUSAL_BYTES = 1 << 12
_DENIED = ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")


class ChangedError(StoreError):
    """An object that is not what it was when it was last looked at: somebody else has written it."""


def has_client(address: Address) -> bool:
    """Tell whether there is a client for what pyarrow cannot do."""
    return address.scheme == "s3" and find_spec("botocore") is not None


def names(address: Address, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield (key, size) of all objects whose key begins with a prefix, in the order of the keys' bytes, page by page.

    Raises:
        StoreError: as for all of them.
    """
    with _explained(address):
        pages = _client(address).get_paginator("list_objects_v2").paginate(Bucket=address.bucket, Prefix=prefix)
        for page in pages:
            if "IsTruncated" not in page:
                raise _no_store(address, "its list says not whether it is whole")
            for entry in page.get("Contents", ()):
                yield entry["Key"], entry["Size"]


def is_object(address: Address) -> bool:
    """Tell whether there is an object of that key. Unlike for a HEAD, a store says why it refuses.

    Raises:
        StoreError: the store cannot be listed, or has no such bucket.
    """
    with _explained(address):
        found = _client(address).list_objects_v2(Bucket=address.bucket, Prefix=address.key, MaxKeys=1)
    return any(entry["Key"] == address.key for entry in found.get("Contents", ()))  # it would be the first


def fetch(address: Address, most: int, count: int | None = None) -> bytes | None:
    """Return an object's content by one request; None where that did not bring it.

    pyarrow asks for the size first, which is a second request for each photo. What one request does not bring, pyarrow
    is to be asked for: it tries again with pauses that grow, and what it says is explained (`stores.refusal`).

    Args:
        address: of the object.
        most: None for an object of more bytes.
        count: only so many bytes of its beginning.

    Raises:
        StoreError: the store refuses it.
    """
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    try:
        direct = _direct(address.bucket, endpoint("s3"), os.getpid())
        if direct is None:
            return None
        response = direct.ask(address.key, {} if count is None else {"Range": f"bytes=0-{count - 1}"})
        size = int(response.headers.get("Content-Length", "-1"))
        if response.status in (200, 206) and 0 <= size <= most:
            data = response.read()  # raises where it is cut off
            response.release_conn()
            return data if count is None else data[:count]
        said = response.read(_REFUSAL_BYTES) if response.status in _REFUSED else b""
        response.close()  # what else it has to say may be long
    except (HTTPError, BotoCoreError, ValueError):
        return None
    if found := _REFUSAL.search(said.decode(errors="replace")):  # pyarrow's first request would not be told why
        code, words = found.groups()
        raise refusal(address, f"AWS Error {code} (HTTP status {response.status}) during GetObject operation: {words}")
    if response.status >= 500:
        time.sleep(FIRST_PAUSE_S * random.uniform(0.5, 1.0))
    return None


@dataclass(frozen=True, slots=True)
class _Direct:
    """A bucket's connections, and what signs what is asked for through them."""

    pool: Any  # urllib3's
    host: str
    base: str  # the path before a key
    region: str
    credentials: Any  # botocore's, which are renewed; None: nothing is signed
    scheme: str

    def ask(self, key: str, headers: dict[str, str]) -> Any:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        path = self.base + quote(key, safe="/~")
        if self.credentials:
            request = AWSRequest("GET", f"{self.scheme}://{self.host}{path}", headers)
            S3SigV4Auth(self.credentials.get_frozen_credentials(), "s3", self.region).add_auth(request)
            headers = dict(request.headers)
        return self.pool.urlopen(
            "GET", path, headers=headers, retries=False, redirect=False, preload_content=False, decode_content=False
        )


@cache
def _direct(bucket: str, server: str, process: int) -> _Direct | None:
    """Return how to ask for a bucket's objects; None where that is for pyarrow alone: through a proxy."""
    from urllib.request import getproxies, proxy_bypass

    from botocore.httpsession import get_cert_path
    from urllib3 import Timeout, connection_from_url

    session, client = _opened(bucket, server, process)
    found = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}))
    url = f"{found.scheme}://{found.netloc}"
    if found.scheme in getproxies() and not proxy_bypass(found.netloc):
        return None
    verified = {"ca_certs": get_cert_path(session.get_config_variable("ca_bundle") or True)}
    pool = connection_from_url(
        url,
        maxsize=CONNECTIONS,
        timeout=Timeout(connect=CONNECT_TIMEOUT_S, read=ANSWER_TIMEOUT_S),
        **(verified if found.scheme == "https" else {}),
    )
    credentials = None if is_anonymous("s3") else session.get_credentials()
    return _Direct(pool, found.netloc, found.path.removesuffix("k"), client.meta.region_name, credentials, found.scheme)


def etag(address: Address) -> str | None:
    """Return what stands for an object's content; None where there is no object."""
    from botocore.exceptions import ClientError

    with _explained(address):
        try:
            return _client(address).head_object(Bucket=address.bucket, Key=address.key)["ETag"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            is_object(address)  # which is told why, where a HEAD is not
            raise


def put_if(address: Address, data: bytes, expected: str | None) -> str:
    """Write an object where it is what it was, and return what stands for its new content.

    Args:
        address: of the object.
        data: its new content.
        expected: what stood for its content when it was last looked at; None: it must not be there.

    Raises:
        ChangedError: it is another now.
        NotImplementedError: the store knows no conditions.
    """
    from botocore.exceptions import ClientError

    condition = {"IfMatch": expected} if expected else {"IfNoneMatch": "*"}
    with _explained(address):
        try:
            return _client(address).put_object(Bucket=address.bucket, Key=address.key, Body=data, **condition)["ETag"]
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409") or (
                expected and code in ("NoSuchKey", "404")
            ):
                raise ChangedError(f"{address} was written by somebody else meanwhile") from None
            if code in ("NotImplemented", "501"):
                raise NotImplementedError(code) from None
            raise


def remove(address: Address) -> None:
    """Remove an object if it is there. pyarrow would leave an empty object in the place of a folder."""
    with _explained(address):
        _client(address).delete_object(Bucket=address.bucket, Key=address.key)


def _client(address: Address) -> Any:
    return _opened(address.bucket, endpoint("s3"), os.getpid())[1]


@cache
def _opened(bucket: str, server: str, process: int) -> tuple[Any, Any]:
    """Return botocore's session and client."""
    import botocore
    from botocore.config import Config
    from botocore.session import get_session

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=ANSWER_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": attempts()},
        signature_version=botocore.UNSIGNED if is_anonymous("s3") else None,
        s3={"addressing_style": "path" if server else "virtual"},  # "virtual" also names the region's own server
    )
    known = region()
    if not known and not server:
        from pyarrow.fs import resolve_s3_region

        known = resolve_s3_region(bucket)
    session = get_session()
    return session, session.create_client(
        "s3", region_name=known or "us-east-1", endpoint_url=server or None, config=config
    )


@contextmanager
def _explained(address: Address) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
    from botocore.parsers import ResponseParserError

    with explained(address):
        try:
            yield
        except StoreError:
            raise
        except ClientError as error:
            code = error.response["Error"].get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
            name = {"NoSuchBucket": "NO_SUCH_BUCKET", "NoSuchKey": "NO_SUCH_KEY"}.get(code, code) or "UNKNOWN"
            name = "ACCESS_DENIED" if code in _DENIED else name
            said = f"AWS Error {name} (HTTP status {status}) during {error.operation_name} operation: {error}"
            raise refusal(address, said) from error
        except (HTTPClientError, ConnectionError, RecursionError) as error:
            # Sent to another region that is not named, botocore asks which, and is answered in the same way.
            name = "PermanentRedirect" if "recursion" in str(error) else "NETWORK_CONNECTION"
            raise refusal(address, f"AWS Error {name} during Request operation: {error}") from error
        except (ResponseParserError, KeyError) as error:
            raise _no_store(address, repr(error)) from error
        except (BotoCoreError, ValueError) as error:  # what was set: a profile, a role, a server's address
            raise StoreError(f"{address}: {error}. {CREDENTIALS['s3']}") from error


def _no_store(address: Address, said: str) -> StoreError:
    return StoreError(
        f"{address}: {endpoint('s3') or 'the server'} does not answer as S3 does; is AWS_ENDPOINT_URL right? ({said})"
    )
