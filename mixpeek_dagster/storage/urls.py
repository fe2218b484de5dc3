"""Fetch a file that a tenant named by URL: http(s) from public addresses, `file://` only below the operator's folders."""

import io
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from urllib3.response import BaseHTTPResponse

from mixpeek_dagster.errors import AccessDenied, ProviderDown, ProviderError, Terminal, UrlRefused
from mixpeek_dagster.storage.beneath import GONE, open_beneath, translate
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.http import Http, Request, body_stream

REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one fetch may take: bytes of the body, seconds from the start to its last byte, redirects followed."""

    max_bytes: int = 5 * 1024**3
    total_s: float = 600.0
    max_redirects: int = 5


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """An open download. `size` in bytes as announced, None when it was not; `stream` holds to the limits whatever was announced.

    `stream` is what to read; `content_type` is the server's, else guessed; `etag` may be empty.
    """

    stream: BinaryIO
    size: int | None
    content_type: str
    etag: str


class MissingFile(FileNotFoundError, Terminal):
    """The URL names nothing (404 or 410)."""


@contextmanager
def fetch_url(
    url: str,
    *,
    limits: Limits = Limits(),
    allowed_hosts: Collection[str] = frozenset(),
    local_roots: tuple[Path, ...] = (),
) -> Iterator[Fetched]:
    """Download a URL, as a stream.

    Every redirect is checked like the URL itself; bodies are taken as they are sent (never decompressed).

    Args:
        limits: beyond them reading raises `UrlRefused` (size) or `ProviderDown` (time).
        allowed_hosts: hosts (`host` or `host:port`) that may be reached although they are not public.
        local_roots: folders below which `file://` URLs may be read; none means that there are no such URLs.

    Raises:
        UrlRefused: the URL may not be fetched, redirects too often, or names more than `max_bytes`.
        FileNotFoundError: there is nothing there (404, 410, no such file).
        AccessDenied: it may not be read (401, 403).
        ProviderDown: no answer, or a busy server, after retries.
    """
    if urlsplit(url).scheme == "file":
        with _local_file(url, local_roots) as fetched:
            yield fetched
        return
    deadline = time.monotonic() + limits.total_s
    response, final = _follow(url, limits, frozenset(allowed_hosts))
    host = urlsplit(final).hostname or ""
    try:
        _raise_for(response, host)
        size = int(response.headers["Content-Length"]) if response.headers.get("Content-Length", "").isdigit() else None
        if size is not None and size > limits.max_bytes:
            raise UrlRefused(f"The file at {host} has {size} bytes, more than the {limits.max_bytes} allowed.")
        raw = _Limited(
            body_stream(response, host=host, as_it_comes=True), host=host, max_bytes=limits.max_bytes, deadline=deadline
        )
        content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        yield Fetched(
            stream=cast(BinaryIO, io.BufferedReader(raw, buffer_size=256 * 1024)),
            size=size,
            content_type=content_type or guess_content_type(urlsplit(final).path.encode()),
            etag=response.headers.get("ETag", "").strip('"'),
        )
    finally:
        response.close()


def _follow(url: str, limits: Limits, allowed_hosts: frozenset[str]) -> tuple[BaseHTTPResponse, str]:
    http = _http(allowed_hosts)
    for _ in range(limits.max_redirects + 1):
        response = http.send(partial(Request, "GET", _percent_encoded(url)))
        location = response.headers.get("Location")
        if response.status not in REDIRECTS or not location:
            return response, url
        response.close()
        url = urljoin(url, location)
    raise UrlRefused(f"The URL redirects more than {limits.max_redirects} times.")


@lru_cache(maxsize=8)
def _http(allowed_hosts: frozenset[str]) -> Http:
    return Http(allowed_hosts=allowed_hosts)


def _percent_encoded(url: str) -> str:
    """The URL with characters outside of ASCII, spaces and controls escaped; escapes that are there stay as they are."""
    return "".join(c if "!" <= c <= "~" else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "replace")) for c in url)


def _raise_for(response: BaseHTTPResponse, host: str) -> None:
    status = response.status
    if status == 200:
        return
    if status in (404, 410):
        raise MissingFile(f"There is no file at this URL of {host} ({status}).")
    if status in (401, 403):
        raise AccessDenied(f"{host} answered {status}: the URL needs credentials, or has expired.")
    if status >= 500 or status in (408, 425, 429):
        raise ProviderDown(f"{host} answered {status}.")
    raise ProviderError(f"{host} answered {status}, which is not a file.")


class _Limited(io.RawIOBase):
    """Passes a stream on until it is too long or takes too long."""

    def __init__(self, stream: BinaryIO, *, host: str, max_bytes: int, deadline: float) -> None:
        self._stream = stream
        self._host = host
        self._left = max_bytes
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        if time.monotonic() > self._deadline:
            raise ProviderDown(f"The download from {self._host} takes too long.")
        view = memoryview(cast(bytearray, buffer))
        chunk = self._stream.read(min(len(view), 256 * 1024))
        self._left -= len(chunk)
        if self._left < 0:
            raise UrlRefused(f"The file at {self._host} is larger than allowed.")
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _local_file(url: str, roots: tuple[Path, ...]) -> Iterator[Fetched]:
    parts = urlsplit(url)
    path = unquote_to_bytes(parts.path)
    if not roots:
        raise UrlRefused("file:// URLs are off on this server; an operator can allow folders in MIXPEEK_LOCAL_ROOTS.")
    if parts.netloc not in ("", "localhost"):
        raise UrlRefused("A file:// URL names a file of this server: it has no host.")
    for root in (os.fsencode(os.path.realpath(root)) for root in roots):
        top = root.rstrip(b"/") + b"/"
        if not path.startswith(top):
            continue
        try:
            descriptor = open_beneath(root, path[len(top) :])
        except OSError as error:
            raise (MissingFile("There is no file at this URL.") if error.errno in GONE else translate(error, path)) from error
        with os.fdopen(descriptor, "rb") as stream:
            size = os.fstat(descriptor).st_size
            yield Fetched(stream=stream, size=size, content_type=guess_content_type(path), etag="")
        return
    raise UrlRefused("The file:// URL leads outside of the folders that this server may read (MIXPEEK_LOCAL_ROOTS).")
