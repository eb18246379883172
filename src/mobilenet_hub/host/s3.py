"""What S3 can and pyarrow's file system cannot: listing in pages, and writing under a condition. With botocore.

botocore is no part of the base install: where it is missing, folders are listed whole, one by one, and a condition
becomes a look before the write (host/object_path.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

from mobilenet_hub.host.stores import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    Address,
    StoreError,
    attempts,
    endpoint,
    explained,
    is_anonymous,
    refusal,
    region,
)

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
            for entry in page.get("Contents", ()):
                yield entry["Key"], entry["Size"]


def etag(address: Address) -> str | None:
    """Return what stands for an object's content; None where there is no object."""
    from botocore.exceptions import ClientError

    with _explained(address):
        try:
            return _client(address).head_object(Bucket=address.bucket, Key=address.key)["ETag"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
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
    return _opened(address.bucket, endpoint("s3"), os.getpid())


@cache
def _opened(bucket: str, server: str, process: int) -> Any:
    import botocore
    from botocore.config import Config
    from botocore.session import get_session

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=ANSWER_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": attempts()},
        signature_version=botocore.UNSIGNED if is_anonymous("s3") else None,
        s3={"addressing_style": "path"} if server else None,
    )
    known = region()
    if not known and not server:
        from pyarrow.fs import resolve_s3_region

        known = resolve_s3_region(bucket)
    return get_session().create_client(
        "s3", region_name=known or "us-east-1", endpoint_url=server or None, config=config
    )


@contextmanager
def _explained(address: Address) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    with explained(address):
        try:
            yield
        except ClientError as error:
            code = error.response["Error"].get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
            name = {"NoSuchBucket": "NO_SUCH_BUCKET", "NoSuchKey": "NO_SUCH_KEY"}.get(code, code)
            name = "ACCESS_DENIED" if code in _DENIED else name
            said = f"AWS Error {name} (HTTP status {status}) during {error.operation_name} operation: {error}"
            raise refusal(address, said) from error
        except BotoCoreError as error:
            name = "ACCESS_DENIED" if "redential" in str(error) else "NETWORK_CONNECTION"
            raise refusal(address, f"AWS Error {name} during a request operation: {error}") from error
