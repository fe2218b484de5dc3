"""Files in a folder of this machine (or one mounted on it).

Keys are paths below the source folder, `/`-joined bytes. Links to files are followed while their target stays below the folder;
links to folders, sockets, pipes and devices are skipped. A missing or unreadable folder is an error, never an empty listing.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote_from_bytes, unquote, urlsplit

from pydantic import BaseModel, ConfigDict

from mixpeek_dagster.errors import AccessDenied, Changed, Invalid, ProviderDown
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.beneath import GONE, is_within, open_beneath, real_path_beneath, translate
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.parts import cut
from mixpeek_dagster.storage.provider import Capabilities, Entry, Page, reads_a_file
from mixpeek_dagster.storage.walk import Pager, walk


class LocalConfig(BaseModel):
    """`root` is the folder that the source path is relative to; without it the source path must be absolute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str | None = None


class LocalSource:
    """The files below one folder. A file's revision is its inode, change time and modification time, so an edit that restores the
    modification time is seen too."""

    Config = LocalConfig
    capabilities = Capabilities(order="bytes", start_after=True)

    def __init__(self, folder: Path, *, roots: tuple[Path, ...] = ()) -> None:
        """`roots`: the folder must really lie in one of these, if there are any."""
        self.folder = folder
        self._roots = tuple(Path(os.path.realpath(root)) for root in roots)
        self._pager = Pager(self._walk)
        self._known: tuple[tuple[int, int], bytes] | None = None

    @classmethod
    def connect(cls, config: LocalConfig, *, source_path: str, settings: Settings) -> "LocalSource":
        folder = _folder(config.root, source_path)
        source = cls(folder, roots=settings.local_roots)
        if not is_within(Path(os.path.realpath(folder)), source._roots):
            raise Invalid(f"Folder {folder} is outside of the folders that this server may read (MIXPEEK_LOCAL_ROOTS).")
        return source

    @property
    def uri(self) -> str:
        return f"file://{quote_from_bytes(os.fsencode(self.folder))}"

    def list_page(self, *, after: bytes | None = None, token: str | None = None, limit: int = 1000, known: bytes = b"") -> Page:
        self._real_folder()  # a walk that is kept from the last page must not outlive an unmounted folder unnoticed
        return self._pager.page(after=after, token=token, limit=limit)

    def head(self, key: bytes) -> Entry | None:
        try:
            with self._opened(key) as descriptor:
                return _entry(key, os.fstat(descriptor))
        except FileNotFoundError:
            return None

    @contextmanager
    def open(self, key: bytes, *, if_match: Entry | None = None, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        with self._opened(key) as descriptor:
            before = _revision(os.fstat(descriptor))
            if if_match is not None and (if_match.size, if_match.etag) != before:
                raise Changed(f"{self.location(key)} changed since it was listed.")
            with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as stream:
                stream.seek(start)
                yield stream if length is None else cut(stream, length)
            if _revision(os.fstat(descriptor)) != before:
                raise Changed(f"{self.location(key)} changed while it was read.")

    def relative(self, key: bytes) -> str:
        return os.fsdecode(key)

    def location(self, key: bytes) -> str:
        return f"{self.uri.rstrip('/')}/{quote_from_bytes(key)}"

    def check(self) -> bool:
        return reads_a_file(self)

    def _real_folder(self) -> bytes:
        """The folder with its links resolved: looked at anew each time, as a mount or a link may have changed."""
        if not self._roots and (known := self._known) is not None:
            with suppress(OSError):
                if _identity(os.stat(self.folder)) == known[0]:
                    return known[1]
        real = os.path.realpath(os.fsencode(self.folder))
        if not is_within(Path(os.fsdecode(real)), self._roots):
            raise AccessDenied(
                f"Folder {self.folder} leads outside of the folders that this server may read (MIXPEEK_LOCAL_ROOTS)."
            )
        try:
            status = os.stat(real)
            if stat.S_ISDIR(status.st_mode):
                self._known = _identity(status), real
                return real
        except OSError as error:
            if error.errno not in GONE:
                raise translate(error, real) from error
        raise ProviderDown(f"Folder {self.folder} does not exist, or is not mounted, on this machine.")

    @contextmanager
    def _opened(self, key: bytes) -> Iterator[int]:
        root = self._real_folder()
        try:
            descriptor = open_beneath(root, key)
        except OSError as error:
            if error.errno in GONE:
                self._real_folder()  # gone with the whole folder is down, not deleted
                raise FileNotFoundError(f"{self.location(key)} does not exist.") from error
            raise translate(error, root + b"/" + key) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _walk(self, after: bytes) -> Iterator[Entry]:
        root = self._real_folder()

        def scan(folder: bytes) -> list[tuple[bytes, os.DirEntry[bytes]]]:
            path = os.path.join(root, folder)
            try:
                with os.scandir(path) as found:
                    return sorted(((_sort_name(item), item) for item in found), key=lambda named: named[0])
            except OSError as error:
                if folder and error.errno in GONE:
                    self._real_folder()
                    return []  # removed between listing its parent and now
                raise translate(error, path) from error

        for key, item in walk(scan, after=after):
            status = _status(item, root)
            if status is not None:
                yield _entry(key, status)


def _folder(root: str | None, source_path: str) -> Path:
    path = unquote(urlsplit(source_path).path) if source_path.startswith("file://") else source_path
    if "\0" in path:
        raise Invalid("source_path holds a NUL character.")
    if root is None:
        if not os.path.isabs(path):
            raise Invalid(f"source_path {source_path!r} must be an absolute folder, as the connection has no `root`.")
        return Path(os.path.normpath(path))
    top = Path(os.path.abspath(os.path.expanduser(root)))
    folder = Path(os.path.normpath(top / path.lstrip("/")))
    if not is_within(folder, (top,)):
        raise Invalid(f"source_path {source_path!r} leads out of the connection's root.")
    return folder


def _sort_name(item: os.DirEntry[bytes]) -> bytes:
    return item.name + b"/" if item.is_dir(follow_symlinks=False) else item.name


def _status(item: os.DirEntry[bytes], root: bytes) -> os.stat_result | None:
    """The status of a regular file, through a link that stays below `root`; None for anything else, or when it is gone by now."""
    try:
        if not item.is_symlink():
            status = item.stat(follow_symlinks=False)
        elif (target := real_path_beneath(root, item.path)) is not None:
            status = os.stat(target, follow_symlinks=False)
        else:
            return None
    except OSError as error:
        if error.errno in GONE:
            return None
        raise translate(error, item.path) from error
    return status if stat.S_ISREG(status.st_mode) else None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _entry(key: bytes, status: os.stat_result) -> Entry:
    size, etag = _revision(status)
    return Entry(key=key, size=size, etag=etag, modified_at=status.st_mtime, content_type=guess_content_type(key))


def _revision(status: os.stat_result) -> tuple[int, str]:
    """Size in bytes and etag."""
    return status.st_size, f"{status.st_ino:x}-{status.st_ctime_ns:x}-{status.st_mtime_ns:x}"
