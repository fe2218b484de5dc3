"""Files that the warehouse keeps itself: uploads, and bytes sent inside a request.

`Blobs` is the port; `LocalBlobs` keeps them in a folder. Keys are made by the warehouse (`namespace/bucket/id`), never by a client.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from mixpeek_dagster.errors import CatalogError, Invalid

_KEY = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True)
class Stored:
    """A file as stored: bytes, SHA-256 and MD5 (the ETag that stores answer with), both in hex."""

    size: int
    sha256: str
    etag: str


class Blobs(Protocol):
    """Where managed files are. Safe to share between threads."""

    def put(self, key: str, chunks: Iterable[bytes], *, max_bytes: int) -> Stored:
        """Write a file, or replace it; other readers see all of it or none.

        Raises:
            Invalid: it has more than `max_bytes`.
        """
        ...

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Raises FileNotFoundError when there is no such file."""
        ...

    def copy(self, key: str, to: str) -> None:
        """Make the same file known under another key as well. Raises FileNotFoundError when there is no such file."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes of a file; None when there is none."""
        ...

    def delete(self, key: str) -> None:
        """Remove a file; one that is not there is ignored."""
        ...

    def delete_below(self, prefix: str) -> None:
        """Remove every file whose key starts with `prefix/`."""
        ...


class LocalBlobs:
    """A folder. A file is written beside its place and moved there, so no reader meets half of it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, chunks: Iterable[bytes], *, max_bytes: int) -> Stored:
        target = self._file(key)
        draft = target.with_name(f"{target.name}.{secrets.token_hex(6)}.part")
        sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(draft, "wb") as stream:
                for chunk in chunks:
                    size += len(chunk)
                    if size > max_bytes:
                        raise Invalid(f"The file has more than the {max_bytes} bytes that this server accepts.")
                    sha256.update(chunk)
                    md5.update(chunk)
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(draft, target)
        except OSError as error:
            raise CatalogError(
                f"Managed storage cannot be written: {error.strerror}. Free space or mend MIXPEEK_HOME."
            ) from error
        finally:
            draft.unlink(missing_ok=True)
        return Stored(size, sha256.hexdigest(), md5.hexdigest())

    def open(self, key: str) -> BinaryIO:
        return open(self._file(key), "rb")

    def copy(self, key: str, to: str) -> None:
        target = self._file(to)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self._file(key), target)  # files are replaced, never changed, so both names may share the bytes
        except FileExistsError:
            pass
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links
            shutil.copyfile(self._file(key), target)

    def size(self, key: str) -> int | None:
        try:
            return self._file(key).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        self._file(key).unlink(missing_ok=True)

    def delete_below(self, prefix: str) -> None:
        shutil.rmtree(self._file(prefix), ignore_errors=True)

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise Invalid("Not a key of managed storage.")
        return self._root / key
