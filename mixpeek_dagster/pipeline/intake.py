"""Turn listed files into objects of a bucket, and objects into batches."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.shared_keys import KnownFile
from mixpeek_dagster.catalog.syncs import ARCHIVED_WORDS, DOOMED, KeyState, SourceKey
from mixpeek_dagster.errors import SchemaViolation
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.buckets import Bucket, blob_type_of, mime_type_of
from mixpeek_dagster.models.ids import BatchId, ObjectId, derived_id
from mixpeek_dagster.models.mappings import SchemaMapping
from mixpeek_dagster.models.objects import Blob, ObjectStatus, StoredObject
from mixpeek_dagster.models.syncs import REQUEUED, Sync, SyncCursor
from mixpeek_dagster.models.values import storable
from mixpeek_dagster.pipeline.batches import submit
from mixpeek_dagster.pipeline.entries import holds, is_made_of, recordable
from mixpeek_dagster.pipeline.events import tell_objects
from mixpeek_dagster.pipeline.sharing import SharedFile, files_elsewhere
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.provider import Entry, ObjectSource

Row = tuple[Any, ...]
"""A registered key: the first six fields of `SourceKey`; of an unordered listing also the generation that has seen it last."""

ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE", "Archive"})

AGAIN = "looked_again"
"""In a batch's metadata: how many batches in a row were made because files had changed before they were read."""


@dataclass
class Taken:
    """What becomes of a page's new and changed files. `object_ids` have to be extracted. `drifted` are registered rows whose file is not
    taken any more, and whose object goes if that is believed; `back` waited to go, and stay.

    What a deleted sync left is `inherited`; of its objects those that are still to be extracted are `waiting`.
    `stopped_at` is the first key that was not looked at any more, when there was no room for another object.
    """

    object_ids: list[ObjectId] = field(default_factory=list)
    drifted: list[Row] = field(default_factory=list)
    back: list[bytes] = field(default_factory=list)
    keys: list[SourceKey] = field(default_factory=list)
    gone_keys: list[bytes] = field(default_factory=list)
    created: list[StoredObject] = field(default_factory=list)
    replaced: list[StoredObject] = field(default_factory=list)
    inherited: list[KnownFile] = field(default_factory=list)
    waiting: list[ObjectId] = field(default_factory=list)
    size_change: int = 0
    read_bytes: int = 0
    new_keys: int = 0
    skipped: int = 0
    skipped_bytes: int = 0
    failed: int = 0
    stopped_at: bytes | None = None

    @property
    def new(self) -> int:
        return len(self.created)

    @property
    def changed(self) -> int:
        return len(self.replaced)


