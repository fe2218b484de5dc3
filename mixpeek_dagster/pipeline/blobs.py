"""Turn what a request says about a blob into where its bytes are.

`url` is checked, not fetched; `content` and text stay inline; bytes inside the request go to managed storage before the
transaction that records them, so a failure leaves at most a file that nobody names.
"""

import base64
import binascii
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from mixpeek_dagster.errors import Invalid, UrlRefused, WrongState
from mixpeek_dagster.models.buckets import Bucket, FieldType, mime_type_of
from mixpeek_dagster.models.ids import new_id
from mixpeek_dagster.models.objects import Blob, BlobCreate
from mixpeek_dagster.models.uploads import Upload, UploadStatus
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.egress import check_url

_TEXTS = (FieldType.TEXT, FieldType.JSON)


class BlobMaker:
    """Makes the blobs of one request; `discard` removes the files it stored when the request fails after all."""

    def __init__(self, warehouse: Warehouse, bucket: Bucket) -> None:
        self._warehouse = warehouse
        self._bucket = bucket
        self._stored: list[str] = []

    def make(self, body: BlobCreate) -> Blob:
        """A blob.

        Raises:
            NotFound, WrongState: it names an upload that is not in the bucket, or is not confirmed.
            Invalid: the data is not what its type says.
            UrlRefused: the URL may not be fetched.
        """
        if body.url is not None:
            return self._at(body, body.url)
        if body.content is not None:
            return self._inline(body, body.content if isinstance(body.content, str) else json.dumps(body.content))
        if body.data is not None:
            return self._from_data(body, body.data)
        return self._from_upload(body, str(body.upload_id))

    def discard(self) -> None:
        for key in self._stored:
            self._warehouse.blobs.delete(key)

    def _new_key(self) -> str:
        return f"{self._bucket.namespace_id}/{self._bucket.bucket_id}/{new_id('blob')}"

    def _from_upload(self, body: BlobCreate, upload_id: str) -> Blob:
        bucket_id = self._bucket.bucket_id
        with self._warehouse.catalog.reading() as records:
            upload = records.uploads.get(upload_id, namespace_id=self._bucket.namespace_id, bucket_id=bucket_id)
            if upload.duplicate_of_upload_id is not None:
                upload = records.uploads.get(upload.duplicate_of_upload_id, bucket_id=bucket_id)
        if upload.status is not UploadStatus.COMPLETED:
            raise WrongState(f"Upload {upload_id} is {upload.status}; confirm it before an object uses it.")
        key = self._new_key()
        try:
            stored = self._warehouse.blobs.head(upload.key)
            if stored is None:
                raise FileNotFoundError(upload.key)
            self._warehouse.blobs.copy(upload.key, key, etag=stored.etag)
        except FileNotFoundError as error:
            raise WrongState(f"The file of upload {upload_id} was deleted with the object that was made from it.") from error
        self._stored.append(key)
        blob = blob_of(upload, property=body.property, type=body.type)
        return blob.model_copy(update={"managed": key, "metadata": body.metadata})

    def _at(self, body: BlobCreate, url: str) -> Blob:
        check_reference(url, settings=self._warehouse.settings)
        name = body.filename or urlsplit(url).path.rpartition("/")[2]
        return Blob(
            property=body.property, type=body.type, url=url, filename=name, mime_type=_mime(body, name), metadata=body.metadata
        )

    def _inline(self, body: BlobCreate, text: str) -> Blob:
        mime_type = "application/json" if body.type is FieldType.JSON else "text/plain"
        size = len(text.encode())
        common = {"property": body.property, "type": body.type, "filename": body.filename or "", "metadata": body.metadata}
        return Blob(**common, text=text, mime_type=mime_type, size_bytes=size)

    def _from_data(self, body: BlobCreate, data: Any) -> Blob:
        if isinstance(data, Mapping) and (encoded := data.get("base64") or data.get("bytes")) is not None:
            said = [str(data[name]) for name in ("mime_type", "content_type", "mime") if isinstance(data.get(name), str)]
            return self._bytes(body, _decode(body, encoded), said[0] if said else "", str(data.get("filename") or ""))
        if isinstance(data, Mapping) and isinstance(data.get("url"), str):
            return self._at(body, data["url"])
        if not isinstance(data, str):
            if body.type not in _TEXTS:
                raise Invalid(f"Blob {body.property!r}: data of type {body.type.value} is a URL, a data URI or base64 text.")
            return self._inline(body, json.dumps(data, ensure_ascii=False))
        if data.startswith("data:"):
            mime_type, content = _data_uri(body, data)
            return self._bytes(body, content, mime_type, "")
        if data.startswith(("http://", "https://", "file://", "s3://")) and not any(c.isspace() for c in data):
            return self._at(body, data)
        if body.type in _TEXTS:
            return self._inline(body, data)
        return self._bytes(body, _decode(body, data), "", "")

    def _bytes(self, body: BlobCreate, content: bytes, mime_type: str, filename: str) -> Blob:
        if body.type in _TEXTS:
            try:
                return self._inline(body, content.decode())
            except UnicodeDecodeError as error:
                raise Invalid(f"Blob {body.property!r} is of type {body.type.value}, but its data is not UTF-8.") from error
        key, name = self._new_key(), body.filename or filename
        stored = self._warehouse.blobs.put(key, io.BytesIO(content))
        self._stored.append(key)
        return Blob(
            property=body.property,
            type=body.type,
            managed=key,
            etag=stored.sha256,
            filename=name,
            mime_type=mime_type or _mime(body, name),
            size_bytes=stored.size,
            metadata=body.metadata,
        )


def blob_of(upload: Upload, *, property: str, type: FieldType) -> Blob:
    """A blob that takes an upload's file over."""
    return Blob(
        property=property,
        type=type,
        managed=upload.key,
        etag=upload.file_hash or "",
        filename=upload.filename,
        mime_type=upload.content_type.partition(";")[0].strip().lower(),
        size_bytes=upload.file_size_bytes,
    )


def check_reference(url: str, *, settings: Settings) -> None:
    """Raises UrlRefused for a URL that could never be fetched; where its name leads is checked again when it is."""
    if urlsplit(url).scheme == "file" and settings.local_roots:
        return
    check_url(url, allowed_hosts=settings.allowed_hosts)
    if any(ord(character) < 32 for character in url):
        raise UrlRefused("The URL holds control characters.")


def managed_keys(blobs: Iterable[Blob]) -> list[str]:
    """The files of managed storage that these blobs own."""
    return [blob.managed for blob in blobs if blob.managed]


def _mime(body: BlobCreate, filename: str) -> str:
    promised = mime_type_of(filename)
    if promised != "application/octet-stream":
        return promised
    return {FieldType.TEXT: "text/plain", FieldType.JSON: "application/json", FieldType.PDF: "application/pdf"}.get(
        body.type, promised
    )


def _decode(body: BlobCreate, encoded: Any) -> bytes:
    try:
        return base64.b64decode(str(encoded), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"Blob {body.property!r}: data is neither a URL, a data URI nor base64.") from error


def _data_uri(body: BlobCreate, uri: str) -> tuple[str, bytes]:
    head, comma, content = uri.removeprefix("data:").partition(",")
    if not comma:
        raise Invalid(f"Blob {body.property!r}: the data URI has no comma.")
    mime_type, *flags = head.split(";")
    return mime_type, _decode(body, content) if "base64" in flags else unquote_to_bytes(content)
