"""How clients see blobs, and the signed URLs that fetch one without a key."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from mixpeek_dagster.api.deps import Opened
from mixpeek_dagster.models.objects import Blob, StoredObject
from mixpeek_dagster.pipeline.reading import open_blob
from mixpeek_dagster.pipeline.signing import check_signature, sign
from mixpeek_dagster.pipeline.warehouse import Warehouse

signed = APIRouter(prefix="/v1", tags=["signed"])
EXPIRES_S = 3600
_CHUNK = 256 * 1024


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


@signed.get("/objects/{object_id}/blobs/{index}/content")
def content(
    request: Request,
    object_id: Annotated[str, Path(max_length=255)],
    index: Annotated[int, Path(ge=0, le=1000)],
    expires: Annotated[int, Query(ge=0, lt=2**40)],
    signature: Annotated[str, Query(max_length=200)],
    warehouse: Opened,
) -> StreamingResponse:
    """The bytes of one blob; the signature in the URL is the permission."""
    check_signature("GET", request.url.path, expires=expires, signature=signature, settings=warehouse.settings)
    opened, blob = open_blob(warehouse, object_id, index)
    headers = {"Content-Disposition": "attachment", "Content-Security-Policy": "sandbox", "Cache-Control": "private"}
    return StreamingResponse(_stream(opened), media_type=blob.mime_type or "application/octet-stream", headers=headers)


def _stream(opened: AbstractContextManager[BinaryIO]) -> Iterator[bytes]:
    with opened as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _readable(name: str) -> str:
    """A file name without the half surrogates that undecodable bytes were kept as: JSON cannot hold them."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
