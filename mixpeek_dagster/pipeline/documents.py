"""Lists of documents, answered in the shape of the API: `results` or `groups`, pagination, stats, warnings.

One query reads the page, one its objects, one its vectors: none is per document.
"""

from collections.abc import Sequence
from typing import Any

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.listing import FIELDS, Group, Scope
from mixpeek_dagster.catalog.pages import Cursor, decode_cursor, encode_cursor, scope_of
from mixpeek_dagster.errors import BadRequest, NotFound
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.ids import CollectionId, NamespaceId
from mixpeek_dagster.models.listing import ListRequest
from mixpeek_dagster.pipeline.answers import DocumentView, Presign
from mixpeek_dagster.pipeline.references import expand, field_value
from mixpeek_dagster.pipeline.warehouse import Warehouse

GROUP_MOST, GROUP_LEAST = 100, 10
_UNINDEXED_FROM = 10_000


def list_documents(
    warehouse: Warehouse, request: ListRequest, *, namespace_id: NamespaceId, presign: Presign | None = None
) -> dict[str, Any]:
    """One page of documents, or of groups.

    Args:
        presign: makes the URL of a blob, for `return_presigned_urls`.

    Raises:
        Invalid: a filter, field name or partition is wrong.
        BadRequest: the cursor is none of ours, or belongs to another request.
    """
    request.check()
    with warehouse.catalog.reading() as records:
        return _Listing(records, request, namespace_id, presign).answer()


def resolve_collections(
    records: Records, wanted: Sequence[str] | None, *, namespace_id: NamespaceId
) -> tuple[list[Collection], list[str]]:
    """The collections that are meant, all of the namespace when none is named; and the names that are unknown."""
    every = records.collections.all(namespace_id)
    if not wanted:
        return every, []
    known = {one.collection_name: one for one in every} | {one.collection_id: one for one in every}
    found = {known[one].collection_id: known[one] for one in wanted if one in known}
    return list(found.values()), [one for one in dict.fromkeys(wanted) if one not in known]


