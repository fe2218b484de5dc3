"""Fields of documents that name other documents, and those documents beside them."""

from collections.abc import Sequence
from typing import Any

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.listing import FIELDS
from mixpeek_dagster.models.comparison import value_at
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.pipeline.answers import DocumentView, flat_record

MAX_REFERENCES = 50


def expand(
    records: Records,
    documents: Sequence[Document],
    answers: Sequence[dict[str, Any]],
    fields: Sequence[str],
    *,
    namespace_id: NamespaceId,
) -> list[str]:
    """Put the documents that the fields name under `_expanded` of each answer, one level deep; what there is to warn of."""
    if not fields or not documents:
        return []
    held = [{field: field_value(document, field) for field in fields} for document in documents]
    wanted = list(dict.fromkeys(one for values in held for value in values.values() for one in references(value)))
    known = records.documents.named(wanted[:MAX_REFERENCES], namespace_id=namespace_id)
    plain = DocumentView(records, namespace_id=namespace_id)
    told = dict(zip(known, plain.answers(list(known.values()))))
    for answer, values in zip(answers, held):
        answer["_expanded"] = expanded = {}
        for field, value in values.items():
            found = [told[one] for one in references(value) if one in told]
            if found or isinstance(value, list):
                expanded[field] = found if isinstance(value, list) else found[0]
    if len(wanted) <= MAX_REFERENCES:
        return []
    return [f"expand: the page names {len(wanted)} documents; the first {MAX_REFERENCES} are expanded. Use a smaller limit."]


def field_value(document: Document, field: str) -> Any:
    """The value of a field as filters and sorting see it."""
    record = flat_record(document)
    return record[field] if field in FIELDS else value_at(record, field.split("."))


def references(value: Any) -> list[str]:
    """The document ids that a field's value holds: one, or a list of them."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one]
