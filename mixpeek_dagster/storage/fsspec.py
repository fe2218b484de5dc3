"""Files behind any fsspec filesystem (SFTP, SMB, WebHDFS, Hugging Face, …): `fsspec+<protocol>`.

The general way, for what has no file of its own. Folders are listed one by one and walked in order, so keys come in byte order.
Addresses are not checked here (each filesystem has its own client), so the operator allows protocols by name.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, BinaryIO, cast

import fsspec
from pydantic import BaseModel, ConfigDict, Field

from mixpeek_dagster.errors import AccessDenied, BadListing, Changed, Invalid, MixpeekError, ProviderDown
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.json_answers import MALFORMED
from mixpeek_dagster.storage.parts import cut
from mixpeek_dagster.storage.provider import Capabilities, Entry, Page, reads_a_file
from mixpeek_dagster.storage.walk import Pager, walk

Info = Mapping[str, Any]

ETAGS = ("etag", "ETag", "e_tag", "checksum", "content_hash", "md5", "md5Hash", "generation", "versionId", "sha", "oid")
"""Where filesystems keep a revision mark, the best first."""

TIMES = ("mtime", "LastModified", "last_modified", "modified", "modificationTime", "updated", "created")


class FsspecConfig(BaseModel):
    """`protocol` is fsspec's name of the filesystem; `options` (host, port, …) and `credentials` (whatever is secret: user,
    password, token, …) go to its constructor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: str = Field(pattern=r"^[a-z][a-z0-9_+.-]*$")
    options: Mapping[str, Any] = Field(default_factory=dict)
    credentials: Mapping[str, Any] = Field(default_factory=dict, repr=False)


