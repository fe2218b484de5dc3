"""The proof: list the source, the catalog and the vector index, and say what is missing, extra, stale or duplicate."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mixpeek_dagster.catalog.syncs import KeyState
from mixpeek_dagster.errors import ProviderError
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.ids import BucketId
from mixpeek_dagster.models.objects import ObjectStatus, StoredObject
from mixpeek_dagster.models.syncs import Sync
from mixpeek_dagster.models.values import storable
from mixpeek_dagster.pipeline.entries import known_as, recordable
from mixpeek_dagster.pipeline.intake import Intake
from mixpeek_dagster.pipeline.removal import space_of
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.provider import Entry

_NAMED = 20


@dataclass
class Check:
    """One comparison. Each list holds at most twenty examples of its count."""

    what: str
    compared: int = 0
    missing: int = 0
    extra: int = 0
    stale: int = 0
    duplicate: int = 0
    failed: int = 0
    examples: list[str] = field(default_factory=list)
    error: str | None = None

    def note(self, kind: str, name: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < _NAMED:
            self.examples.append(f"{kind}: {name}")

    @property
    def ok(self) -> bool:
        return not (self.missing or self.extra or self.stale or self.duplicate or self.error)


def verify(warehouse: Warehouse) -> list[Check]:
    """Compare everything with everything. Reads only; memory grows with one bucket's number of objects, not their size."""
    with warehouse.catalog.reading() as records:
        syncs, collections = records.syncs.all(), records.collections.all()
    return [
        *(_check_sync(warehouse, sync) for sync in syncs),
        *(_check_collection(warehouse, collection, collections) for collection in collections if collection.enabled),
        *(_check_index(warehouse, collection) for collection in collections if warehouse.index.is_projection),
    ]


def _check_sync(warehouse: Warehouse, sync: Sync) -> Check:
    """Source files against registered keys."""
    source = warehouse.source(sync)
    check = Check(f"source {source.uri}")
    with warehouse.catalog.reading() as records:
        registered = {row[0]: row for row in records.syncs.keys_between(sync.sync_id, None, None)}
        bucket = records.buckets.get(sync.bucket_id, namespace_id=sync.namespace_id)
    intake = Intake(warehouse, sync, bucket, source)
    try:
        for entry in _every_entry(warehouse, sync):
            if not intake.takes(entry):
                continue
            check.compared += 1
            row = registered.pop(known_as(entry.key), None)
            if row is None:
                check.note("missing", storable(source.relative(entry.key)))
            elif tuple(row[:4]) != recordable(entry)[0][:4]:
                check.note("stale", storable(source.relative(entry.key)))
            elif row[4] in (KeyState.REJECTED, KeyState.ARCHIVED):
                check.failed += 1
    except ProviderError as error:
        check.error = error.message
        return check
    for key in registered:
        check.note("extra", storable(source.relative(key)))
    return check


def _every_entry(warehouse: Warehouse, sync: Sync) -> Iterator[Entry]:
    after, token = None, None
    while True:
        page = warehouse.source(sync).list_page(after=after, token=token)
        yield from page.entries
        if page.token is None:
            return
        token, after = page.token, page.entries[-1].key if page.entries else after


def _check_collection(warehouse: Warehouse, collection: Collection, every: list[Collection]) -> Check:
    """Objects against the documents of one collection."""
    check = Check(f"collection {collection.collection_name}")
    roots = _root_buckets(collection, every)
    with warehouse.catalog.reading() as records:
        objects: dict[str, StoredObject] = {
            stored.object_id: stored
            for bucket_id in roots
            for stored in records.objects.named(records.objects.ids_in_bucket(bucket_id)).values()
        }
        disabled = records.objects.disabled(objects)
        seen: Counter[tuple[str, str, int]] = Counter()
        after, of_object, of_document = "", set[str | None](), set[str | None]()
        while documents := records.documents.scan(collection.collection_id, after=after):
            after = documents[-1].document_id
            for document in documents:
                check.compared += 1
                _check_document(check, document, objects, seen)
                of_object.add(document.root_object_id)
                of_document.add(document.source_document_id)
    direct = collection.source.type == "bucket"
    for object_id, stored in objects.items():
        if object_id in disabled:
            if object_id in of_object:
                check.note("extra", f"{stored.fields.get('path', object_id)} ({disabled[object_id]})")
        elif stored.status is ObjectStatus.FAILED:
            check.failed += 1
        elif stored.status is ObjectStatus.PENDING:
            check.note("missing", f"{stored.fields.get('path', object_id)} (not processed yet)")
        elif direct and object_id not in of_object and _has_input(collection, stored.fields, [b.property for b in stored.blobs]):
            check.note("missing", str(stored.fields.get("path", object_id)))
    for upstream in _upstream(warehouse, collection):
        read_from = objects.get(upstream.root_object_id or "")
        if upstream.document_id in of_document or read_from is None or read_from.status is not ObjectStatus.COMPLETED:
            continue
        if _has_input(collection, upstream.payload, [blob.property for blob in read_from.blobs]):
            check.note("missing", f"{read_from.fields.get('path', read_from.object_id)} (from {upstream.document_id})")
    return check


def _upstream(warehouse: Warehouse, collection: Collection) -> Iterator[Document]:
    """The documents that a collection of a later tier reads."""
    for collection_id in collection.source.collection_ids:
        after = ""
        while True:
            with warehouse.catalog.reading() as records:
                page = records.documents.scan(collection_id, after=after)
            if not page:
                break
            yield from page
            after = page[-1].document_id


def _check_document(
    check: Check, document: Document, objects: Mapping[str, StoredObject], seen: Counter[tuple[str, str, int]]
) -> None:
    stored = objects.get(document.root_object_id or "")
    if stored is None:
        check.note("extra", document.document_id)
    elif stored.revision != document.revision and stored.status is ObjectStatus.COMPLETED:
        check.note("stale", document.document_id)
    source = document.source_document_id or document.root_object_id or ""
    seen[(source, document.identity, document.position)] += 1
    if seen[(source, document.identity, document.position)] > 1:
        check.note("duplicate", document.document_id)


def _has_input(collection: Collection, fields: Mapping[str, object], blobs: list[str]) -> bool:
    mapped = collection.feature_extractor.input_mappings.values()
    filtered = bool((collection.source.source_filters or {}).get("filters"))
    return not filtered and any(path in blobs or isinstance(fields.get(path), str) for path in mapped)


def _root_buckets(collection: Collection, every: list[Collection]) -> list[BucketId]:
    named = {one.collection_id: one for one in every}
    found: list[BucketId] = []
    waiting = [collection]
    while waiting:
        one = waiting.pop()
        found += [bucket for bucket in one.source.bucket_ids if bucket not in found]
        waiting += [named[above] for above in one.source.collection_ids if above in named]
    return found


def _check_index(warehouse: Warehouse, collection: Collection) -> Check:
    """Documents against the vector index."""
    check = Check(f"index of {collection.collection_name}")
    with warehouse.catalog.reading() as records:
        recorded = set(records.documents.ids(collection.collection_id))
    indexed = Counter(warehouse.index.ids(space_of(collection)))
    check.compared = len(recorded)
    for document_id in sorted(recorded - set(indexed)):
        check.note("missing", document_id)
    for document_id in sorted(set(indexed) - recorded):
        check.note("extra", document_id)
    for document_id, count in indexed.items():
        if count > 1:
            check.note("duplicate", document_id)
    return check