class _Listing:
    def __init__(self, records: Records, request: ListRequest, namespace_id: NamespaceId, presign: Presign | None) -> None:
        self.records, self.request, self.namespace_id = records, request, namespace_id
        self.collections, self.unknown = resolve_collections(records, request.collection_ids, namespace_id=namespace_id)
        self.scope = Scope(
            namespace_id=namespace_id,
            collection_ids=[one.collection_id for one in self.collections],
            filter=request.filter,
            search=request.search,
            slice=(request.partition.index, request.partition.count) if request.partition else None,
            is_whole_namespace=not request.collection_ids,
        )
        self.sort = (request.sort.field, request.sort.direction == "desc") if request.sort else ("created_at", True)
        self.warnings = [f"Unknown collections were left out: {', '.join(self.unknown)}."] if self.unknown else []
        self.view = DocumentView(
            records,
            namespace_id=namespace_id,
            presign=presign if request.return_presigned_urls else None,
            vectors=request.return_vectors,
            vector_names=request.return_vector_names,
            select=request.select,
        )

    def answer(self) -> dict[str, Any]:
        answer = self._groups() if self.request.group_by else self._results()
        self._warn_of_unindexed(answer["pagination"]["total_count"])
        return {**answer, "unknown_collection_ids": self.unknown, "warnings": self.warnings}

    def _results(self) -> dict[str, Any]:
        request, listing = self.request, self.records.listing
        after = decode_cursor(request.cursor, scope=self._digest()) if request.cursor else None
        offset = 0 if after else request.offset
        found: list[Document] = []
        if self.collections:
            order = listing.order(self.sort[0], descending=self.sort[1])
            found = listing.page(self.scope, order, limit=request.limit + 1, offset=offset, after=after)
        page, has_more = found[: request.limit], len(found) > request.limit
        total = listing.total(self.scope)
        following = None
        if has_more:
            last = Cursor(field_value(page[-1], self.sort[0]), page[-1].document_id)
            following = encode_cursor(last, scope=self._digest())
        results = self.view.answers(page)
        self._expand(page, results)
        return {
            "results": results,
            "pagination": pagination(request.limit, offset, total=total, has_more=has_more, next_cursor=following),
            "stats": {"total_documents": total, "avg_blobs_per_document": self.view.average_blobs},
            "total_documents": total,
        }

    def _groups(self) -> dict[str, Any]:
        request, listing, field = self.request, self.records.listing, self.request.group_by or ""
        offset = self._group_offset()
        order = listing.order(self.sort[0], descending=self.sort[1])
        found: list[Group] = []
        total = documents = 0
        if self.collections:
            each = min(GROUP_MOST, max(GROUP_LEAST, 1000 // request.limit))
            by_key = self.sort[1] if request.sort and request.sort.field == field else None
            found, total, documents = listing.groups(
                self.scope, field, order=order, limit=request.limit, offset=offset, each=each, by_key=by_key
            )
        members = [document for group in found for document in group.documents]
        answers = self.view.answers(members)
        self._expand(members, answers)
        places = iter(answers)
        groups = [
            {"group_key": group.key, "documents": [next(places) for _ in group.documents], "count": group.size} for group in found
        ]
        end = offset + len(found)
        following = encode_cursor(Cursor(end, ""), scope=self._digest()) if end < total else None
        return {
            "groups": groups,
            "group_by_field": field,
            "pagination": pagination(request.limit, offset, total=total, has_more=end < total, next_cursor=following),
            "stats": {
                "total_documents": documents,
                "avg_blobs_per_document": self.view.average_blobs,
                "total_groups": total,
                "avg_documents_per_group": documents / total if total else 0.0,
            },
            "total_documents": documents,
        }

    def _group_offset(self) -> int:
        if not self.request.cursor:
            return self.request.offset
        place = decode_cursor(self.request.cursor, scope=self._digest()).value
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < 2**53:
            raise BadRequest("The cursor cannot be used: it is not one of ours. Start again without a cursor.")
        return place

    def _digest(self) -> str:
        request = self.request
        parts = (self.namespace_id, sorted(self.scope.collection_ids), request.filter.to_json(), request.search or "")
        return scope_of(*parts, list(self.sort), request.group_by, list(self.scope.slice or ()))

    def _expand(self, documents: Sequence[Document], answers: Sequence[dict[str, Any]]) -> None:
        """Put the documents that fields name under `_expanded`."""
        fields = self.request.expand or ()
        self.warnings += expand(self.records, documents, answers, fields, namespace_id=self.namespace_id)

    def _warn_of_unindexed(self, total: int) -> None:
        if sum(one.document_count for one in self.collections) < _UNINDEXED_FROM or self.scope.filter.is_empty:
            return
        declared = {one.field_name for one in self.records.namespaces.get(self.namespace_id).payload_indexes}
        asked = {one.field for one in self.scope.filter.conditions()}
        plain = sorted(asked - declared - FIELDS.keys())
        if plain:
            self.warnings.append(
                f"No payload index on {', '.join(plain[:10])}: every document is read. Add one to the namespace's payload_indexes."
            )


def pagination(limit: int, offset: int, *, total: int, has_more: bool, next_cursor: str | None) -> dict[str, Any]:
    """Where a page is: the union of the seed's shape (has_more, limit, offset, total_count) and the SDK's (total, page, …)."""
    return {
        "has_more": has_more,
        "limit": limit,
        "offset": offset,
        "total_count": total,
        "total": total,
        "page": offset // limit + 1,
        "page_size": limit,
        "total_pages": -(-total // limit),
        "next_page": f"?limit={limit}&cursor={next_cursor}" if next_cursor else None,
        "previous_page": f"?limit={limit}&offset={max(0, offset - limit)}" if offset else None,
        "next_cursor": next_cursor,
    }


def get_document(
    warehouse: Warehouse,
    document_id: str,
    *,
    namespace_id: NamespaceId,
    collection_id: CollectionId | None = None,
    presign: Presign | None = None,
    vectors: bool = False,
    vector_names: bool | list[str] = False,
    expanding: Sequence[str] = (),
) -> dict[str, Any]:
    """One document as clients see it.

    Args:
        expanding: fields that name documents, to be shown under `_expanded`.

    Raises:
        NotFound: there is none in the namespace (and collection).
    """
    with warehouse.catalog.reading() as records:
        found = records.documents.named([document_id], namespace_id=namespace_id).get(document_id)
        if found is None or collection_id not in (None, found.collection_id):
            raise NotFound(f"No document {document_id!r} in {collection_id or namespace_id}.")
        view = DocumentView(records, namespace_id=namespace_id, presign=presign, vectors=vectors, vector_names=vector_names)
        answers = view.answers([found])
        expand(records, [found], answers, expanding, namespace_id=namespace_id)
        return answers[0]
