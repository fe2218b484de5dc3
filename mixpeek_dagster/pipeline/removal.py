"""Take objects away, and with them their documents in every tier and their vectors.

With an external vector index a document is first hidden (state `deleting`), then forgotten by the index, then deleted; a crash in
between leaves it hidden, and `finish_removals` goes on from there.
"""

from collections.abc import Mapping, Sequence

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import DocumentState
from mixpeek_dagster.models.ids import CollectionId, DocumentId
from mixpeek_dagster.pipeline.events import tell_objects
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.vectors.index import Space


def space_of(collection: Collection) -> Space:
    """Where a collection's vectors are in the vector index."""
    outputs = {vector.index_name: vector.dim for vector in collection.vectors}
    return Space(namespace_id=collection.namespace_id, collection_id=collection.collection_id, outputs=outputs)


def remove_objects(records: Records, warehouse: Warehouse, object_ids: Sequence[str], *, now: str) -> int:
    """Delete objects with everything made from them, and tell; how many documents go. `finish_removals` has to follow the commit."""
    if not object_ids:
        return 0
    records.objects.hold_all(object_ids)  # no run writes documents of them from here on
    buckets = {stored.object_id: stored for stored in records.objects.named(object_ids).values()}
    documents = remove_documents(
        records, warehouse, [document.document_id for document in records.documents.of_objects(object_ids)], now=now
    )
    for bucket_id in {stored.bucket_id for stored in buckets.values()}:
        own = [stored for stored in buckets.values() if stored.bucket_id == bucket_id]
        records.objects.remove([stored.object_id for stored in own])
        records.buckets.count(bucket_id, objects=-len(own), size_bytes=-sum(stored.size_bytes for stored in own))
    tell_objects(records, "object.deleted", list(buckets.values()), now=now)
    return documents


def remove_documents(records: Records, warehouse: Warehouse, document_ids: Sequence[str], *, now: str) -> int:
    """Delete documents and everything made from them in later tiers; how many go."""
    if not document_ids:
        return 0
    doomed: Mapping[CollectionId, Sequence[DocumentId]] = records.documents.with_descendants(document_ids)
    if warehouse.index.is_projection:
        records.documents.retire(doomed, now=now)
    else:
        records.documents.remove(doomed)
    return sum(len(ids) for ids in doomed.values())


def finish_removals(warehouse: Warehouse, *, collection: Collection | None = None) -> int:
    """Make the vector index forget hidden documents and delete them; how many. Does nothing for an embedded index."""
    if not warehouse.index.is_projection:
        return 0
    removed = 0
    with warehouse.catalog.reading() as records:
        collections = [collection] if collection else records.collections.all()
    for each in collections:
        while True:
            with warehouse.catalog.reading() as records:
                waiting = records.documents.not_indexed(each.collection_id, before="~", limit=500, state=DocumentState.DELETING)
            if not waiting:
                break
            ids = [document.document_id for document in waiting]
            warehouse.index.delete(space_of(each), ids)
            with warehouse.catalog.transaction() as records:
                removed += records.documents.remove({each.collection_id: ids}, only_retired=True)
    return removed
