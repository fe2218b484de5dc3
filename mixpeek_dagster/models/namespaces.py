"""Namespaces: the isolation boundary. Nothing is read across it."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.models.values import Lenient

NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$"


class ExtractorRef(Lenient):
    """An extractor named with its version."""

    feature_extractor_name: str = Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.-]+$")
    version: str = Field(min_length=1, max_length=50, pattern=r"^[A-Za-z0-9_.-]+$")
    params: dict[str, Any] | None = None


class PayloadIndex(Lenient):
    """A document field that becomes a real database index."""

    field_name: str = Field(min_length=1, max_length=255)
    type: Literal["keyword", "integer", "float", "bool", "geo", "datetime", "text", "uuid"]
    is_protected: bool = False


class NamespaceCreate(Lenient):
    """Body of `POST /v1/namespaces`."""

    namespace_name: str = Field(min_length=3, max_length=64, pattern=NAME)
    description: str | None = Field(default=None, max_length=2000)
    mode: Literal["managed"] = "managed"
    feature_extractors: Sequence[ExtractorRef] = Field(default=(), max_length=100)
    payload_indexes: Sequence[PayloadIndex] = Field(default=(), max_length=100)


class NamespacePatch(Lenient):
    """What may change: with PATCH extractors and indexes are added, with PUT indexes are replaced."""

    namespace_name: str | None = Field(default=None, min_length=3, max_length=64, pattern=NAME)
    description: str | None = Field(default=None, max_length=2000)
    feature_extractors: Sequence[ExtractorRef] | None = Field(default=None, max_length=100)
    payload_indexes: Sequence[PayloadIndex] | None = Field(default=None, max_length=100)


class Namespace(NamespaceCreate):
    """A namespace as recorded."""

    namespace_id: NamespaceId
    created_at: str
    updated_at: str
