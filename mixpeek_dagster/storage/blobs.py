"""The warehouse's own files: uploads, thumbnails, artifacts. Keys are ours, never a user's text.

`BlobStore` is the port; `managed` holds files in a folder, `managed_s3`, `managed_gcs` and `managed_azure` in a bucket of a provider's
(`stores` opens them). Clients put and get files at presigned URLs.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, NamedTuple, Protocol
from urllib.parse import quote

from mixpeek_dagster.errors import Invalid

LONGEST_NAME = 100


class Blob(NamedTuple):
    """A stored file. `sha256` (hex) is known when we wrote the bytes ourselves, else only where the store computes it; or empty.
    `etag` is opaque."""

    key: str
    size: int
    etag: str
    content_type: str = ""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Presigned:
    """A request that a client may send until `expires_at`: exactly this method and URL, with these headers."""

    method: str
    url: str
    headers: dict[str, str]
    expires_at: datetime


class StoreUrl(NamedTuple):
    """Where a store is: a bucket or container, what comes before every key in it (empty, or it ends with `/`), and options."""

    place: str
    prefix: str
    options: Mapping[str, str]


class BlobStore(Protocol):
    """Where our files are. Safe to share between threads and processes. Failures are `ProviderError`s, as in `ObjectSource`."""

    @property
    def is_remote(self) -> bool:
        """Clients put files there themselves, at URLs of `presign_put`, so that they do not pass through this server."""
        ...

    def put(
        self, key: str, source: BinaryIO, *, content_type: str = "", max_bytes: int | None = None, replace: bool = False
    ) -> Blob:
        """Store a stream; it is there whole or not at all.

        Raises:
            AlreadyExists: the key is taken, and `replace` is off.
            Invalid: the stream is longer than `max_bytes`.
        """
        ...

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> AbstractContextManager[BinaryIO]:
        """Read a file, or a part of it as `ObjectSource.open` does. Raises FileNotFoundError when there is none."""
        ...

    def head(self, key: str) -> Blob | None:
        """What is known of a file without reading it; None when there is none."""
        ...

    def copy(self, key: str, to: str, *, etag: str) -> None:
        """Make another file of the same content, replacing what is there, without reading it here where the store can do that.

        Raises:
            FileNotFoundError: there is none.
            Changed: it has another ETag.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a file; a missing one is no error."""
        ...

    def presign_put(
        self, key: str, *, expires_s: int, content_type: str = "", size: int | None = None, max_bytes: int | None = None
    ) -> Presigned:
        """Let a client put a file with a PUT that carries the answer's `headers`: of this content type, of exactly `size` bytes.

        Without a size, of at most `max_bytes`. A store holds clients to as much of that as it can, and to putting the file once; what
        it let pass is found on confirming, and `copy` brings what was checked to where the URL does not lead. Without a size, headers
        other than Content-Type are asked for only where the store takes no file without them.
        """
        ...

    def presign_get(self, key: str, *, expires_s: int, content_type: str = "", filename: str = "") -> Presigned:
        """Let a client read a file; `filename` makes a browser save it under that name."""
        ...

    def remove_leftovers(self) -> int:
        """Remove what writers that died a day ago or longer left half written; how many there were. A store that takes files whole or
        not at all has none."""
        ...


_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


def check_one_put(size: int, *, largest: int, max_bytes: int | None) -> None:
    """Raises Invalid: a file of so many bytes is more than the provider takes in one request, or than is allowed."""
    if size > min(largest, largest if max_bytes is None else max_bytes):
        raise Invalid(f"A file of {size} bytes is too large to be put in one request.")


def check_key(key: str) -> str:
    """The key, when it is of the form that we make: no `..`, no empty part, plain ASCII.

    Raises:
        Invalid: it is not.
    """
    if len(key) > 900 or not _KEY.fullmatch(key):
        raise Invalid("Not a blob key.")
    return key


def attachment(filename: str) -> str:
    """The Content-Disposition that makes a browser save a file under this name."""
    return f"attachment; filename*=UTF-8''{quote(filename, safe='')}"


def safe_name(filename: str) -> str:
    """A file name of plain characters that keeps the extension: `../Mein Foto (1).JPG` becomes `Mein_Foto_1_.JPG`."""
    last = re.split(r"[/\\]", filename)[-1]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", last).lstrip(".")
    stem, dot, extension = plain.rpartition(".")
    if not dot:
        return plain[:LONGEST_NAME] or "file"
    extension = extension[:16]
    return f"{stem[: LONGEST_NAME - len(extension) - 1] or 'file'}.{extension}".rstrip(".")
