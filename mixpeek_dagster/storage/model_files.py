"""The files of model packs that somebody named by URI: from where this server may read, and nowhere else."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from mixpeek_dagster.errors import UrlRefused
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.urls import fetch_url

PIECE_BYTES = 8 * 1024 * 1024


def read_model_file(uri: str, *, settings: Settings) -> Iterator[bytes]:
    """The pieces of one file.

    `https://` and `http://` from addresses that are public or hosts that the operator allows; `file://` URLs and absolute paths below
    MIXPEEK_LOCAL_ROOTS; any other protocol of fsspec that MIXPEEK_FSSPEC_PROTOCOLS names.

    Raises:
        UrlRefused: the URI leads elsewhere. FileNotFoundError: there is no such file.
        ProviderError: it cannot be read. Any other exception of an fsspec protocol.
    """
    protocol = _protocol(uri)
    if protocol in ("http", "https", "file"):
        url = Path(uri).as_uri() if uri.startswith("/") else uri
        with fetch_url(url, allowed_hosts=settings.allowed_hosts, local_roots=settings.local_roots) as fetched:
            yield from _pieces(fetched.stream)
    elif protocol in settings.fsspec_protocols:
        import fsspec

        with cast(AbstractContextManager[BinaryIO], fsspec.open(uri, "rb")) as stream:
            yield from _pieces(stream)
    else:
        raise UrlRefused(
            f"Protocol {protocol!r} is not open to model packs; an operator can allow it in MIXPEEK_FSSPEC_PROTOCOLS."
        )


def _protocol(uri: str) -> str:
    if "::" in uri:
        raise UrlRefused("The model pack's URI chains filesystems (`::`), which is not allowed.")
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise UrlRefused(f"The model pack's URI is none: {error}.") from error
    if "@" in parts.netloc:
        raise UrlRefused("The model pack's URI holds a user name or password, which would be shown with it.")
    if not parts.scheme and not uri.startswith("/"):
        raise UrlRefused("A model pack is named by a short name, a URI, or the absolute path of its folder.")
    return parts.scheme or "file"


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(PIECE_BYTES):
        yield piece
