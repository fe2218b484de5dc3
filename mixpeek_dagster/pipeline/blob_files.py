"""The bytes of one blob, wherever they are, whole or in part: for people and browsers, not for extractors."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import BinaryIO, Protocol

from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.objects import Blob
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.provider import Entry


class Opens(Protocol):
    """As `ObjectSource.open` opens a file."""

    def __call__(self, *, start: int = 0, length: int | None = None) -> AbstractContextManager[BinaryIO]: ...


@dataclass(frozen=True)
class BlobFile:
    """What can be read of a blob. `size` is in bytes, None where it is not known without reading. `open` raises as
    `ObjectSource.open` does, FileNotFoundError too."""

    blob: Blob
    size: int | None
    open: Opens


def find_blob(warehouse: Warehouse, object_id: str, index: int) -> BlobFile:
    """Where a blob's bytes are; none is read.

    Raises:
        NotFound: there is no such object or blob, its file is gone, or it is somewhere else.
    """
    with warehouse.catalog.reading() as records:
        stored = records.objects.named([object_id]).get(object_id)
        if stored is None or index >= len(stored.blobs):
            raise NotFound(f"No blob {index} of object {object_id!r}.")
        blob = stored.blobs[index]
        sync = records.syncs.get(stored.sync_id) if blob.key is not None and stored.sync_id else None
    if blob.text is not None:
        data = blob.text.encode()
        return BlobFile(blob, len(data), partial(_part, data))
    if blob.managed is not None:
        file = warehouse.blobs.head(blob.managed)
        if file is None:
            raise NotFound(f"The file of blob {index} of object {object_id} is gone.")
        return BlobFile(blob, file.size, partial(warehouse.blobs.open, blob.managed))
    if blob.key is not None and sync is not None:
        key = blob.source_key()
        as_listed = Entry(key, blob.size_bytes or 0, blob.etag, blob.version)
        # Some providers list files as empty whose size they do not know.
        return BlobFile(blob, blob.size_bytes or None, partial(warehouse.source(sync).open, key, if_match=as_listed))
    raise NotFound(f"Blob {index} of object {object_id} is not kept by this server; its url says where it is.")


def _part(data: bytes, *, start: int = 0, length: int | None = None) -> BytesIO:
    return BytesIO(data[start:][:length])
