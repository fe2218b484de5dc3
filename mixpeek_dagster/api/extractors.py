"""The catalogue of extractors."""

from typing import Any, Literal

from pydantic import BaseModel

from mixpeek_dagster.api.deps import By, Identifier, InNamespace, Opened
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.errors import NotFound, UnknownName
from mixpeek_dagster.extractors.catalogue import catalogue, entry
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.pipeline.keys import Caller
from mixpeek_dagster.pipeline.warehouse import Warehouse

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


class DiscoveredExtractor(ExtractorEntry):
    """An extractor in the words of the discovery routes."""

    name: str
    supported_modalities: list[str]


class ExtractorList(BaseModel):
    """The extractors that a namespace may use."""

    success: bool = True
    extractors: list[ExtractorEntry]
    total: int
    namespace_id: str
    builtin_count: int
    custom_count: int


class FeatureKeys(BaseModel):
    """What can be searched in the namespace, by feature URI, and by the kind of file it comes from. Nothing is billed."""

    features: list[str]
    modalities: list[dict[str, Any]]
    custom_features: list[dict[str, Any]] = []
    full_res_multiplier: float = 1.0


@router.get("/collections/features/extractors")
def list_all(caller: By) -> list[ExtractorEntry]:
    """Every extractor that is registered."""
    return [_answer(one) for one in catalogue()]


@router.get("/discovery/extractors")
def discover(caller: By) -> list[DiscoveredExtractor]:
    """The same, under the names that the discovery routes use."""
    every = [_answer(one) for one in catalogue()]
    return [
        DiscoveredExtractor(**one.model_dump(), name=one.feature_extractor_name, supported_modalities=one.supported_input_types)
        for one in every
    ]


@router.get("/namespaces/{namespace_identifier}/extractors")
def list_of_namespace(
    warehouse: Opened, caller: By, namespace_identifier: Identifier, source: Literal["builtin", "custom"] | None = None
) -> ExtractorList:
    """The extractors of a namespace; all of them, when it names none."""
    namespace = _namespace(warehouse, caller, namespace_identifier)
    own = {f"{one.feature_extractor_name}_{one.version}" for one in namespace.feature_extractors}
    every = [_answer(one) for one in catalogue() if not own or one["feature_extractor_id"] in own]
    builtin = sum(one.source == "builtin" for one in every)
    found = [one for one in every if source in (None, one.source)]
    return ExtractorList(
        extractors=found,
        total=len(found),
        namespace_id=namespace.namespace_id,
        builtin_count=builtin,
        custom_count=len(every) - builtin,
    )


@router.get("/namespaces/{namespace_identifier}/extractors/{feature_extractor_id}")
def get_of_namespace(
    warehouse: Opened, caller: By, namespace_identifier: Identifier, feature_extractor_id: Identifier
) -> ExtractorEntry:
    """One extractor, as the namespace may use it."""
    _namespace(warehouse, caller, namespace_identifier)
    return get(feature_extractor_id, caller)


@router.get("/collections/features")
def feature_keys(warehouse: Opened, namespace: InNamespace) -> FeatureKeys:
    """The vectors that can be searched in the namespace."""
    with warehouse.catalog.reading() as records:
        every = records.collections.all(namespace.namespace_id)
    by_modality: dict[str, set[str]] = {}
    for vector in (vector for one in every for vector in one.vectors):
        by_modality.setdefault(vector.modality, set()).add(vector.feature_uri)
    return FeatureKeys(
        features=sorted(set().union(*by_modality.values())),
        modalities=[{"modality": name, "features": sorted(uris)} for name, uris in sorted(by_modality.items())],
    )


@router.get("/collections/features/extractors/{feature_extractor_id}")
def get(feature_extractor_id: Identifier, caller: By) -> ExtractorEntry:
    """One extractor, such as `text_extractor_v1`."""
    if ":" in feature_extractor_id:
        raise NotFound(f"No extractor {feature_extractor_id!r} in the catalogue.")
    try:
        return _answer(entry(feature_extractor_id))
    except UnknownName as error:
        raise NotFound(error.message) from error


def _namespace(warehouse: Warehouse, caller: Caller, identifier: str) -> Namespace:
    with warehouse.catalog.reading() as records:
        namespace = records.namespaces.get(identifier)
    if not caller.may_use(namespace.namespace_id):
        raise NotFound(f"No namespace {identifier!r}.")
    return namespace


def _answer(one: dict[str, Any]) -> ExtractorEntry:
    """Clients read one word per input, so several types are one text: `string, text`."""
    types = {name: ", ".join(kinds) for name, kinds in one["expected_input_types"].items()}
    return ExtractorEntry(**{**one, "expected_input_types": types})
