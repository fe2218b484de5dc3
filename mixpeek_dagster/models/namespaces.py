"""Namespaces: the isolation boundary. Nothing is read across it."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.models.values import Lenient


class ExtractorRef(Lenient):
    """An extractor named with its version."""

    feature_extractor_name: str
    version: str
    params: dict[str, Any] | None = None


class PayloadIndex(Lenient):
    """A document field that becomes a real database index."""

    field_name: str = Field(min_length=1, max_length=255)
    type: Literal["keyword", "integer", "float", "bool", "geo", "datetime", "text", "uuid"]
    is_protected: bool = False


class NamespaceCreate(Lenient):
    """Body of `POST /v1/namespaces`."""

    namespace_name: str = Field(min_length=3, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    description: str | None = None
    feature_extractors: Sequence[ExtractorRef] = ()
    payload_indexes: Sequence[PayloadIndex] = ()


class Namespace(NamespaceCreate):
    """A namespace as recorded."""

    namespace_id: NamespaceId
    created_at: str
    updated_at: str
