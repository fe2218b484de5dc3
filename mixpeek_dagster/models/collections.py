"""Collections: what an extractor makes of buckets or of other collections."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.buckets import BucketSchema
from mixpeek_dagster.models.ids import BucketId, CollectionId, NamespaceId
from mixpeek_dagster.models.values import Lenient, Value


class CollectionSource(Lenient):
    """Where a collection reads from: buckets (tier 0) or other collections."""

    type: Literal["bucket", "collection"]
    bucket_ids: Sequence[BucketId] = ()
    collection_ids: Sequence[CollectionId] = ()
    source_filters: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _singular_forms(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        body = {key: value for key, value in body.items() if value is not None}
        for singular, plural in (("bucket_id", "bucket_ids"), ("collection_id", "collection_ids")):
            one = body.pop(singular, None)
            if one is not None:
                body.setdefault(plural, [one])
        return body

    @model_validator(mode="after")
    def _names_its_sources(self) -> Self:
        if not self.upstream:
            raise ValueError(f"a source of type {self.type!r} needs {self.type}_ids")
        return self

    @property
    def upstream(self) -> Sequence[str]:
        return self.bucket_ids if self.type == "bucket" else self.collection_ids


class Passthrough(Lenient):
    """A source field copied into every document."""

    source_path: str
    target_path: str | None = None
    default: Any = None
    required: bool = False

    @property
    def target(self) -> str:
        return self.target_path or self.source_path.rpartition(".")[2]


def source_path(path: str) -> str:
    """A mapping path in plain dotted form: `$.title` and `payload.title` both mean `title`."""
    return path.removeprefix("$.").removeprefix("payload.")


class ExtractorConfig(Lenient):
    """The one extractor of a collection. `input_mappings` maps extractor inputs to source fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    feature_extractor_name: str = Field(min_length=1)
    version: str = "v1"
    input_mappings: Mapping[str, str] = Field(default_factory=dict)
    field_passthrough: Sequence[Passthrough] = ()
    include_all_source_fields: bool = False
    parameters: dict[str, Any] = Field(default_factory=dict)

    @field_validator("input_mappings", mode="before")
    @classmethod
    def _plain_paths(cls, mappings: Any) -> Any:
        if mappings is None:
            return {}
        if isinstance(mappings, list):
            if not all(isinstance(entry, dict) and "input_key" in entry for entry in mappings):
                raise ValueError("each entry of a list of input_mappings needs an input_key and a path")
            mappings = {entry["input_key"]: entry.get("path") for entry in mappings}
        if not isinstance(mappings, Mapping):
            raise ValueError("input_mappings map extractor inputs to source fields")
        flat = {key: value[0] if isinstance(value, list) and value else value for key, value in mappings.items()}
        return {key: source_path(value) for key, value in flat.items() if isinstance(value, str)}

    @field_validator("parameters", "field_passthrough", mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any, info: Any) -> Any:
        if value is None:
            return {} if info.field_name == "parameters" else ()
        return value

    @model_validator(mode="after")
    def _parameters_are_of_this_extractor(self) -> Self:
        said = self.parameters.get("extractor_type")
        if said is not None and said != self.feature_extractor_name:
            raise ValueError(f"parameters are for {said!r}, the extractor is {self.feature_extractor_name!r}")
        return self

    @property
    def extractor_id(self) -> str:
        """`text_extractor_v1`: the name the registry knows."""
        return (
            self.feature_extractor_name if ":" in self.feature_extractor_name else f"{self.feature_extractor_name}_{self.version}"
        )


class CollectionCreate(Lenient):
    """Body of `POST /v1/collections`."""

    collection_name: str = Field(min_length=3, max_length=100, pattern=r"^[^/\x00-\x1f]+$")
    source: CollectionSource
    feature_extractor: ExtractorConfig
    description: str | None = None
    enabled: bool = True
    metadata: dict[str, Any] | None = None


class VectorSpec(Value):
    """One vector of a collection: `index_name` names it in the vector index, `feature_uri` in requests."""

    index_name: str
    feature_uri: str
    output: str
    dim: int
    modality: str = "text"


class Collection(CollectionCreate):
    """A collection as recorded, with its computed schemas."""

    collection_id: CollectionId
    namespace_id: NamespaceId
    input_schema: BucketSchema
    output_schema: BucketSchema
    vectors: Sequence[VectorSpec] = ()
    fingerprint: str
    document_count: int = 0
    created_at: str
    updated_at: str


def downstream_tiers(collections: Iterable[Collection], *, roots: Iterable[str]) -> list[list[CollectionId]]:
    """Tiers of the enabled collections that `roots` (bucket or collection ids) feed, directly or through others.

    A collection's tier is one more than its deepest reached upstream, so every tier only reads earlier ones. Ids inside a tier
    are sorted.

    Raises:
        Invalid: the collections form a cycle.
    """
    depth: dict[str, int] = dict.fromkeys(roots, -1)
    waiting = [collection for collection in collections if collection.enabled]
    for _ in range(len(waiting) + 1):
        moved = False
        for collection in waiting:
            reached = [depth[upstream] for upstream in collection.source.upstream if upstream in depth]
            if reached and collection.collection_id not in roots and depth.get(collection.collection_id, -2) < max(reached) + 1:
                depth[collection.collection_id] = max(reached) + 1
                moved = True
        if not moved:
            break
    else:
        raise Invalid(f"Collections {sorted(c.collection_id for c in waiting)} read from each other in a cycle.")
    tiers: dict[int, list[CollectionId]] = {}
    for collection in waiting:
        if depth.get(collection.collection_id, -1) >= 0:
            tiers.setdefault(depth[collection.collection_id], []).append(collection.collection_id)
    return [sorted(tiers[number]) for number in sorted(tiers)]
