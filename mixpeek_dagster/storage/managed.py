"""Our own files in a local folder, with URLs that this server signs and the API serves.

A URL is a permission: it is good for one method, one key, a time, and for a PUT one content type and length. Whoever serves it
calls `verify` first, then `LocalBlobs.receive` or `LocalBlobs.open`.
"""

import hashlib
import hmac
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlencode

from mixpeek_dagster.errors import AlreadyExists, Changed, Forbidden, Invalid
from mixpeek_dagster.storage.beneath import GONE, open_beneath
from mixpeek_dagster.storage.blobs import Blob, Presigned, check_key
from mixpeek_dagster.storage.content_types import guess_content_type
from mixpeek_dagster.storage.parts import cut

CHUNK = 1024 * 1024
PARTS = ".parts"
"""Folder of files that are being written; on the same file system, so that they can be linked into place."""

LEFTOVER_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Permission:
    """What a signed URL allows.

    Attributes:
        method: `PUT` or `GET`.
        expires: unix seconds.
        content_type: of a PUT: what its Content-Type must be, if anything; of a GET: what to answer.
        size: exact bytes of a PUT; -1 is any.
        max_bytes: most bytes of a PUT; -1 is no limit.
        filename: of a GET: name to save as.
    """

    method: str
    key: str
    expires: int
    content_type: str = ""
    size: int = -1
    max_bytes: int = -1
    filename: str = ""


def sign(permission: Permission, *, secret: bytes) -> str:
    """The query string that makes a URL of the permission."""
    fields = {name: str(value) for name, value in asdict(permission).items() if name not in ("method", "key")}
    return urlencode({**fields, "signature": _signature(permission, secret)})


def verify(method: str, key: str, query: Mapping[str, str], *, secret: bytes, now: float | None = None) -> Permission:
    """The permission that a request's URL carries.

    Raises:
        Forbidden: the URL was not signed by us, was changed, is for another method or key, or has expired.
    """
    try:
        permission = Permission(
            method=method,
            key=key,
            expires=int(query["expires"]),
            content_type=query["content_type"],
            size=int(query["size"]),
            max_bytes=int(query["max_bytes"]),
            filename=query["filename"],
        )
        is_ours = hmac.compare_digest(_signature(permission, secret).encode(), query["signature"].encode())
    except (KeyError, ValueError):
        is_ours = False
    if not is_ours:
        raise Forbidden("This URL is not valid: it must be used unchanged, with the method that it was made for.")
    if permission.expires <= (time.time() if now is None else now):
        raise Forbidden("This URL has expired: ask for a new one.")
    return permission


