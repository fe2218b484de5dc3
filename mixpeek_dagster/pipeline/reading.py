"""Read what a step works on: which objects or documents come next, and the bytes their collection maps to extractor inputs."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO

from mixpeek_dagster.errors import Changed, ExtractionError, NotFound, OutOfSpace, Transient
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.extractor import Extractor
from mixpeek_dagster.models.batches import Batch, BatchPart
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import ObjectId, SyncId, derived_id
from mixpeek_dagster.models.objects import Blob, StoredObject
from mixpeek_dagster.models.syncs import Sync
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.provider import Entry
from mixpeek_dagster.storage.spool import Spool
from mixpeek_dagster.storage.urls import fetch_url

SMALLEST, LARGEST = 32, 1024
WINDOW_BYTES = 256 * 1024**2
_TRIES = 3
_CHUNK = 1024 * 1024


class _Outdated(Exception):
    """The file is gone, or is not the revision that was listed."""

    def __init__(self, key: bytes) -> None:
        self.key = key


@dataclass
class Item:
    """One input of a step on its way: an object, or an upstream document with the object it came from.

    `place` is what the step's `after` becomes once the item is done. `error` ends its way; `skip` says that it has nothing to give.
    `outdated` is the key of a file that was not there, or not as listed, when it was read (`second_looks`).
    """

    item_id: str
    place: str
    stored: StoredObject | None
    upstream: Document | None = None
    contents: dict[str, Content] = field(default_factory=dict)
    content_hash: str = ""
    memo_key: str = ""
    error: Exception | None = None
    skip: str | None = None
    outdated: bytes | None = None

    @property
    def object_id(self) -> ObjectId | None:
        return self.stored.object_id if self.stored else None

    @property
    def fields(self) -> Mapping[str, Any]:
        """The source fields a collection may pass through or map."""
        if self.upstream is not None:
            return self.upstream.payload
        return self.stored.fields if self.stored else {}


def images_of(items: Sequence[Item]) -> list[tuple[str, bytes]]:
    """Name and bytes of the images that were read into memory."""
    contents = [one for item in items for one in item.contents.values() if one.mime_type.startswith("image/")]
    return [(one.filename, one.held) for one in contents if isinstance(one.held, bytes)]


def lookup(fields: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    if path in fields:
        return fields[path]
    value: Any = fields
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


class Reader:
    """Reads the inputs of one collection in one part, in order, from where the step was."""

    def __init__(self, warehouse: Warehouse, batch: Batch, part: BatchPart, collection: Collection, extractor: Extractor) -> None:
        self._warehouse = warehouse
        self._batch = batch
        self._part = part
        self._collection = collection
        self._fingerprint = extractor.fingerprint
        self._mappings = dict(collection.feature_extractor.input_mappings)
        self._mapped = frozenset(self._mappings.values())
        self._filter = Filter.parse((collection.source.source_filters or {}).get("filters"))
        self._syncs: dict[SyncId, Sync] = {}
        first = any(collection.collection_id in tier for tier in batch.dag_tiers[:1])
        self._reads_items = collection.source.type == "bucket" or (batch.type == "COLLECTION" and first)
        self.window = 2 * SMALLEST
        """How many items the next window takes; the step tunes it to its speed."""

    def windows(self, after: str) -> Iterator[list[Item]]:
        """Items in order, up to `window` at a time; what is gone meanwhile, filtered out or done before comes marked as skipped."""
        while True:
            window = self._cut(self._items(after) if self._reads_items else self._upstream(after))
            if not window:
                return
            yield window
            after = window[-1].place

    def _cut(self, items: list[Item]) -> list[Item]:
        """The first items, with no more than `WINDOW_BYTES` of files between them, or one."""
        size = 0
        for place, item in enumerate(items):
            blobs = item.stored.blobs if item.stored is not None and item.skip is None else ()
            size += sum(blob.size_bytes or 0 for blob in blobs if blob.property in self._mapped)
            if size > WINDOW_BYTES and place:
                return items[:place]
        return items

    def _items(self, after: str) -> list[Item]:
        size = self._batch.part_size
        start = (self._part.part - 1) * size
        position = int(after) + 1 if after else start
        with self._warehouse.catalog.reading() as records:
            rows = records.batches.items(self._batch.batch_id, start=position, stop=min(position + self.window, start + size))
            if self._batch.type == "COLLECTION":
                documents = records.documents.named([item for _, item in rows])
                objects = records.objects.named({d.root_object_id for d in documents.values() if d.root_object_id})
                items = [
                    Item(item, str(place), objects.get(documents[item].root_object_id or ""), documents[item])
                    if item in documents
                    else Item(item, str(place), None, skip="deleted since the batch was made")
                    for place, item in rows
                ]
            else:
                objects = records.objects.named([item for _, item in rows])
                items = [Item(item, str(place), objects.get(item)) for place, item in rows]
                done = self._done_before(records, objects) if self._batch.dedup_strategy == "skip" else set()
                disabled = records.objects.disabled(objects)
                for one in items:
                    if one.stored is None:
                        one.skip = "deleted since the batch was made"
                    elif one.item_id in disabled:
                        one.skip = f"is {disabled[one.item_id]}"
                    elif one.item_id in done:
                        one.skip = "has documents already"
            seen: set[str] = set()
            for one in items:
                if one.item_id in seen and one.skip is None:
                    one.skip = "is in this batch already"
                seen.add(one.item_id)
            return self._filtered(items)

    def _done_before(self, records: Any, objects: Mapping[str, StoredObject]) -> set[str]:
        """Objects whose present revision has documents of another batch in this collection."""
        documents = records.documents.of_objects(list(objects), self._collection.collection_id)
        return {
            document.root_object_id
            for document in documents
            if document.batch_id != self._batch.batch_id and document.revision == objects[document.root_object_id].revision
        }

    def _upstream(self, after: str) -> list[Item]:
        with self._warehouse.catalog.reading() as records:
            sources = self._collection.source.collection_ids
            documents = records.documents.of_part(self._part.partition_key, sources, after=after, limit=self.window)
            objects = records.objects.named({document.root_object_id for document in documents if document.root_object_id})
        return self._filtered(
            [Item(one.document_id, one.document_id, objects.get(one.root_object_id or ""), one) for one in documents]
        )

    def _filtered(self, items: list[Item]) -> list[Item]:
        for item in items:
            if item.skip is None and not self._filter.matches({**item.fields, "object_id": item.object_id}):
                item.skip = "filtered out"
        return items

    def fetch(self, item: Item) -> Item:
        """Read an item's inputs and hash them. What goes wrong ends up in `item.error`; this never raises."""
        if item.skip is not None:
            return item
        try:
            hashes = {}
            for name, path in self._mappings.items():
                read = self._content(item, path)
                if read is not None:
                    item.contents[name], hashes[name] = read
        except _Outdated as error:
            item.outdated = error.key
            return item
        except Exception as error:  # noqa: BLE001 - whatever a provider throws is this object's failure, not the batch's
            item.error = error
            return item
        if self._mappings and not item.contents:
            item.skip = f"has none of {sorted(set(self._mappings.values()))}"
            return item
        digest = hashlib.sha256()
        for name in sorted(hashes):
            digest.update(f"{name}\x1f".encode() + hashes[name])
        item.content_hash = digest.hexdigest()
        namespace = self._collection.namespace_id
        item.memo_key = derived_id("feat", namespace, self._fingerprint, item.content_hash if self._mappings else item.item_id)
        return item

    def _content(self, item: Item, path: str) -> tuple[Content, bytes] | None:
        """What an input is, with its SHA-256."""
        blobs = item.stored.blobs if item.stored else ()
        blob = next((one for one in blobs if one.property == path), None)
        value = lookup(item.fields, path) if item.upstream is not None or blob is None else None
        if isinstance(value, str):
            data = value.encode()
            return Content(data, filename=path, mime_type="text/plain"), hashlib.sha256(data).digest()
        return None if blob is None else self._read(item, blob)

    def _read(self, item: Item, blob: Blob) -> tuple[Content, bytes]:
        for attempt in range(1, _TRIES + 1):
            try:
                spool = self._spooled(item, blob)
                return Content(spool.finish(), filename=blob.filename, mime_type=blob.mime_type), spool.sha256
            except OutOfSpace:
                raise
            except Transient:
                if attempt == _TRIES:
                    raise
                time.sleep(0.2 * 4**attempt / 4)
        raise AssertionError("unreachable")

    def _spooled(self, item: Item, blob: Blob) -> Spool:
        if blob.text is not None:
            return self._whole(item, blob, BytesIO(blob.text.encode()), announced=None)
        if blob.url is not None:
            settings = self._warehouse.settings
            with fetch_url(blob.url, allowed_hosts=settings.allowed_hosts, local_roots=settings.local_roots) as fetched:
                return self._whole(item, blob, fetched.stream, announced=fetched.size)
        if blob.managed is not None:
            with self._warehouse.blobs.open(blob.managed) as managed:
                return self._whole(item, blob, managed, announced=blob.size_bytes)
        if blob.key is not None and item.stored is not None and item.stored.sync_id is not None:
            key = blob.source_key()
            source = self._warehouse.source(self._sync(item.stored.sync_id))
            try:
                with source.open(key, if_match=Entry(key, blob.size_bytes or 0, blob.etag, blob.version)) as stream:
                    return self._whole(item, blob, stream, announced=blob.size_bytes)
            except (FileNotFoundError, Changed) as error:
                raise _Outdated(key) from error
        raise ExtractionError(f"Object {item.object_id}: blob {blob.property!r} says nowhere where its bytes are.")

    def _whole(self, item: Item, blob: Blob, stream: BinaryIO, *, announced: int | None) -> Spool:
        """All of a file, if it is not larger than files of its type may be: whatever size was announced."""
        settings, size = self._warehouse.settings, announced or 0
        most, what = settings.most_bytes(blob.type), f"Object {item.object_id}: {blob.filename or repr(blob.property)}"
        spool = Spool(what, in_memory=settings.spill_bytes)
        if size <= most:
            chunk = stream.read(min(size + 1, _CHUNK) if size else _CHUNK)
            while chunk:
                spool.write(chunk)
                chunk = stream.read(_CHUNK) if spool.size <= most else b""
            size = spool.size
        if size > most:
            raise ExtractionError(
                f"{what} has {size} bytes or more; files of type {blob.type} may have {most}. An operator can raise that in "
                "MIXPEEK_MAX_FILE_BYTES."
            )
        return spool

    def _sync(self, sync_id: SyncId) -> Sync:
        if sync_id not in self._syncs:
            with self._warehouse.catalog.reading() as records:
                try:
                    self._syncs[sync_id] = records.syncs.get(sync_id)
                except NotFound as error:
                    raise ExtractionError(f"Sync {sync_id}, which knows where the file is, was deleted.") from error
        return self._syncs[sync_id]
