"""Keep retrievers, and run their stages one after the other.

Filters before the first search narrow it; what follows works on the documents that the stage before gave.
"""

import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.listing import Scope
from mixpeek_dagster.errors import Invalid, MixpeekError
from mixpeek_dagster.models.comparison import sort_key
from mixpeek_dagster.models.documents import Document
from mixpeek_dagster.models.filters import Filter, field_path
from mixpeek_dagster.models.ids import CollectionId, NamespaceId, new_id
from mixpeek_dagster.models.retrievers import (
    Retriever,
    RetrieverClone,
    RetrieverCreate,
    RetrieverPatch,
    Stage,
    filled,
    taken_inputs,
)
from mixpeek_dagster.models.values import Lenient
from mixpeek_dagster.pipeline.answers import flat_record
from mixpeek_dagster.pipeline.creation import validation_words
from mixpeek_dagster.pipeline.references import field_value
from mixpeek_dagster.pipeline.search import search
from mixpeek_dagster.pipeline.warehouse import Warehouse

MOST = 1000
"""So many documents a stage hands on."""
_RRF_K = 60


# Records


def make_retriever(warehouse: Warehouse, body: RetrieverCreate, *, namespace_id: NamespaceId) -> Retriever:
    """Raises NotFound for an unknown collection, AlreadyExists for a taken name."""
    now = warehouse.now()
    with warehouse.catalog.transaction() as records:
        collections = _resolved(records, body.collection_identifiers, namespace_id)
        own = {**body.model_dump(exclude={"collection_identifiers"}), "collection_identifiers": collections}
        ids = {"retriever_id": new_id("ret"), "namespace_id": namespace_id}
        retriever = Retriever(**own, **ids, created_at=now, updated_at=now)
        records.retrievers.add(retriever)
    return retriever


def clone_retriever(warehouse: Warehouse, retriever: Retriever, body: RetrieverClone) -> Retriever:
    """A retriever like this one but for what the body says. Raises what `make_retriever` raises."""
    plain = {name: getattr(retriever, name) for name in RetrieverCreate.model_fields}
    given = {name: value for name, value in body if value is not None}
    return make_retriever(warehouse, RetrieverCreate(**{**plain, **given}), namespace_id=retriever.namespace_id)


def change_retriever(warehouse: Warehouse, identifier: str, body: RetrieverPatch, *, namespace_id: NamespaceId) -> Retriever:
    """Change what the body names. Raises what `make_retriever` raises, and NotFound."""
    with warehouse.catalog.transaction() as records:
        records.retrievers.hold(records.retrievers.get(identifier, namespace_id=namespace_id).retriever_id)
        before = records.retrievers.get(identifier, namespace_id=namespace_id)
        given = {name: value for name, value in body if value is not None}
        if body.collection_identifiers is not None:
            given["collection_identifiers"] = _resolved(records, body.collection_identifiers, namespace_id)
        after = before.model_copy(update={**given, "version": before.version + 1, "updated_at": warehouse.now()})
        records.retrievers.put(after)
    return after


def _resolved(records: Records, wanted: Sequence[str], namespace_id: NamespaceId) -> list[str]:
    return [records.collections.get(one, namespace_id=namespace_id).collection_id for one in wanted]


# Execution


@dataclass(frozen=True)
class Scored:
    """One document of a result, and how near it is to what was searched for; None when nothing was."""

    document: Document
    score: float | None = None