def _signature(permission: Permission, secret: bytes) -> str:
    # Lengths before the parts, so that no two permissions sign the same text.
    text = "".join(f"{len(part)}:{part}" for part in map(str, asdict(permission).values()))
    return hmac.new(secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


class LocalBlobs:
    """Files in a folder. A file is written beside its place, hashed and flushed, then linked into it: never half there."""

    is_remote = False

    def __init__(self, folder: Path, *, base_url: str, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        """`base_url` is where the API serves blobs, such as `http://127.0.0.1:8000/v1/blobs`; `secret` signs the URLs."""
        if len(secret) < 16:
            raise Invalid("The secret that signs URLs must have at least 16 bytes.")
        self._folder = Path(os.path.realpath(folder))
        self._base_url = base_url.rstrip("/")
        self._secret = secret
        self._clock = clock

    def put(
        self, key: str, source: BinaryIO, *, content_type: str = "", max_bytes: int | None = None, replace: bool = False
    ) -> Blob:
        return self._write(key, iter(lambda: source.read(CHUNK), b""), content_type, None, max_bytes, replace)

    def receive(self, permission: Permission, chunks: Iterator[bytes], *, content_type: str = "") -> Blob:
        """Store the body of a PUT to a signed URL; the caller has verified it.

        Raises:
            Invalid: another content type or length than was signed.
            AlreadyExists: the URL was used before.
        """
        if permission.method != "PUT":
            raise Forbidden("This URL is for reading.")
        if permission.content_type and _plain(content_type) != _plain(permission.content_type):
            raise Invalid(f"Content-Type must be {permission.content_type!r}, as the URL was made for.")
        exact = permission.size if permission.size >= 0 else None
        most = permission.max_bytes if permission.max_bytes >= 0 else None
        return self._write(permission.key, chunks, permission.content_type or content_type, exact, most, replace=False)

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        with os.fdopen(self._descriptor(key), "rb", buffering=0) as stream:
            stream.seek(start)
            yield cut(stream, length)

    def head(self, key: str) -> Blob | None:
        try:
            descriptor = self._descriptor(key)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return Blob(key, status.st_size, f"{status.st_ino:x}-{status.st_mtime_ns:x}", guess_content_type(key.encode()))

    def copy(self, key: str, to: str, *, etag: str) -> None:
        found, path, part = self.head(key), self._path(to), self._folder / PARTS / uuid.uuid4().hex
        if found is None:
            raise FileNotFoundError(f"There is no blob {key}.")
        if found.etag != etag:
            raise Changed(f"Blob {key} was replaced.")
        part.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(self._path(key), part)  # files are never written in place, so that two names may share one
        self._place(part, path, to, replace=True)

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._path(key).unlink()

    def presign_put(
        self, key: str, *, expires_s: int, content_type: str = "", size: int | None = None, max_bytes: int | None = None
    ) -> Presigned:
        return self._presign(
            Permission(
                method="PUT",
                key=check_key(key),
                expires=int(self._clock()) + expires_s,
                content_type=content_type,
                size=-1 if size is None else size,
                max_bytes=-1 if max_bytes is None else max_bytes,
            ),
            {"Content-Type": content_type} if content_type else {},
        )

    def presign_get(self, key: str, *, expires_s: int, content_type: str = "", filename: str = "") -> Presigned:
        expires = int(self._clock()) + expires_s
        return self._presign(
            Permission(method="GET", key=check_key(key), expires=expires, content_type=content_type, filename=filename), {}
        )

    def verify(self, method: str, key: str, query: Mapping[str, str]) -> Permission:
        """As the function `verify`, with this store's secret and clock."""
        return verify(method, key, query, secret=self._secret, now=self._clock())

    def remove_leftovers(self) -> int:
        """Remove parts of files whose writers died a day ago or longer; how many there were."""
        removed = 0
        with suppress(FileNotFoundError):
            for part in (self._folder / PARTS).iterdir():
                if self._clock() - part.stat().st_mtime > LEFTOVER_S:
                    part.unlink(missing_ok=True)
                    removed += 1
        return removed

    def _presign(self, permission: Permission, headers: dict[str, str]) -> Presigned:
        url = f"{self._base_url}/{quote(permission.key)}?{sign(permission, secret=self._secret)}"
        return Presigned(
            method=permission.method, url=url, headers=headers, expires_at=datetime.fromtimestamp(permission.expires, UTC)
        )

    def _path(self, key: str) -> Path:
        return self._folder / check_key(key)

    def _descriptor(self, key: str) -> int:
        try:
            return open_beneath(os.fsencode(self._folder), check_key(key).encode())
        except OSError as error:
            if error.errno in GONE:
                raise FileNotFoundError(f"There is no blob {key}.") from error
            raise

    def _write(
        self, key: str, chunks: Iterator[bytes], content_type: str, exact: int | None, most: int | None, replace: bool
    ) -> Blob:
        path = self._path(key)
        if path.exists() and not replace:
            raise AlreadyExists(f"Blob {key} is there already.")
        part = self._folder / PARTS / uuid.uuid4().hex
        part.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        limit = exact if exact is not None else most
        digest, size = hashlib.sha256(), 0
        try:
            with part.open("xb") as file:
                for chunk in chunks:
                    size += len(chunk)
                    if limit is not None and size > limit:
                        raise Invalid(f"The file has more than the {limit} bytes allowed.")
                    digest.update(chunk)
                    file.write(chunk)
                if exact is not None and size != exact:
                    raise Invalid(f"The file has {size} bytes, not the {exact} announced.")
                file.flush()
                os.fsync(file.fileno())
            self._place(part, path, key, replace)
        finally:
            part.unlink(missing_ok=True)
        status = path.stat()
        return Blob(key, size, f"{status.st_ino:x}-{status.st_mtime_ns:x}", content_type, digest.hexdigest())

    def _place(self, part: Path, path: Path, key: str, replace: bool) -> None:
        if replace:
            part.replace(path)
        else:
            try:
                os.link(part, path)  # unlike a rename, it fails when another writer was faster
            except FileExistsError as error:
                raise AlreadyExists(f"Blob {key} is there already.") from error
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _plain(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
