"""How clients see retrievers and what they find."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from mixpeek_dagster.api.paging import Pagination
from mixpeek_dagster.models.retrievers import STAGES, InputField, Retriever


class StageAnswer(BaseModel):
    """One stage."""

    stage_name: str
    stage_type: str
    config: dict[str, Any]
    parameters: dict[str, Any]
    on_error: str
    description: str | None = None


class RetrieverAnswer(BaseModel):
    """A stored search."""

    retriever_id: str
    retriever_name: str
    description: str | None = None
    collection_ids: list[str]
    collection_identifiers: list[str]
    stages: list[StageAnswer]
    input_schema: dict[str, InputField]
    tags: list[str] = []
    metadata: dict[str, Any] | None = None
    version: int
    fusion: str | None
    is_published: bool = False
    created_at: str
    updated_at: str


class RetrieverList(BaseModel):
    """One page of retrievers."""

    results: list[RetrieverAnswer]
    total: int
    pagination: Pagination
    warnings: list[Any] = []


class RetrieverChanged(BaseModel):
    """The retriever as it is now."""

    retriever: RetrieverAnswer


class RetrieverCloned(RetrieverChanged):
    """The copy, and what it is a copy of."""

    source_retriever_id: str


class StageStatistics(BaseModel):
    """What one stage took and gave."""

    input_count: int
    output_count: int
    duration_ms: float
    efficiency: float
    cache_hit: bool = False
    error: str | None = None


class Statistics(BaseModel):
    """What the stages did, by name."""

    stages: dict[str, StageStatistics]
    total_time_ms: float
    credits_used: float = 0.0


class FoundDocument(BaseModel):
    """A document as lists show it, with its `score`; null when no stage searched."""

    model_config = ConfigDict(extra="allow")

    document_id: str
    collection_id: str
    score: float | None = None


class ExecutionAnswer(BaseModel):
    """The documents that the last stage gave, a page of them; `results` are the same."""

    retriever_id: str | None = None
    execution_id: str
    status: str = "completed"
    documents: list[FoundDocument]
    results: list[FoundDocument]
    pagination: dict[str, Any]
    stage_statistics: Statistics
    budget: dict[str, Any]
    warnings: list[str] = []
    cache_hit: bool = False


class OneOfMany(BaseModel):
    """The answer for one set of inputs, or why there is none."""

    model_config = ConfigDict(extra="allow")

    query_index: int
    status: str
    error: str | None
    documents: list[FoundDocument]


class ExecutionAnswers(BaseModel):
    """One answer per set of inputs, in the same order."""

    retriever_id: str
    results: list[OneOfMany]
    total: int
    failed: int


def answer(retriever: Retriever) -> RetrieverAnswer:
    """A retriever as clients see it."""
    searches = [one for one in retriever.stages if one.stage_id == "feature_search"]
    own = retriever.model_dump(exclude={"stages", "collection_identifiers", "namespace_id"})
    ids = list(retriever.collection_identifiers)
    return RetrieverAnswer(
        **own,
        collection_ids=ids,
        collection_identifiers=ids,
        fusion=searches[0].parameters.get("fusion", "rrf") if searches else None,
        stages=[
            StageAnswer(
                stage_name=one.stage_name,
                stage_type=STAGES[one.stage_id],
                config={"stage_id": one.stage_id, "parameters": one.parameters},
                parameters=one.parameters,
                on_error=one.on_error,
                description=one.description,
            )
            for one in retriever.stages
        ],
    )
