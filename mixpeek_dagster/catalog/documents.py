"""Records of documents and of the features they share.

A feature belongs to a content, not to a document: documents with the same content and the same extractor point at the same rows, so
a renamed, copied or re-synced file costs no inference and no second copy of its vectors.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, bindparam, delete, func, insert, select, update

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.catalog.rows import chunks, rows_among
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.documents import Document, DocumentState, Feature
from mixpeek_dagster.models.ids import CollectionId, DocumentId, NamespaceId

_documents, _features, _vectors, _collections = tables.documents, tables.features, tables.vectors, tables.collections
_KEPT = ("document_id", "created_at", "namespace_id", "collection_id")


class DocumentRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # Features

    def features(self, memo_keys: Iterable[str]) -> dict[str, list[Feature]]:
        """Known features by memo key, units in order."""
        found: dict[str, list[Feature]] = {}
        for chunk in chunks(list(set(memo_keys))):
            units = select(_features.c.memo_key, _features.c.position, _features.c.fields).where(_features.c.memo_key.in_(chunk))
            for memo_key, position, fields in self._connection.execute(
                units.order_by(_features.c.memo_key, _features.c.position)
            ):
                found.setdefault(memo_key, []).append(Feature(memo_key, position, fields, {}))
        return found

    def forgotten(self, memo_keys: Iterable[str]) -> set[str]:
        """Which of these features are not recorded (any more)."""
        wanted = set(memo_keys)
        known: set[str] = set()
        for chunk in chunks(sorted(wanted)):
            known.update(
                self._connection.execute(select(_features.c.memo_key).distinct().where(_features.c.memo_key.in_(chunk))).scalars()
            )
        return wanted - known

    def add_features(self, features: Sequence[Feature], *, now: str) -> None:
        """Record features. What is recorded already is replaced: the same content and extractor make the same feature."""
        # In one order for everybody: two runs that make the same features at once then wait for each other, and do not deadlock.
        ordered = sorted(features, key=lambda feature: (feature.memo_key, feature.position))
        units = [{"memo_key": f.memo_key, "position": f.position, "fields": f.fields, "created_at": now} for f in ordered]
        data = [
            {"memo_key": f.memo_key, "position": f.position, "output": output, "data": vector}
            for f in ordered
            for output, vector in sorted(f.vectors.items())
        ]
        self._upsert(_features, units)
        self._upsert(_vectors, data)
        self._remove_surplus_units(Counter(feature.memo_key for feature in ordered))

    def _remove_surplus_units(self, units: Mapping[str, int]) -> None:
        """Delete what an earlier extraction made beyond these numbers of units; after the writes, so that their locks are held."""
        for count in sorted(set(units.values())):
            for chunk in chunks([memo_key for memo_key, own in units.items() if own == count]):
                for table in (_features, _vectors):
                    self._connection.execute(delete(table).where(table.c.memo_key.in_(chunk), table.c.position >= count))

    def remove_unused_features(self, *, before: str, limit: int = 10_000) -> int:
        """Delete features that were made before a time and that no document uses any more."""
        used = select(_documents.c.document_id).where(_documents.c.memo_key == _features.c.memo_key).exists()
        query = select(_features.c.memo_key).distinct().where(_features.c.created_at < before, ~used).limit(limit)
        unused = list(self._connection.execute(query).scalars())
        for chunk in chunks(unused):
            self._connection.execute(delete(_vectors).where(_vectors.c.memo_key.in_(chunk)))
            self._connection.execute(delete(_features).where(_features.c.memo_key.in_(chunk)))
        return len(unused)

    def vectors_of(self, documents: Sequence[Document]) -> dict[DocumentId, dict[str, bytes]]:
        """The vectors of each document by index name, as little-endian float32 bytes."""
        units = {(document.memo_key, document.position) for document in documents}
        found: dict[tuple[str, int], dict[str, bytes]] = {}
        for chunk in chunks(sorted({memo_key for memo_key, _ in units})):
            for row in self._connection.execute(select(_vectors).where(_vectors.c.memo_key.in_(chunk))):
                found.setdefault((row.memo_key, row.position), {})[row.output] = bytes(row.data)
        return {document.document_id: found.get((document.memo_key, document.position), {}) for document in documents}

    # Documents

    def put(self, collection_id: CollectionId, documents: Sequence[Document]) -> int:
        """Insert or replace documents of one collection; how many are new. Of two with the same id the last counts."""
        documents = list({document.document_id: document for document in documents}.values())
        if not documents:
            return 0
        first = self._advance(collection_id, seqs=len(documents))
        known = 0
        for chunk in chunks([document.document_id for document in documents]):
            known += self._connection.execute(select(func.count()).where(_documents.c.document_id.in_(chunk))).scalar_one()
        rows = [_row(document) | {"seq": seq} for seq, document in enumerate(documents, first)]
        if known == 0:
            self._connection.execute(insert(_documents), rows)
        else:
            self._upsert(_documents, rows, keep=_KEPT)
        if known < len(documents):
            counted = update(_collections).where(_collections.c.collection_id == collection_id)
            grown = _collections.c.document_count + len(documents) - known
            self._connection.execute(counted.values(document_count=grown))
        return len(documents) - known

    def _advance(self, collection_id: CollectionId, *, seqs: int) -> int:
        """Reserve sequence numbers. The row lock this takes makes writers of one collection wait for each other, so that commits
        are visible in order of their numbers and what is counted after it stays true."""
        reserved = (
            update(_collections)
            .where(_collections.c.collection_id == collection_id)
            .values(last_seq=_collections.c.last_seq + seqs)
        )
        if self._connection.execute(reserved).rowcount == 0:
            raise NotFound(f"Collection {collection_id} was deleted while its documents were being written.")
        query = select(_collections.c.last_seq).where(_collections.c.collection_id == collection_id)
        return int(self._connection.execute(query).scalar_one()) - seqs + 1

    def _upsert(self, table: Table, rows: list[dict[str, Any]], *, keep: Sequence[str] = ()) -> None:
        if not rows:
            return
        if self._connection.dialect.name == "sqlite":
            from sqlalchemy.dialects.sqlite import insert as upsert
        else:
            from sqlalchemy.dialects.postgresql import insert as upsert  # type: ignore[assignment]
        statement = upsert(table)
        keys = [column.name for column in table.primary_key]
        changed = {c.name: statement.excluded[c.name] for c in table.c if c.name not in keys and c.name not in keep}
        self._connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)

    def get(self, document_id: str, *, namespace_id: NamespaceId) -> Document:
        """By id inside a namespace.

        Raises:
            NotFound: there is none.
        """
        found = self.named([document_id], namespace_id=namespace_id)
        if document_id not in found:
            raise NotFound(f"No document {document_id!r} in namespace {namespace_id}.")
        return found[document_id]

    def named(self, document_ids: Iterable[str], *, namespace_id: NamespaceId | None = None) -> dict[str, Document]:
        """The documents with these ids that exist, by id."""
        query = select(_documents).where(_documents.c.state != DocumentState.DELETING)
        if namespace_id is not None:
            query = query.where(_documents.c.namespace_id == namespace_id)
        rows = rows_among(self._connection, query, _documents.c.document_id, document_ids)
        return {row.document_id: document_of(row) for row in rows}

    def existing(self, document_ids: Iterable[str]) -> set[str]:
        """Those of the ids that documents have."""
        own = _documents.c.document_id
        query = select(own).where(_documents.c.state != DocumentState.DELETING)
        return {row[0] for row in rows_among(self._connection, query, own, document_ids)}

    def of_part(self, partition_key: str, collection_ids: Sequence[str], *, after: str, limit: int) -> list[Document]:
        """Documents that one part wrote into these collections, by id: what the next tier reads."""
        query = select(_documents).where(
            _documents.c.partition_key == partition_key,
            _documents.c.collection_id.in_(collection_ids),
            _documents.c.document_id > after,
            _documents.c.state != DocumentState.DELETING,
        )
        return [document_of(row) for row in self._connection.execute(query.order_by(_documents.c.document_id).limit(limit))]

    def of_objects(self, object_ids: Sequence[str], collection_id: CollectionId | None = None) -> list[Document]:
        """Documents made from these objects, in one collection or in all."""
        query = select(_documents).where(_documents.c.state != DocumentState.DELETING)
        if collection_id is not None:
            query = query.where(_documents.c.collection_id == collection_id)
        return [document_of(row) for row in rows_among(self._connection, query, _documents.c.root_object_id, object_ids)]

    def revisions(self, collection_id: CollectionId, sources: Iterable[str], *, by: str) -> dict[str, int]:
        """The latest revision of each source that has documents in a collection; `by` as for `stale`."""
        column = _documents.c[by]
        query = select(column, func.max(_documents.c.revision)).where(_documents.c.collection_id == collection_id)
        return {row[0]: row[1] for row in rows_among(self._connection, query.group_by(column), column, sources)}

    def stale(
        self, collection_id: CollectionId, sources: Sequence[tuple[str, int, str, int]], *, by: str, replace: bool
    ) -> list[DocumentId]:
        """Documents that new ones take the place of.

        Args:
            sources: per source (object or document id, revision, identity, units): what was just written.
            by: the column that names the source: `root_object_id` or `source_document_id`.
            replace: everything of the source but what was just written is stale; else only older revisions and surplus units.
        """
        wanted = {source: (revision, identity, units) for source, revision, identity, units in sources}
        found: list[DocumentId] = []
        column = _documents.c[by]
        for chunk in chunks(list(wanted)):
            query = select(_documents.c.document_id, column, _documents.c.revision, _documents.c.identity, _documents.c.position)
            query = query.where(
                _documents.c.collection_id == collection_id, column.in_(chunk), _documents.c.state != DocumentState.DELETING
            )
            for document_id, source, revision, identity, position in self._connection.execute(query):
                now_revision, now_identity, units = wanted[source]
                own = identity == now_identity
                if (own and position >= units) or (not own and (replace or revision < now_revision)):
                    found.append(document_id)
        return found

    def roots(self, collection_ids: Sequence[str]) -> int:
        """How many objects the documents of these collections come from."""
        counted = select(func.count(func.distinct(_documents.c.root_object_id)))
        wanted = counted.where(_documents.c.collection_id.in_(collection_ids), _documents.c.state != DocumentState.DELETING)
        return int(self._connection.execute(wanted).scalar_one())

    def with_descendants(self, document_ids: Sequence[str]) -> dict[CollectionId, list[DocumentId]]:
        """These documents and everything made from them in later tiers, by collection."""
        found: dict[CollectionId, list[DocumentId]] = {}
        seen = set(document_ids)
        tier = list(seen)
        while tier:
            below: list[str] = []
            for chunk in chunks(tier):
                for document_id, collection_id in self._connection.execute(
                    select(_documents.c.document_id, _documents.c.collection_id).where(_documents.c.document_id.in_(chunk))
                ):
                    found.setdefault(collection_id, []).append(document_id)
                below += self._connection.execute(
                    select(_documents.c.document_id).where(_documents.c.source_document_id.in_(chunk))
                ).scalars()
            tier = [one for one in dict.fromkeys(below) if one not in seen]
            seen.update(tier)
        return found

    def remove(self, by_collection: Mapping[CollectionId, Sequence[str]], *, only_retired: bool = False) -> int:
        """Delete documents; how many there were. Vectors in an external index have to be gone before: see `retire`.

        With `only_retired`, one that was written again after it was retired stays.
        """
        removed = 0
        for collection_id, document_ids in sorted(by_collection.items()):
            gone = 0
            own = update(_collections).where(_collections.c.collection_id == collection_id)
            self._connection.execute(own.values(removals=_collections.c.removals))  # its lock first, as `put` does
            for chunk in chunks(document_ids):
                doomed = delete(_documents).where(_documents.c.document_id.in_(chunk))
                if only_retired:
                    doomed = doomed.where(_documents.c.state == DocumentState.DELETING)
                gone += self._connection.execute(doomed).rowcount
            if gone:
                self._connection.execute(
                    own.values(document_count=_collections.c.document_count - gone, removals=_collections.c.removals + 1)
                )
            removed += gone
        return removed

    def retire(self, by_collection: Mapping[CollectionId, Sequence[str]], *, now: str) -> None:
        """Hide documents from every reader, until the vector index has forgotten them and `remove` may follow."""
        for document_ids in by_collection.values():
            self.set_state(document_ids, DocumentState.DELETING, now=now)

    def set_state(self, document_ids: Sequence[str], state: DocumentState, *, now: str) -> None:
        for chunk in chunks(document_ids):
            self._connection.execute(
                update(_documents).where(_documents.c.document_id.in_(chunk)).values(state=state, updated_at=now)
            )

    def mark_indexed(self, written: Sequence[tuple[str, str]]) -> int:
        """Documents whose write reached the index, as (id, memo key): one that changed meanwhile stays pending. How many are."""
        if written:
            statement = update(_documents).where(
                _documents.c.document_id == bindparam("_id"),
                _documents.c.memo_key == bindparam("_memo"),
                _documents.c.state == DocumentState.PENDING,
            )
            done = self._connection.execute(
                statement.values(state=DocumentState.INDEXED), [{"_id": i, "_memo": m} for i, m in written]
            )
            return done.rowcount
        return 0

    def not_indexed(self, collection_id: CollectionId, *, before: str, limit: int, state: DocumentState) -> list[Document]:
        """Documents that have been in a passing state since before a time: a crash left them pending or deleting."""
        query = select(_documents).where(
            _documents.c.collection_id == collection_id,
            _documents.c.state == state,
            _documents.c.updated_at < before,
        )
        return [document_of(row) for row in self._connection.execute(query.order_by(_documents.c.updated_at).limit(limit))]

    def ids(self, collection_id: CollectionId) -> Iterator[str]:
        query = select(_documents.c.document_id).where(_documents.c.collection_id == collection_id)
        yield from self._connection.execute(query.where(_documents.c.state == DocumentState.INDEXED)).scalars()

    def scan(self, collection_id: CollectionId, *, after: str = "", limit: int = 500) -> list[Document]:
        """Documents of a collection by id, a page at a time."""
        query = select(_documents).where(
            _documents.c.collection_id == collection_id,
            _documents.c.document_id > after,
            _documents.c.state != DocumentState.DELETING,
        )
        return [document_of(row) for row in self._connection.execute(query.order_by(_documents.c.document_id).limit(limit))]

    # What the embedded vector index reads

    def stamp(self, collection_id: str) -> tuple[int, int]:
        """(removals so far, highest sequence number) of a collection: unchanged means that no vector of it changed."""
        query = select(_collections.c.removals, _collections.c.last_seq).where(_collections.c.collection_id == collection_id)
        row = self._connection.execute(query).first()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def vectors(self, collection_id: str, output: str, *, after_seq: int) -> Iterator[tuple[int, str, bytes | None]]:
        """(sequence number, document id, little-endian float32 or None) of a collection's documents written after a number."""
        same_unit = (_vectors.c.memo_key == _documents.c.memo_key) & (_vectors.c.position == _documents.c.position)
        query = (
            select(_documents.c.seq, _documents.c.document_id, _vectors.c.data)
            .join(_vectors, same_unit & (_vectors.c.output == output), isouter=True)
            .where(
                _documents.c.collection_id == collection_id,
                _documents.c.seq > after_seq,
                _documents.c.state == DocumentState.INDEXED,
            )
        )
        for seq, document_id, data in self._connection.execute(query.execution_options(yield_per=2000)):
            yield seq, document_id, None if data is None else bytes(data)

    def count(self, collection_id: str) -> int:
        query = select(_collections.c.document_count).where(_collections.c.collection_id == collection_id)
        return int(self._connection.execute(query).scalar() or 0)


def _row(document: Document) -> dict[str, Any]:
    return document.__dict__.copy()


def document_of(row: Row[Any]) -> Document:
    """The document of a row of the whole table."""
    fields = row._asdict()
    del fields["seq"]
    return Document(**fields)