class Intake:
    """Registers files of one sync's source as objects of its bucket."""

    def __init__(self, warehouse: Warehouse, sync: Sync, bucket: Bucket, source: ObjectSource, *, again: int = 0) -> None:
        """`again` marks the batches that are made: see `looks.look_at`."""
        self._warehouse = warehouse
        self._sync = sync
        self._bucket = bucket
        self._source = source
        self._mapping = sync.spec.schema_mapping or SchemaMapping()
        self._batch_metadata = {"source": source.uri, **({AGAIN: again} if again else {})}
        self._open: Batch | None = None

    def decide(
        self,
        records: Records,
        fresh: Sequence[tuple[Entry, Row | None]],
        *,
        generation: int,
        drifted: bool,
        room: int | None,
        now: str,
    ) -> Taken:
        """What new and changed files become; writes nothing.

        Args:
            fresh: an entry with what is registered under its key (`SyncRecords.keys_between`), in the order of the listing.
            room: make no more objects than this.
        """
        taken = Taken()
        current = records.objects.named([row[5] for _, row in fresh if row and row[5]]) if fresh else {}
        unknown = [entry.key for entry, row in fresh if not (row and row[5] in current)]
        elsewhere = files_elsewhere(records, self._warehouse, self._sync, unknown)
        for entry, row in fresh:
            if room is not None and taken.new + taken.changed >= room:
                taken.stopped_at = entry.key
                break
            existing = current.get(row[5]) if row and row[5] else None
            shared = elsewhere.get(entry.key)
            if shared is not None and (kind := self._property(entry)) is not None:
                if self._takes_over(taken, shared, entry, row, kind):
                    continue
                existing = shared.stored
            self._decide(taken, entry, row, existing, generation=generation, drifted=drifted, now=now)
        return taken

    def _takes_over(self, taken: Taken, shared: SharedFile, entry: Entry, row: Row | None, kind: str) -> bool:
        """Note the object that another sync has of a file, or has left; False when the file has changed since, or makes another."""
        stored = shared.stored
        taken.inherited += [shared.known] if shared.is_left else []
        if shared.is_left:
            path = self._path(entry)
            is_fit = is_made_of(stored, entry, kind) and stored.fields.get("path") == path and not self._says_more(stored, entry)
        else:
            is_fit = self._sync.spec.skip_duplicates and holds(stored, entry)
        if not is_fit and self._sync.spec.reconcile.on_update:
            return False
        blob = stored.blobs[0]
        taken.new_keys += row is None
        taken.keys.append(
            SourceKey(entry.key, stored.size_bytes, blob.etag, blob.version, KeyState.LIVE, stored.object_id, entry.modified_at)
        )
        if shared.is_left and stored.status is not ObjectStatus.COMPLETED:
            taken.waiting.append(stored.object_id)
            taken.object_ids.append(stored.object_id)
            taken.read_bytes += entry.size
        return True

    def _decide(
        self,
        taken: Taken,
        entry: Entry,
        row: Row | None,
        existing: StoredObject | None,
        *,
        generation: int,
        drifted: bool,
        now: str,
    ) -> None:
        reconcile = self._sync.spec.reconcile
        state = KeyState(row[4]) if row else None
        listed, (entry, fault) = entry, recordable(entry)
        same = row is not None and entry[:4] == row[:4]
        kind = self._property(entry._replace(key=listed.key))
        if fault or kind is None:
            taken.skipped_bytes += listed.size
        if kind is None:
            taken.skipped += 1
            if row is not None and existing is None:
                taken.gone_keys.append(entry.key)
            elif row is not None and reconcile.on_filter_drift:
                taken.drifted.append(row)
            elif state in DOOMED:
                taken.back.append(entry.key)
            return
        if row is not None and same and len(row) > 6 and row[6] == generation and state not in DOOMED:
            return  # this listing has named it before
        if same and row is not None and len(row) > 7 and state is KeyState.LIVE:
            return  # a plan has decided on it before
        # Where a listing does not tell that a file is restored for a while, who requeues it says so.
        is_shown = self._source.capabilities.shows_restored
        archived = entry.storage_class in ARCHIVED and (is_shown or row is None or row[2] != REQUEUED)
        if same and not drifted and (state is KeyState.REJECTED or (state is KeyState.ARCHIVED and archived)):
            return
        if existing is not None and existing.sync_id != self._sync.sync_id and row is not None and holds(existing, entry):
            if not same or state is not KeyState.LIVE:  # another sync has seen it already
                taken.keys.append(_key(entry, KeyState.LIVE, existing.object_id))
            return
        if (
            same
            and existing is not None
            and is_made_of(existing, entry, kind)
            and not (drifted and self._says_more(existing, entry))
        ):
            if state is not KeyState.LIVE:  # it is back, as it was
                taken.keys.append(_key(entry, KeyState.LIVE, existing.object_id))
            return
        if existing is not None and not reconcile.on_update:
            taken.back += [entry.key] if state in DOOMED else []
            return
        earlier = existing.object_id if existing else None
        taken.new_keys += row is None
        if archived:
            remedy = "restore it, or move it to a class that can be read; the next pass reads it then"
            if not is_shown:
                remedy = "move it to a class that can be read, or restore it and requeue it"
            taken.keys.append(_key(entry, KeyState.ARCHIVED, earlier, f"{ARCHIVED_WORDS}{entry.storage_class}: {remedy}"))
            taken.failed += 1
            return
        try:
            if fault:
                raise SchemaViolation(f"File {self._path(listed)!r}: {fault}.")
            stored = self._object(entry, kind, existing, generation=generation, now=now)
        except SchemaViolation as error:
            taken.keys.append(_key(entry, KeyState.REJECTED, earlier, error.message))
            taken.failed += 1
            return
        taken.keys.append(_key(entry, KeyState.LIVE, stored.object_id))
        extracts = existing is None or reconcile.re_extract_on_update or existing.status is not ObjectStatus.COMPLETED
        if existing is None:
            taken.created.append(stored)
        else:
            taken.replaced.append(stored if extracts else stored.model_copy(update={"status": existing.status}))
        taken.size_change += stored.size_bytes - (existing.size_bytes if existing else 0)
        if extracts:
            taken.object_ids.append(stored.object_id)
            taken.read_bytes += entry.size

    def record(self, records: Records, taken: Taken, *, generation: int) -> None:
        """Write what was decided."""
        records.objects.add(taken.created)
        records.objects.put(taken.replaced)
        records.shared_keys.give([one.object_id for one in taken.inherited], self._sync.sync_id)
        records.shared_keys.forget(taken.inherited)
        if taken.waiting:
            records.objects.set_status(taken.waiting, ObjectStatus.PENDING, now=self._warehouse.now())
        records.syncs.put_keys(self._sync.sync_id, taken.keys, generation=generation)
        records.syncs.remove_keys(self._sync.sync_id, taken.gone_keys)
        records.syncs.found_again(self._sync.sync_id, taken.back)
        records.buckets.count(self._bucket.bucket_id, objects=taken.new, size_bytes=taken.size_change)
        for event, objects in (("object.created", taken.created), ("object.updated", taken.replaced)):
            if objects:
                tell_objects(records, event, objects, now=objects[0].updated_at)

    def _says_more(self, existing: StoredObject, entry: Entry) -> bool:
        """Whether the mapping makes other fields of a file than its object has."""
        try:
            mapped = self._mapping.fields(self._path(entry))
        except ValueError:
            return True
        return any(existing.fields.get(name) != value for name, value in mapped.items())

    def takes(self, entry: Entry) -> bool:
        """Whether a pass would register the file."""
        return self._property(entry) is not None

    def _property(self, entry: Entry) -> str | None:
        """The schema property a file belongs to, None when it is not taken: a folder marker, filtered out, or of no declared type."""
        if entry.key.endswith(b"/") and entry.size == 0:
            return None
        since = self._sync.spec.sync_from
        if since is not None and entry.modified_at and entry.modified_at < since.timestamp():
            return None
        path = self._path(entry)
        taken = self._sync.spec.file_filters.takes(
            path, size=entry.size, modified_at=entry.modified_at, content_type=entry.content_type
        )
        return self._mapping.property_for(blob_type_of(_mime(entry, path)), self._bucket.bucket_schema) if taken else None

    def _path(self, entry: Entry) -> str:
        """The file's path below the source, as objects tell it."""
        return storable(self._source.relative(entry.key))

    def _object(self, entry: Entry, kind: str, existing: StoredObject | None, *, generation: int, now: str) -> StoredObject:
        path, key = self._path(entry), entry.key.decode("utf-8", "surrogateescape")
        declared = self._bucket.bucket_schema.properties[kind]
        filename = path.rpartition("/")[2]
        own = {"path": path, "filename": filename}
        try:
            own |= self._mapping.fields(path)
        except ValueError as error:
            raise SchemaViolation(f"File {path!r}: {error}.") from error
        fields = self._bucket.bucket_schema.fit({kind: declared.type}, own, owner=f"File {path!r}")
        blob = Blob(
            property=kind,
            type=declared.type,
            key=(text := storable(key)),
            key_hex=entry.key.hex() if text != key else None,
            etag=entry.etag,
            version=entry.version,
            filename=filename,
            mime_type=self._mapping.mime_type(kind) or _mime(entry, path),
            size_bytes=entry.size,
        )
        object_id = existing.object_id if existing else derived_id("obj", self._sync.sync_id, key, str(generation))
        return StoredObject(
            object_id=ObjectId(object_id),
            namespace_id=self._sync.namespace_id,
            bucket_id=self._bucket.bucket_id,
            key_prefix="/" + path.rpartition("/")[0],
            blobs=[blob],
            fields=fields,
            sync_id=self._sync.sync_id,
            revision=existing.revision + 1 if existing else 1,
            status=ObjectStatus.PENDING,
            size_bytes=entry.size,
            created_at=existing.created_at if existing else now,
            updated_at=now,
        )

    # Batches

    def fill_batches(
        self, records: Records, object_ids: Sequence[ObjectId], *, settings: Settings, cursor: SyncCursor, now: str
    ) -> None:
        """Put objects into the sync's open batch; a full one is submitted, in this same transaction.

        Batches are cut at fixed numbers of objects, so that a repeated page makes the same batches.
        """
        size = self._sync.spec.batch_chunk_size
        waiting = list(object_ids)
        self._open = self._draft(records) if waiting else self._open
        while waiting:
            batch = self._open or self._new_batch(records, cursor, now=now)
            room = size - batch.item_count
            batch, waiting = records.batches.append_items(batch, waiting[:room], now=now), waiting[room:]
            self._open = batch
            if batch.item_count >= size:
                self._close(records, batch, settings=settings, now=now)

    def close_batches(self, records: Records, *, settings: Settings, now: str) -> None:
        """Submit the batch that is still open, however full: the pass has listed everything."""
        batch = self._draft(records)
        if batch is not None and batch.item_count:
            self._close(records, batch, settings=settings, now=now)

    def _draft(self, records: Records) -> Batch | None:
        """The batch that is being filled, as it is now: a client may have submitted or deleted it, and cannot until this is done."""
        known = self._open
        if known is None and not self._sync.spec.skip_batch_submission:
            known = next(iter(records.batches.open_of_sync(self._sync.sync_id)), None)
        if known is None:
            return None
        records.batches.hold(known.batch_id)
        found = records.batches.find(known.batch_id)
        return found if found is not None and found.status is BatchStatus.DRAFT else None

    def _new_batch(self, records: Records, cursor: SyncCursor, *, now: str) -> Batch:
        number = records.batches.count_of_sync(self._sync.sync_id)
        while records.batches.find(batch_id := self._batch_id(cursor, number)) is not None:
            number += 1  # an earlier batch of this pass was deleted
        wanted = self._sync.spec.batch_collection_ids
        batch = Batch(
            batch_id=batch_id,
            namespace_id=self._sync.namespace_id,
            bucket_id=self._bucket.bucket_id,
            sync_id=self._sync.sync_id,
            status=BatchStatus.DRAFT,
            dedup_strategy="replace",
            collection_ids=list(wanted) if wanted is not None else None,
            metadata=self._batch_metadata,
            created_at=now,
            updated_at=now,
        )
        records.batches.add(batch)
        return batch

    def _batch_id(self, cursor: SyncCursor, number: int) -> BatchId:
        return BatchId(derived_id("btch", self._sync.sync_id, str(cursor.generation), str(number))[:17])

    def _close(self, records: Records, batch: Batch, *, settings: Settings, now: str) -> None:
        self._open = None
        if not self._sync.spec.skip_batch_submission:
            submit(records, batch, settings=settings, now=now)


def _mime(entry: Entry, path: str) -> str:
    promised = mime_type_of(path)
    return promised if promised != "application/octet-stream" else entry.content_type or promised


def _key(entry: Entry, state: KeyState, object_id: str | None, error: str | None = None) -> SourceKey:
    return SourceKey(entry.key, entry.size, entry.etag, entry.version, int(state), object_id, entry.modified_at, error)
