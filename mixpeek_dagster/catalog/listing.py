"""Lists of documents in SQL: one page, its groups, how many there are.

Lineage has flat names that are columns; every other name is a path in the payload. A namespace's declared payload indexes are partial
indexes (`payload_indexes`), which is why the namespace is written into the statement instead of bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, select

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.catalog.column_types import Bytewise
from mixpeek_dagster.catalog.documents import document_of
from mixpeek_dagster.catalog.functions import canonical
from mixpeek_dagster.catalog.groups import (
    SameGroup,
    aggregate,
    distinct_values,
    group_expression,
    group_value,
    is_one_of,
    spelled,
)
from mixpeek_dagster.catalog.operands import Dialect, Sql, quoted
from mixpeek_dagster.catalog.pages import Cursor, Order, order_by, searched
from mixpeek_dagster.catalog.queries import INDEX_TYPES, compile_filter, opaque
from mixpeek_dagster.catalog.rows import chunks
from mixpeek_dagster.models.documents import Document, DocumentState
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import CollectionId, DocumentId, NamespaceId
from mixpeek_dagster.models.namespaces import PayloadIndex

_documents = tables.documents
_payload: Sql = _documents.c.payload
_BATCH_ID_LENGTH = 17
_SLICE_AT = 35  # an id ends with hexadecimal digits: its last two sort documents into 256 slices

_LINEAGE = ("root_object_id", "root_bucket_id", "source_document_id", "source_collection_id")
_OWN = ("document_id", "collection_id", "namespace_id", "partition_key", "run_id", "revision", "content_hash")
_FLAT: Mapping[str, Sql] = {
    **{name: _documents.c[name] for name in (*_OWN, *_LINEAGE, "created_at", "updated_at")},
    "source_object_id": _documents.c.root_object_id,
    "object_id": _documents.c.root_object_id,
    "bucket_id": _documents.c.root_bucket_id,
    "batch_id": func.substr(_documents.c.partition_key, 1, _BATCH_ID_LENGTH, type_=Bytewise),
}
FIELDS: Mapping[str, Sql] = {
    **_FLAT,
    **{f"_internal.{name}": column for name, column in _FLAT.items()},
    **{f"_internal.lineage.{name}": _FLAT[name] for name in (*_LINEAGE, "source_object_id")},
}
"""Known names of fields → columns. They win over fields of the payload with the same name."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which documents: those of some collections of a namespace that pass a filter and a search.

    `is_whole_namespace` says that `collection_ids` are all there are, so that an index over the namespace can serve.
    """

    namespace_id: NamespaceId
    collection_ids: Sequence[CollectionId]
    filter: Filter = field(default_factory=Filter)
    search: str | None = None
    slice: tuple[int, int] | None = None
    is_whole_namespace: bool = False

    @property
    def is_everything(self) -> bool:
        """All documents of the collections: their running totals say how many."""
        return self.filter.is_empty and not self.search and self.slice is None


class Group(NamedTuple):
    """One value of the grouping field, how many documents have it, and the first of them."""

    key: Any
    size: int
    documents: list[Document]


class GroupPage(NamedTuple):
    """Groups, and how many groups and documents there are in all."""

    groups: list[Group]
    total_groups: int
    total_documents: int


class ListingRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._dialect = cast(Dialect, connection.dialect.name)
        self._compiled: tuple[Filter, ColumnElement[bool]] | None = None

    def where(self, scope: Scope, *, is_walked: bool = False) -> ColumnElement[bool]:
        """The scope as one predicate; with `is_walked` no index is looked up for its filter."""
        ids = scope.collection_ids
        column = _documents.c.collection_id
        parts: list[ColumnElement[bool]] = [
            _documents.c.namespace_id == quoted(scope.namespace_id),
            _documents.c.state != DocumentState.DELETING,
        ]
        if not (scope.is_whole_namespace and (is_walked or scope.filter.is_empty) and len(ids) > 1):
            parts.insert(0, column == ids[0] if len(ids) == 1 else column.in_(ids))
        if not scope.filter.is_empty:
            passes = self._passes(scope.filter)
            parts.append(opaque(passes) if is_walked else passes)
        if scope.search:
            parts.append(searched(scope.search, payload=_payload, dialect=self._dialect))
        if scope.slice is not None:
            index, count = scope.slice
            mine = [f"{value:02x}" for value in range(256) if value % count == index]
            parts.append(func.substr(_documents.c.document_id, _SLICE_AT, 2).in_(mine))
        return and_(*parts)

    def _passes(self, filter: Filter) -> ColumnElement[bool]:
        """A filter in SQL; one list asks several times for the same."""
        if self._compiled is None or self._compiled[0] is not filter:
            self._compiled = filter, compile_filter(filter, columns=FIELDS, payload=_payload, dialect=self._dialect)
        return self._compiled[1]

    def order(self, field: str, *, descending: bool, is_walked: bool | None = None) -> Order:
        """An order for `page`.

        Args:
            is_walked: whether to walk an index in this order until the page is full, or to find what passes the filter and sort
                that. The database cannot know which reads less; None leaves it to it.

        Raises:
            Invalid: the name is no dotted path.
        """
        return order_by(
            field,
            descending=descending,
            is_walked=is_walked,
            columns=FIELDS,
            payload=_payload,
            document_id=_documents.c.document_id,
            dialect=self._dialect,
        )

    def has_walk(self, scope: Scope, field: str, declared: Iterable[PayloadIndex]) -> bool:
        """Whether an index holds the scope's documents in the order of a field."""
        is_one = len(scope.collection_ids) == 1
        if field in FIELDS:
            return FIELDS[field] is _documents.c.created_at and (is_one or scope.is_whole_namespace)
        if self._dialect != "sqlite" or not is_one:  # on Postgres an order is more than what is indexed
            return False
        return any(INDEX_TYPES[one.type] for one in declared if one.field_name == field)

    def page(self, scope: Scope, order: Order, *, limit: int, offset: int = 0, after: Cursor | None = None) -> list[Document]:
        query = select(_documents).where(self.where(scope, is_walked=order.is_walked is True))
        if after is not None:
            query = query.where(order.after(after))
        return [document_of(row) for row in self._connection.execute(query.order_by(*order.clauses).limit(limit).offset(offset))]

    def ids(self, scope: Scope) -> list[DocumentId]:
        """The ids of all documents, the oldest first."""
        order = (_documents.c.created_at, _documents.c.document_id)
        query = select(_documents.c.document_id).where(self.where(scope)).order_by(*order)
        return list(self._connection.execute(query).scalars())

    def total(self, scope: Scope) -> int:
        """How many documents; from the running totals where the scope allows it."""
        if not scope.collection_ids:
            return 0
        if scope.is_everything:
            counts = tables.collections.c
            query = select(func.coalesce(func.sum(counts.document_count), 0)).where(
                counts.collection_id.in_(scope.collection_ids)
            )
        else:
            query = select(func.count()).select_from(_documents).where(self.where(scope))
        return int(self._connection.execute(query).scalar_one())

    def groups(
        self, scope: Scope, field: str, *, order: Order, limit: int, offset: int, each: int, by_key: bool | None = None
    ) -> GroupPage:
        """One page of groups, the largest first, each with its first `each` documents in `order`.

        Args:
            by_key: order the groups by their value instead: False ascending, True descending.
        """
        key = group_expression(field, columns=FIELDS, payload=_payload, dialect=self._dialect)
        where = self.where(scope)
        count = func.count()
        sized = select(
            spelled(key).label("key"),
            count.label("size"),
            count.over().label("groups"),
            func.sum(count).over().label("documents"),
        )
        first = func.min(_documents.c.document_id)
        if by_key is None:
            sized = sized.order_by(count.desc(), first)
        else:
            sized = sized.order_by((key.desc() if by_key else key.asc()).nulls_last(), first)
        found = self._connection.execute(sized.where(where).group_by(key).limit(limit).offset(offset)).all()
        if not found:
            return GroupPage([], *self._group_totals(key, where)) if offset else GroupPage([], 0, 0)
        documents = self._members(scope, key, {one.key: min(one.size, each) for one in found}, order)
        groups = [Group(group_value(key, one.key), one.size, documents[one.key]) for one in found]
        return GroupPage(groups, int(found[0].groups), int(found[0].documents))

    def _members(self, scope: Scope, key: Sql, wanted: Mapping[Any, int], order: Order) -> dict[Any, list[Document]]:
        """The first documents of groups, so many of each. Reads in `order` until all groups are full, ids and keys only."""
        ids: dict[Any, list[str]] = {one: [] for one in wanted}
        spellings = SameGroup(key, wanted)
        missing = sum(wanted.values())
        query = select(_documents.c.document_id, spelled(key)).where(self.where(scope), is_one_of(key, list(wanted)))
        with self._connection.execute(query.order_by(*order.clauses).execution_options(yield_per=200)) as rows:
            for document_id, spelling in rows:
                group = spellings[spelling]
                if len(ids[group]) < wanted[group]:
                    ids[group].append(document_id)
                    missing -= 1
                    if not missing:
                        break
        every = [one for members in ids.values() for one in members]
        known: dict[str, Document] = {}
        for chunk in chunks(every):
            for row in self._connection.execute(select(_documents).where(_documents.c.document_id.in_(chunk))):
                known[row.document_id] = document_of(row)
        return {group: [known[one] for one in members] for group, members in ids.items()}

    def _group_totals(self, key: Sql, where: ColumnElement[bool]) -> tuple[int, int]:
        sizes = select(func.count().label("n")).select_from(_documents).where(where).group_by(key).subquery()
        groups, documents = self._connection.execute(select(func.count(), func.coalesce(func.sum(sizes.c.n), 0))).one()
        return int(groups), int(documents)

    def distinct(self, scope: Scope, field: str, *, limit: int) -> list[tuple[Any, int]]:
        """(value, how often), most frequent first."""
        query: Select[Any] = distinct_values(
            field,
            source=_documents,
            where=self.where(scope),
            columns=FIELDS,
            payload=_payload,
            dialect=self._dialect,
            limit=limit,
        )
        return [(canonical(value), count) for value, count in self._connection.execute(query)]

    def aggregates(self, scope: Scope, keys: Sequence[str], measures: Sequence[tuple[str, str | None]]) -> Sequence[Row[Any]]:
        """One row per group of the key fields: the keys, then every (function, field). Raises Invalid for an unknown function."""
        known = {"columns": FIELDS, "payload": _payload}
        grouped = [group_expression(one, **known, dialect=self._dialect) for one in keys]  # type: ignore[arg-type]
        numbers = [aggregate(function, field, **known, dialect=self._dialect) for function, field in measures]  # type: ignore[arg-type]
        columns = [column.label(f"c{place}") for place, column in enumerate([*grouped, *numbers])]
        query = select(*columns).select_from(_documents).where(self.where(scope)).group_by(*grouped)
        return self._connection.execute(query).all()

    def vector_names(self, documents: Sequence[Document]) -> dict[str, list[str]]:
        """The names of each document's vectors, by document id."""
        vectors = tables.vectors.c
        names: dict[tuple[str, int], list[str]] = {}
        for chunk in chunks(sorted({document.memo_key for document in documents})):
            query = select(vectors.memo_key, vectors.position, vectors.output).where(vectors.memo_key.in_(chunk))
            for memo_key, position, output in self._connection.execute(query.order_by(vectors.output)):
                names.setdefault((memo_key, position), []).append(output)
        return {document.document_id: names.get((document.memo_key, document.position), []) for document in documents}
