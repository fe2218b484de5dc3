"""No features: every object becomes one document with the fields its collection passes through."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from mixpeek_dagster.errors import BadRequest
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.extractor import Output, Packing, Unit, Vectors, fingerprint
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.extractors.parameters import Parameters


class PassthroughParams(Parameters):
    """Parameters of `passthrough_extractor`."""

    refused: ClassVar[Mapping[str, str]] = {
        "vector_fields": "ready-made vectors cannot be passed through; use an extractor that makes them"
    }

    extractor_type: Literal["passthrough_extractor"] = "passthrough_extractor"


class PassthroughExtractor:
    """One document per object, without vectors; the object's files are not read."""

    name: ClassVar[str] = "passthrough_extractor"
    version: ClassVar[str] = "v1"
    description: ClassVar[str] = "Makes one document per object from the fields passed through, without vectors."
    accepts: ClassVar[Mapping[str, frozenset[str]]] = {}
    Params: ClassVar[type[Parameters]] = PassthroughParams
    fields: ClassVar[Mapping[str, str]] = {}
    outputs: Sequence[Output] = ()

    def __init__(self, params: PassthroughParams, *, models: ModelStore) -> None:
        self.fingerprint = fingerprint(PassthroughExtractor, params)

    def load(self) -> None:
        """Nothing to load."""

    def model_files(self) -> Mapping[str, Mapping[str, str]]:
        return {}

    def packing(self, output: str) -> Packing:
        raise BadRequest(f"{self.name} makes no vectors, so no {output!r}.")

    def decompose(self, inputs: Mapping[str, Content]) -> Iterator[Unit]:
        yield Unit({})

    def embed(self, output: str, payloads: Sequence[Any]) -> Vectors:
        raise BadRequest(f"{self.name} makes no vectors, so no {output!r}.")

    def embed_query(self, query: str | bytes, *, output: str) -> Vectors:
        raise BadRequest(f"{self.name} makes no vectors, so there is no {output!r} to search.")
