"""How clients see blobs, and the signed URLs that fetch one without a key."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from mixpeek_dagster.api.deps import Opened
from mixpeek_dagster.api.errors import ErrorResponse, envelope
from mixpeek_dagster.api.ranges import Part, asked_part
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.objects import Blob, StoredObject
from mixpeek_dagster.pipeline.blob_files import BlobFile, find_blob
from mixpeek_dagster.pipeline.signing import check_signature, sign
from mixpeek_dagster.pipeline.warehouse import Warehouse

signed = APIRouter(prefix="/v1", tags=["signed"])
CONTENT = "/objects/{object_id}/blobs/{index}/content"
EXPIRES_S = 3600
_CHUNK = 256 * 1024
PARTIAL: dict[int | str, dict[str, Any]] = {
    206: {"description": "The part that was asked for"},
    416: {"model": ErrorResponse, "description": "The file ends before the part"},
}


class BlobDetails(BaseModel):
    """What is known about a blob's bytes."""

    filename: str | None = None
    size_bytes: int | None = None
    mime_type: str | None = None
    hash: str | None = None


class BlobAnswer(BaseModel):
    """A blob: `properties` say where its bytes are, or hold them when they are text."""

    blob_id: str
    property: str
    key_prefix: str | None = None
    type: str
    properties: dict[str, Any] = {}
    presigned_url: str | None = None
    details: BlobDetails = BlobDetails()


class BlobView:
    """Turns blobs into answers; `signed` adds URLs that work for an hour."""

    def __init__(self, request: Request, warehouse: Warehouse, *, signed: bool = False) -> None:
        self._base = base_url(request, warehouse)
        self._warehouse = warehouse
        self._signed = signed

    def all(self, stored: StoredObject) -> list[BlobAnswer]:
        return [self._answer(stored, index, blob) for index, blob in enumerate(stored.blobs)]

    def _answer(self, stored: StoredObject, index: int, blob: Blob) -> BlobAnswer:
        where = {"url": blob.url, "content": blob.text}
        details = BlobDetails(
            filename=_readable(blob.filename) or None,
            size_bytes=blob.size_bytes,
            mime_type=blob.mime_type or None,
            hash=blob.etag or None,
        )
        return BlobAnswer(
            blob_id=stored.blob_id(blob),
            property=blob.property,
            key_prefix=stored.key_prefix,
            type=blob.type,
            properties={**blob.metadata, **{name: value for name, value in where.items() if value is not None}},
            presigned_url=self.url(stored, index) if self._signed else None,
            details=details,
        )

    def url(self, stored: StoredObject, index: int) -> str | None:
        """Where one blob can be fetched without a key."""
        blob = stored.blobs[index]
        if blob.url is not None:
            return blob.url
        path = f"/v1/objects/{stored.object_id}/blobs/{index}/content"
        return self._base + sign("GET", path, expires_s=EXPIRES_S, settings=self._warehouse.settings)


def base_url(request: Request, warehouse: Warehouse) -> str:
    """How the client reaches us: as the operator says, else as this request came."""
    return warehouse.settings.public_url or str(request.base_url).rstrip("/")


@signed.get(CONTENT, responses=PARTIAL)
@signed.head(CONTENT, include_in_schema=False)
def content(
    request: Request,
    object_id: Annotated[str, Path(max_length=255)],
    index: Annotated[int, Path(ge=0, le=1000)],
    expires: Annotated[int, Query(ge=0, lt=2**40)],
    signature: Annotated[str, Query(max_length=200)],
    warehouse: Opened,
) -> Response:
    """The bytes of one blob, or the part that a `Range` header asks for; the signature in the URL is the permission.

    A HEAD tells what a GET without `Range` would.
    """
    is_get = request.method == "GET"
    check_signature("GET", request.url.path, expires=expires, signature=signature, settings=warehouse.settings)
    file = find_blob(warehouse, object_id, index)
    headers = {"Content-Disposition": "attachment", "Content-Security-Policy": "sandbox", "Cache-Control": "private"}
    if file.size is None:
        return _streamed(file, 200, headers, has_body=is_get)
    revision = f"{file.blob.etag} {file.blob.version} {file.blob.text}".encode("utf-8", "replace")
    etag = f'"{hashlib.sha256(revision).hexdigest()[:32]}"'
    headers |= {"Accept-Ranges": "bytes", "ETag": etag}
    is_same = request.headers.get("If-Range", etag) == etag
    part = asked_part(request.headers.get("Range"), file.size) if is_same and is_get else None
    if part is None:
        return _streamed(file, 200, {**headers, "Content-Length": str(file.size)}, has_body=is_get)
    if not part.length:
        words = f"The file ends before the part that was asked for: it has {file.size} bytes."
        answer = envelope(416, words, type="RangeNotSatisfiableError", code="range_not_satisfiable")
        answer.headers.update({**headers, "Content-Range": f"bytes */{file.size}"})
        return answer
    headers["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{file.size}"
    return _streamed(file, 206, {**headers, "Content-Length": str(part.length)}, part)


def _streamed(
    file: BlobFile, status: int, headers: dict[str, str], part: Part | None = None, *, has_body: bool = True
) -> StreamingResponse:
    """The file is opened before anything is answered, so that what is wrong with it becomes an error answer."""
    opened = ExitStack()
    try:
        stream = opened.enter_context(file.open(start=part.start, length=part.length) if part else file.open())
    except FileNotFoundError as error:
        raise NotFound("The file of this blob is gone.") from error
    if not has_body:
        opened.close()
    body = _chunks(opened, stream) if has_body else iter(())
    media_type = file.blob.mime_type or "application/octet-stream"
    return StreamingResponse(body, status_code=status, media_type=media_type, headers=headers)


def _chunks(opened: ExitStack, stream: BinaryIO) -> Iterator[bytes]:
    with opened:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _readable(name: str) -> str:
    """A file name without the half surrogates that undecodable bytes were kept as: JSON cannot hold them."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
