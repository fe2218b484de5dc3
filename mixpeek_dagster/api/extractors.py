"""The catalogue of extractors."""

from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel

from mixpeek_dagster.api.deps import By, InNamespace, Opened
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.errors import NotFound, UnknownName
from mixpeek_dagster.extractors.catalogue import catalogue, entry

router = new_router("extractors")


class ExtractorEntry(BaseModel):
    """An extractor: what it takes, what it makes, and its parameters."""

    feature_extractor_name: str
    version: str
    feature_extractor_id: str
    description: str
    icon: str
    category: str = "general"
    source: str | None = None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    parameter_schema: dict[str, Any] | None
    supported_input_types: list[str]
    expected_input_types: dict[str, str] = {}
    max_inputs: dict[str, int]
    default_parameters: dict[str, Any]
    costs: dict[str, Any] | None = None
    required_vector_indexes: list[dict[str, Any]] | None
    required_payload_indexes: list[Any] | None
    position_fields: list[str] = []


@router.get("/collections/features/extractors")
@router.get("/discovery/extractors")
def list_all(caller: By) -> list[ExtractorEntry]:
    """Every extractor that is registered."""
    return [_answer(one) for one in catalogue()]


@router.get("/namespaces/{namespace_identifier}/extractors")
def list_of_namespace(
    warehouse: Opened, caller: By, namespace_identifier: Annotated[str, Path(min_length=1, max_length=255)]
) -> list[ExtractorEntry]:
    """The extractors of a namespace; all of them, when it names none."""
    with warehouse.catalog.reading() as records:
        namespace = records.namespaces.get(namespace_identifier)
    if not caller.may_use(namespace.namespace_id):
        raise NotFound(f"No namespace {namespace_identifier!r}.")
    own = {f"{one.feature_extractor_name}_{one.version}" for one in namespace.feature_extractors}
    return [_answer(one) for one in catalogue() if not own or one["feature_extractor_id"] in own]


@router.get("/collections/features")
def feature_keys(warehouse: Opened, namespace: InNamespace) -> dict[str, list[str]]:
    """The vectors that can be searched in the namespace, by their URIs."""
    with warehouse.catalog.reading() as records:
        every = records.collections.all(namespace.namespace_id)
    return {"features": sorted({vector.feature_uri for one in every for vector in one.vectors})}


@router.get("/collections/features/extractors/{feature_extractor_id}")
def get(feature_extractor_id: Annotated[str, Path(min_length=1, max_length=255)], caller: By) -> ExtractorEntry:
    """One extractor, such as `text_extractor_v1`."""
    if ":" in feature_extractor_id:
        raise NotFound(f"No extractor {feature_extractor_id!r} in the catalogue.")
    try:
        return _answer(entry(feature_extractor_id))
    except UnknownName as error:
        raise NotFound(error.message) from error


def _answer(one: dict[str, Any]) -> ExtractorEntry:
    """Clients read one word per input, so several types are one text: `string, text`."""
    types = {name: ", ".join(kinds) for name, kinds in one["expected_input_types"].items()}
    return ExtractorEntry(**{**one, "expected_input_types": types})