class FsspecSource:
    """The files below one folder of a filesystem. The revision is the filesystem's own mark, else size and modification time."""

    Config = FsspecConfig
    capabilities = Capabilities(order="bytes", start_after=True)

    def __init__(self, filesystem: fsspec.AbstractFileSystem, folder: str, *, protocol: str) -> None:
        self._filesystem = filesystem
        self._folder = folder.rstrip("/")
        self._protocol = protocol
        self._pager = Pager(self._walk)

    @classmethod
    def connect(cls, config: FsspecConfig, *, source_path: str, settings: Settings) -> "FsspecSource":
        if config.protocol not in settings.fsspec_protocols:
            raise Invalid(
                f"Protocol {config.protocol!r} is not open to syncs; an operator can allow it in MIXPEEK_FSSPEC_PROTOCOLS."
            )
        if "::" in source_path:
            raise Invalid("source_path chains filesystems (`::`), which is not allowed.")
        kind = None
        try:
            kind = fsspec.get_filesystem_class(config.protocol)
            # Cached listings would hide new files.
            filesystem = kind(skip_instance_cache=True, use_listings_cache=False, **config.options, **config.credentials)
            folder = filesystem._strip_protocol(source_path.removeprefix("fsspec+"))
        except Exception as error:
            is_safe = kind is None or isinstance(error, ImportError)  # to be quoted: it names a package, not an option
            told = str(error) if is_safe else type(error).__name__
            raise Invalid(f"fsspec cannot open protocol {config.protocol!r} ({told}).") from error
        return cls(filesystem, folder, protocol=config.protocol)

    @property
    def uri(self) -> str:
        return f"fsspec+{self._protocol}://{self._folder.lstrip('/')}"

    def list_page(self, *, after: bytes | None = None, token: str | None = None, limit: int = 1000, known: bytes = b"") -> Page:
        return self._pager.page(after=after, token=token, limit=limit)

    def head(self, key: bytes) -> Entry | None:
        try:
            return self._info(key)
        except FileNotFoundError:
            self._ls("")  # gone with the whole folder is down, not deleted
            return None

    @contextmanager
    def open(self, key: bytes, *, if_match: Entry | None = None, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        before = self._info(key)
        if if_match is not None and (if_match.etag, if_match.size) != (before.etag, before.size):
            raise Changed(f"{self.location(key)} changed since it was listed.")
        try:
            stream = self._filesystem.open(self._path(key), "rb")
        except Exception as error:
            raise self._translate(error, self.location(key)) from error
        with stream:
            stream.seek(start)
            yield cast(BinaryIO, stream) if length is None else cut(stream, length)
        if self._info(key) != before:
            raise Changed(f"{self.location(key)} changed while it was read.")

    def relative(self, key: bytes) -> str:
        return key.decode("utf-8", "surrogateescape")

    def location(self, key: bytes) -> str:
        return f"{self.uri.rstrip('/')}/{key.decode('utf-8', 'backslashreplace')}"

    def check(self) -> bool:
        return reads_a_file(self)

    def _path(self, key: bytes) -> str:
        text = key.decode("utf-8", "surrogateescape")
        if not {"", ".", ".."}.isdisjoint(text.split("/")):
            raise FileNotFoundError(f"{self.location(key)} does not exist.")
        return f"{self._folder}/{text}"

    def _info(self, key: bytes) -> Entry:
        path = self._path(key)
        try:
            info = self._filesystem.info(path)
        except Exception as error:
            raise self._translate(error, self.location(key)) from error
        try:
            if info.get("type") == "file":
                return _entry(key, info)
        except MALFORMED as error:
            raise ProviderDown(f"{self.location(key)} is not described as files are ({type(error).__name__}).") from error
        raise FileNotFoundError(f"{self.location(key)} is not a file.")

    def _ls(self, folder: str) -> list[tuple[bytes, Info]]:
        """What is directly in a folder, by name; names of folders end in `/`."""
        path = f"{self._folder}/{folder}".rstrip("/") or "/"
        try:
            found: list[Info] = self._filesystem.ls(path, detail=True)
        except FileNotFoundError as error:
            if folder:
                self._ls("")
                return []  # removed between listing its parent and now
            raise ProviderDown(f"Folder {self.uri} does not exist.") from error
        except Exception as error:
            raise self._translate(error, self.uri) from error
        try:
            inside = [info for info in found if info["name"].rstrip("/") != path.rstrip("/")]
            return [(_name(info), info) for info in inside if info.get("type") in ("directory", "file")]
        except MALFORMED as error:
            raise self._not_a_listing(error) from error

    def _walk(self, after: bytes) -> Iterator[Entry]:
        def scan(folder: bytes) -> list[tuple[bytes, Info]]:
            return sorted(self._ls(folder.decode("utf-8", "surrogateescape")), key=lambda named: named[0])

        for key, info in walk(scan, after=after):
            try:
                entry = _entry(key, info)
            except MALFORMED as error:
                raise self._not_a_listing(error) from error
            yield entry

    def _not_a_listing(self, error: Exception) -> BadListing:
        return BadListing(f"The listing of {self.uri} is not what a listing is ({type(error).__name__}).")

    def _translate(self, error: Exception, what: str) -> Exception:
        if isinstance(error, MixpeekError | FileNotFoundError):
            return error
        if isinstance(error, NotADirectoryError | IsADirectoryError):
            return FileNotFoundError(f"{what} does not exist.")
        if isinstance(error, PermissionError):
            return AccessDenied(f"{what} may not be read: check the connection's options.")
        return ProviderDown(f"{what} cannot be read ({type(error).__name__}).")


def _name(info: Info) -> bytes:
    name = str(info["name"].rstrip("/").rpartition("/")[2])
    if not name:
        raise ValueError("a file without a name")
    return name.encode("utf-8", "surrogateescape") + (b"/" if info["type"] == "directory" else b"")


def _entry(key: bytes, info: Info) -> Entry:
    size = int(info.get("size") or 0)
    modified_at = next((_timestamp(info[name]) for name in TIMES if info.get(name)), 0.0)
    mark = next((str(info[name]).strip('"') for name in ETAGS if info.get(name)), f"{size:x}-{modified_at:.6f}")
    content_type = info.get("ContentType") or info.get("contentType") or guess_content_type(key)
    return Entry(key=key, size=size, etag=mark, modified_at=modified_at, content_type=str(content_type))


def _timestamp(value: object) -> float:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, int | float):
        return value / 1000 if value > 1e11 else float(value)  # WebHDFS counts milliseconds
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return 0.0