@dataclass(frozen=True)
class StageRun:
    """What one stage did."""

    stage_name: str
    taken: int
    given: int
    ms: float
    error: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The documents of the last stage, best first, and what each stage did."""

    documents: Sequence[Scored]
    stages: Sequence[StageRun]
    warnings: Sequence[str]
    ms: float


@dataclass
class _State:
    """What has been found so far; None until a stage looks for documents, and until then only the filters grow."""

    collections: Sequence[CollectionId]
    filters: list[Mapping[str, Any]] = field(default_factory=list)
    found: list[Scored] | None = None

    def filter(self, *more: Mapping[str, Any]) -> Filter:
        """All filters at once; they heed case when one of them does."""
        every = [dict(one) for one in (*self.filters, *more)]
        return Filter.parse({"AND": every, "case_sensitive": any(one.get("case_sensitive") is True for one in every)})


def execute(
    warehouse: Warehouse,
    stages: Sequence[Stage],
    *,
    namespace_id: NamespaceId,
    collections: Sequence[str],
    inputs: Mapping[str, Any],
    filters: Mapping[str, Any] | None = None,
) -> Outcome:
    """Run stages one after the other.

    Args:
        filters: only documents that pass them, whatever the stages say.

    Raises:
        NotFound: a collection does not exist. Invalid: a parameter, an input or a filter is wrong.
    """
    begun = time.perf_counter()
    with warehouse.catalog.reading() as records:
        chosen = [CollectionId(one) for one in _resolved(records, collections, namespace_id)]
        if not chosen:
            chosen = [one.collection_id for one in records.collections.all(namespace_id)]
    state = _State(chosen, [filters] if filters else [])
    state.filter()
    done: list[StageRun] = []
    warnings: list[str] = []
    for stage in stages:
        before, started, error = len(state.found or ()), time.perf_counter(), None
        try:
            _RUN[stage.stage_id](warehouse, state, filled(stage.parameters, inputs), namespace_id)
        except ValidationError as problem:
            raise Invalid(f"Stage {stage.stage_name!r}: {validation_words(problem)}") from problem
        except MixpeekError as problem:
            if stage.on_error == "error":
                raise
            error = problem.message
            warnings.append(f"Stage {stage.stage_name!r} was skipped: {error}")
        ms = round((time.perf_counter() - started) * 1000, 2)
        done.append(StageRun(stage.stage_name, before, len(state.found or ()), ms, error))
    found = state.found if state.found is not None else _listed(warehouse, state, namespace_id)
    return Outcome(found, done, warnings, round((time.perf_counter() - begun) * 1000, 2))


class _Search(Lenient):
    feature_uri: str | None = Field(default=None, max_length=512)
    query: Any
    top_k: int = Field(default=100, ge=1, le=5000)
    min_score: float | None = None
    weight: float = Field(default=1.0, ge=0, le=1000)
    collection_identifiers: Sequence[str] = Field(default=(), max_length=1000)
    filters: dict[str, Any] | None = None


class _FeatureSearch(Lenient):
    """`searches`, or the parameters of the only one."""

    searches: Sequence[_Search] = Field(default=(), max_length=20)
    final_top_k: int = Field(default=25, ge=1, le=5000)
    fusion: Literal["rrf", "weighted", "max"] = "rrf"
    collection_identifiers: Sequence[str] = Field(default=(), max_length=1000)


def _feature_search(warehouse: Warehouse, state: _State, parameters: Mapping[str, Any], namespace_id: NamespaceId) -> None:
    plain = dict(parameters)
    if "searches" not in plain and "query" in plain:  # the older form: one search, its parameters in the stage
        plain = {
            "final_top_k": plain.get("limit", 25),
            "collection_identifiers": plain.get("collection_ids", ()),
            "searches": [plain],
        }
    asked = _FeatureSearch.model_validate(plain)
    lists: list[tuple[_Search, list[Scored]]] = []
    for one in asked.searches:
        where = [one.filters] if one.filters else []
        if state.found is not None:
            ids = [each.document.document_id for each in state.found]
            where.append({"field": "document_id", "operator": "in", "value": ids})
        hits = search(
            warehouse,
            query_of(one.query),
            namespace_id=namespace_id,
            collections=one.collection_identifiers or asked.collection_identifiers or state.collections,
            feature_uri=one.feature_uri,
            top_k=min(one.top_k, MOST),
            filter=state.filter(*where),
        )
        near = [Scored(hit.document, float(hit.score)) for hit in hits]
        lists.append((one, [each for each in near if one.min_score is None or (each.score or 0.0) >= one.min_score]))
    if not lists:
        state.found = _listed(warehouse, state, namespace_id)[: asked.final_top_k]
    else:
        state.found = _fused(lists, asked.fusion)[: min(asked.final_top_k, MOST)]


def _fused(lists: Sequence[tuple[_Search, list[Scored]]], how: str) -> list[Scored]:
    """One list out of several: by the places in them (`rrf`), by weighted scores, or by the best score. One list stays as it is."""
    if len(lists) == 1:
        return lists[0][1]
    documents: dict[str, Document] = {}
    scores: dict[str, float] = {}
    for asked, found in lists:
        for place, one in enumerate(found, 1):
            key, score = one.document.document_id, one.score or 0.0
            documents.setdefault(key, one.document)
            if how == "max":
                scores[key] = max(scores.get(key, score), score)
            else:
                scores[key] = scores.get(key, 0.0) + asked.weight * (1 / (_RRF_K + place) if how == "rrf" else score)
    ordered = sorted(scores, key=lambda key: (-scores[key], key))
    return [Scored(documents[key], scores[key]) for key in ordered]


def query_of(given: Any) -> str | bytes | list[float]:
    """A text, an image in base64 or a vector, in the forms that clients send."""
    body = given if isinstance(given, Mapping) else {"value": given}
    mode = body.get("input_mode")
    value = next((body[name] for name in (mode, "value", "text", "content", "vector", "image") if name and body.get(name)), None)
    if isinstance(value, str) and value and mode in (None, "text", "content"):
        return value
    if isinstance(value, str) and mode in ("image", "base64"):
        try:
            return b64decode(value.rpartition("base64,")[2], validate=True)
        except Base64Error as error:
            raise Invalid("query: the image is not base64") from error
    if isinstance(value, list) and value and all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
        if np.isfinite(np.asarray(value, dtype=np.float32)).all():
            return value
        raise Invalid("query: a vector needs finite numbers")
    raise Invalid("query: expected a text, a vector, or an image in base64 with input_mode")


class _AttributeFilter(Lenient):
    conditions: dict[str, Any] | None = None
    field: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    operator: str = "eq"
    value: Any = None
    case_insensitive: bool = False

    @property
    def wire(self) -> dict[str, Any]:
        """Raises Invalid when it says nothing."""
        if self.conditions is not None:
            return self.conditions
        if self.field is None:
            raise Invalid("attribute_filter: say `field`, or `conditions`")
        condition = {"field": self.field, "operator": self.operator, "value": self.value}
        return {"AND": [condition], "case_sensitive": not self.case_insensitive}


def _attribute_filter(warehouse: Warehouse, state: _State, parameters: Mapping[str, Any], namespace_id: NamespaceId) -> None:
    wire = _AttributeFilter.model_validate(parameters).wire
    wanted = Filter.parse(wire, at="conditions")
    if state.found is None:
        state.filters.append(wire)
    else:
        state.found = [one for one in state.found if wanted.matches(flat_record(one.document))]


class _Sort(Lenient):
    field: Annotated[str, Field(min_length=1, max_length=512)] = "created_at"
    direction: Literal["asc", "desc"] = "desc"


def _sort_attribute(warehouse: Warehouse, state: _State, parameters: Mapping[str, Any], namespace_id: NamespaceId) -> None:
    asked = _Sort.model_validate(parameters)
    field_path(asked.field, "field")
    if state.found is None:
        state.found = _listed(warehouse, state, namespace_id, by=asked)
        return
    valued = [(field_value(one.document, asked.field), one) for one in state.found]
    there = [pair for pair in valued if pair[0] is not None]
    there.sort(key=lambda pair: sort_key(pair[0]), reverse=asked.direction == "desc")
    state.found = [one for _, one in there] + [one for value, one in valued if value is None]


def _sort_relevance(warehouse: Warehouse, state: _State, parameters: Mapping[str, Any], namespace_id: NamespaceId) -> None:
    sign = 1.0 if parameters.get("direction") == "asc" else -1.0
    found = state.found if state.found is not None else _listed(warehouse, state, namespace_id)
    state.found = sorted(found, key=lambda one: (one.score is None, sign * (one.score or 0.0)))


def _listed(warehouse: Warehouse, state: _State, namespace_id: NamespaceId, by: _Sort | None = None) -> list[Scored]:
    """The documents that pass the filters, the newest first."""
    asked = by or _Sort()
    scope = Scope(namespace_id=namespace_id, collection_ids=state.collections, filter=state.filter())
    if not state.collections:
        return []
    with warehouse.catalog.reading() as records:
        order = records.listing.order(asked.field, descending=asked.direction == "desc")
        return [Scored(one) for one in records.listing.page(scope, order, limit=MOST)]


_RUN: Mapping[str, Callable[[Warehouse, _State, Mapping[str, Any], NamespaceId], None]] = {
    "feature_search": _feature_search,
    "attribute_filter": _attribute_filter,
    "sort_attribute": _sort_attribute,
    "sort_relevance": _sort_relevance,
}


def run_retriever(
    warehouse: Warehouse, retriever: Retriever, inputs: Mapping[str, Any], *, filters: Mapping[str, Any] | None
) -> Outcome:
    """Execute a stored retriever. Raises what `execute` raises."""
    taken = taken_inputs(retriever.input_schema, inputs)
    return execute(
        warehouse,
        retriever.stages,
        namespace_id=retriever.namespace_id,
        collections=retriever.collection_identifiers,
        inputs=taken,
        filters=filters,
    )
