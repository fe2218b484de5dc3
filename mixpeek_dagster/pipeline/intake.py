"""Turn listed files into objects of a bucket, and objects into batches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.syncs import ARCHIVED_WORDS, KeyState, SourceKey
from mixpeek_dagster.errors import SchemaViolation
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.buckets import Bucket, blob_type_of, mime_type_of
from mixpeek_dagster.models.ids import BatchId, ObjectId, derived_id
from mixpeek_dagster.models.objects import Blob, ObjectStatus, StoredObject
from mixpeek_dagster.models.syncs import Sync, SyncCursor
from mixpeek_dagster.pipeline.batches import submit
from mixpeek_dagster.pipeline.events import tell_objects
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage.provider import Entry, ObjectSource

ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE", "Archive"})


@dataclass
class Taken:
    """What became of a page's new and changed files. `object_ids` have to be extracted; `drifted_out` fit the filters no more."""

    object_ids: list[ObjectId] = field(default_factory=list)
    drifted_out: list[str] = field(default_factory=list)
    new: int = 0
    changed: int = 0
    skipped: int = 0
    skipped_bytes: int = 0
    failed: int = 0


class Intake:
    """Registers files of one sync's source as objects of its bucket."""

    def __init__(self, sync: Sync, bucket: Bucket, source: ObjectSource) -> None:
        self._sync = sync
        self._bucket = bucket
        self._source = source
        self._open: Batch | None = None

    def take(
        self,
        records: Records,
        fresh: Iterable[tuple[Entry, tuple[object, ...] | None]],
        *,
        generation: int,
        drifted: bool,
        full: bool = False,
        now: str,
    ) -> Taken:
        """Record new and changed files; `fresh` pairs an entry with what is registered under its key (`SyncRecords.keys_between`).

        Args:
            drifted: the filters or the mapping changed, so that the same file may have to become another object.
            full: take every file as if it had changed.
        """
        taken, keys, created, replaced = Taken(), [], [], []
        gone_keys: list[bytes] = []
        pairs = list(fresh)
        current = records.objects.named([str(row[5]) for _, row in pairs if row and row[5]]) if pairs else {}
        size = 0
        for entry, row in pairs:
            state = KeyState(int(row[4])) if row else None  # type: ignore[call-overload]
            existing = current.get(str(row[5])) if row and row[5] else None
            same = row is not None and tuple(entry[:4]) == tuple(row[:4])
            kind = self._property(entry)
            if kind is None:
                taken.skipped += 1
                taken.skipped_bytes += entry.size
                if row is not None and (existing is None or self._sync.spec.reconcile.on_filter_drift):
                    gone_keys.append(entry.key)
                    taken.drifted_out += [existing.object_id] if existing else []
                continue
            archived = entry.storage_class in ARCHIVED
            if same and not drifted and not full and (state is KeyState.REJECTED or (state is KeyState.ARCHIVED and archived)):
                continue
            if same and not full and existing is not None and _is_made_of(existing, entry, kind):
                if state is not KeyState.LIVE:  # it is back, as it was
                    keys.append(_key(entry, KeyState.LIVE, existing.object_id))
                continue
            if existing is not None and not self._sync.spec.reconcile.on_update:
                continue
            earlier = existing.object_id if existing else None
            if archived:
                words = f"{ARCHIVED_WORDS}{entry.storage_class}: restore it to make it readable"
                keys.append(_key(entry, KeyState.ARCHIVED, earlier, words))
                taken.failed += 1
                continue
            try:
                stored = self._object(entry, kind, existing, generation=generation, now=now)
            except SchemaViolation as error:
                keys.append(_key(entry, KeyState.REJECTED, earlier, error.message))
                taken.failed += 1
                continue
            keys.append(_key(entry, KeyState.LIVE, stored.object_id))
            taken.object_ids.append(stored.object_id)
            if existing is None:
                created.append(stored)
                taken.new += 1
                size += stored.size_bytes
            else:
                replaced.append(stored)
                taken.changed += 1
                size += stored.size_bytes - existing.size_bytes
        records.objects.add(created)
        records.objects.put(replaced)
        records.syncs.put_keys(self._sync.sync_id, keys, generation=generation)
        records.syncs.remove_keys(self._sync.sync_id, gone_keys)
        records.buckets.count(self._bucket.bucket_id, objects=len(created), size_bytes=size)
        tell_objects(records, "object.created", created, now=now)
        tell_objects(records, "object.updated", replaced, now=now)
        return taken

    def takes(self, entry: Entry) -> bool:
        """Whether a pass would register the file."""
        return self._property(entry) is not None

    def _property(self, entry: Entry) -> str | None:
        """The schema property a file belongs to, None when it is not taken: a folder marker, filtered out, or of no declared type."""
        if entry.key.endswith(b"/") and entry.size == 0:
            return None
        path = self._source.relative(entry.key)
        taken = self._sync.spec.file_filters.takes(
            path, size=entry.size, modified_at=entry.modified_at, content_type=entry.content_type
        )
        return self._bucket.bucket_schema.property_for(blob_type_of(_mime(entry, path))) if taken else None

    def _object(self, entry: Entry, kind: str, existing: StoredObject | None, *, generation: int, now: str) -> StoredObject:
        path = self._source.relative(entry.key)
        declared = self._bucket.bucket_schema.properties[kind]
        filename = path.rpartition("/")[2]
        fields = self._bucket.bucket_schema.fit(
            {kind: declared.type}, {"path": path, "filename": filename}, owner=f"File {path!r}"
        )
        blob = Blob(
            property=kind,
            type=declared.type,
            key=entry.key.decode("utf-8", "surrogateescape"),
            etag=entry.etag,
            version=entry.version,
            filename=filename,
            mime_type=_mime(entry, path),
            size_bytes=entry.size,
        )
        object_id = existing.object_id if existing else derived_id("obj", self._sync.sync_id, str(blob.key), str(generation))
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
        while waiting:
            batch = self._open or self._reopen(records) or self._new_batch(records, cursor, now=now)
            room = size - batch.item_count
            batch, waiting = records.batches.append_items(batch, waiting[:room], now=now), waiting[room:]
            self._open = batch
            if batch.item_count >= size:
                self._close(records, batch, settings=settings, now=now)

    def close_batches(self, records: Records, *, settings: Settings, now: str) -> None:
        """Submit the batch that is still open, however full: the pass has listed everything."""
        batch = self._open or self._reopen(records)
        if batch is not None and batch.item_count:
            self._close(records, batch, settings=settings, now=now)

    def _reopen(self, records: Records) -> Batch | None:
        if self._sync.spec.skip_batch_submission:
            return None
        return next(iter(records.batches.open_of_sync(self._sync.sync_id)), None)

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
            metadata={"source": self._source.uri},
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


def _is_made_of(stored: StoredObject, entry: Entry, kind: str) -> bool:
    """Whether the object holds this revision of the file, under the property it belongs to now."""
    blob = stored.blobs[0] if stored.blobs else None
    return blob is not None and (blob.etag, blob.version, blob.property) == (entry.etag, entry.version, kind)


def _mime(entry: Entry, path: str) -> str:
    promised = mime_type_of(path)
    return promised if promised != "application/octet-stream" else entry.content_type or promised


def _key(entry: Entry, state: KeyState, object_id: str | None, error: str | None = None) -> SourceKey:
    return SourceKey(entry.key, entry.size, entry.etag, entry.version, int(state), object_id, entry.modified_at, error)
