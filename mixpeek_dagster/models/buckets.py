"""Buckets: containers of raw files with a schema that every object has to fit."""

import mimetypes
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from mixpeek_dagster.errors import SchemaViolation
from mixpeek_dagster.models.ids import BucketId, NamespaceId
from mixpeek_dagster.models.values import Lenient, Value


class FieldType(StrEnum):
    """What a schema property holds: the first eight are blobs (bytes an extractor reads), the others metadata."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    JSON = "json"
    BINARY = "binary"
    PDF = "pdf"
    EXCEL = "excel"
    STRING = "string"
    NUMBER = "number"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    OBJECT = "object"
    ARRAY = "array"
    DATE = "date"
    DATETIME = "datetime"

    @property
    def is_blob(self) -> bool:
        return self in BLOB_TYPES

    @property
    def is_scalar(self) -> bool:
        return not self.is_blob and self not in (FieldType.OBJECT, FieldType.ARRAY)


BLOB_TYPES = frozenset(list(FieldType)[:8])
_EXCEL = ("application/vnd.ms-excel", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")


def blob_type_of(mime_type: str) -> FieldType:
    """The blob type of a MIME type: `image/png` → image, `text/markdown` → text, anything unknown → binary."""
    family = mime_type.partition("/")[0]
    if mime_type == "application/json":
        return FieldType.JSON
    if mime_type == "application/pdf":
        return FieldType.PDF
    if mime_type in _EXCEL:
        return FieldType.EXCEL
    if family in ("text", "image", "audio", "video"):
        return FieldType(family)
    return FieldType.BINARY


_TEXTS = {
    ".rst": "text/x-rst",
    ".md": "text/markdown",
    ".log": "text/plain",
    ".yaml": "text/yaml",
    ".yml": "text/yaml",
    ".toml": "text/plain",
}


def mime_type_of(filename: str) -> str:
    """The MIME type a file name promises; `application/octet-stream` when it promises nothing."""
    suffix = filename[filename.rfind(".") :].lower() if "." in filename else ""
    return _TEXTS.get(suffix) or mimetypes.guess_type(filename)[0] or "application/octet-stream"


class SchemaField(Lenient):
    """One property of a bucket schema. Extra keys are kept as the caller wrote them."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: FieldType
    required: bool = False
    default: Any = None
    enum: Sequence[Any] | None = None
    items: "SchemaField | None" = None
    properties: Mapping[str, "SchemaField"] | None = None
    description: str | None = None
    examples: Sequence[Any] | None = None

    @field_validator("type", mode="before")
    @classmethod
    def _case_does_not_matter(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


class BucketSchema(Value):
    """The properties that objects of a bucket may and must have."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    properties: Mapping[str, SchemaField]

    @property
    def blobs(self) -> Mapping[str, SchemaField]:
        return {name: field for name, field in self.properties.items() if field.type.is_blob}

    def property_for(self, blob_type: FieldType) -> str | None:
        """The blob property a file of this type belongs to: the one of its own type, else the only one that takes any bytes."""
        for wanted in (blob_type, FieldType.BINARY):
            matching = [name for name, field in self.blobs.items() if field.type is wanted]
            if matching:
                return matching[0]
        return None

    def fit(self, blobs: Mapping[str, FieldType], fields: Mapping[str, Any], *, owner: str) -> dict[str, Any]:
        """The object's metadata with defaults filled in.

        Args:
            blobs: blob property name → type, as delivered.
            fields: metadata as delivered; unknown names are kept (a schema describes, it does not close, the metadata).
            owner: what an error calls the object.

        Raises:
            SchemaViolation: an unknown blob property, a missing required one, a wrong type, or a value outside an enum.
        """
        fitted = {
            name: field.default for name, field in self.properties.items() if field.default is not None and not field.type.is_blob
        }
        fitted.update(fields)
        for name, blob_type in blobs.items():
            declared = self.properties.get(name)
            if declared is None:
                raise SchemaViolation(
                    f"{owner}: blob property {name!r} is not in the bucket schema; it has {sorted(self.blobs)}."
                )
            if declared.type is not blob_type and declared.type is not FieldType.BINARY:
                raise SchemaViolation(f"{owner}: blob property {name!r} takes {declared.type.value}, not {blob_type.value}.")
        for name, declared in self.properties.items():
            if declared.type.is_blob:
                if declared.required and name not in blobs and declared.default is None and fitted.get(name) is None:
                    raise SchemaViolation(f"{owner}: required blob property {name!r} is missing.")
                continue
            value = fitted.get(name)
            if value is None:
                if declared.required:
                    raise SchemaViolation(f"{owner}: required field {name!r} is missing.")
                continue
            _check(value, declared, f"{owner}: field {name!r}")
        return fitted


def _check(value: Any, declared: SchemaField, where: str) -> None:
    if declared.enum is not None and value not in declared.enum:
        raise SchemaViolation(f"{where} is {value!r}, which is not one of {list(declared.enum)!r}.")
    if not _fits(value, declared.type):
        raise SchemaViolation(f"{where} must be of type {declared.type.value}, got {type(value).__name__} {value!r:.80}.")
    if declared.items is not None and isinstance(value, list):
        for position, item in enumerate(value):
            _check(item, declared.items, f"{where}[{position}]")
    if declared.properties is not None and isinstance(value, dict):
        for name, inner in declared.properties.items():
            if value.get(name) is not None:
                _check(value[name], inner, f"{where}.{name}")
            elif inner.required:
                raise SchemaViolation(f"{where}.{name} is required.")


def _fits(value: Any, wanted: FieldType) -> bool:
    match wanted:
        case FieldType.STRING:
            return isinstance(value, str)
        case FieldType.NUMBER | FieldType.FLOAT:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case FieldType.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case FieldType.BOOLEAN:
            return isinstance(value, bool)
        case FieldType.OBJECT:
            return isinstance(value, dict)
        case FieldType.ARRAY:
            return isinstance(value, list)
        case FieldType.DATE:
            return _parses(date.fromisoformat, value)
        case FieldType.DATETIME:
            return _parses(datetime.fromisoformat, value)
        case _:
            return True


def _parses(parse: Any, value: Any) -> bool:
    try:
        parse(value)
    except (TypeError, ValueError):
        return False
    return True


Policy = Literal["insert", "update", "upsert"]
NAME = r"^[^/\x00-\x1f]+$"


class UniqueKey(Lenient):
    """Fields whose values identify an object: with them, reprocessing upserts documents instead of adding new ones."""

    fields: Sequence[str] = Field(min_length=1, max_length=16)
    default_policy: Policy | None = None


class BucketCreate(Lenient):
    """Body of `POST /v1/buckets`."""

    bucket_name: str = Field(min_length=1, max_length=100, pattern=NAME)
    bucket_schema: BucketSchema
    description: str | None = Field(default=None, max_length=2000)
    unique_key: UniqueKey | None = None
    metadata: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _unique_key_fits_schema(self) -> Self:
        for name in self.unique_key.fields if self.unique_key else ():
            field = self.bucket_schema.properties.get(name)
            if field is None or not field.type.is_scalar:
                raise ValueError(f"unique_key field {name!r} must be a scalar metadata field of the schema")
        return self


class BucketPatch(Lenient):
    """What may change about a bucket; what is absent stays."""

    bucket_name: str | None = Field(default=None, min_length=1, max_length=100, pattern=NAME)
    description: str | None = Field(default=None, max_length=2000)
    metadata: dict[str, Any] | None = None
    bucket_schema: BucketSchema | None = None
    unique_key: UniqueKey | None = None


class Bucket(BucketCreate):
    """A bucket as recorded, with running totals."""

    bucket_id: BucketId
    namespace_id: NamespaceId
    object_count: int = 0
    total_size_bytes: int = 0
    created_at: str
    updated_at: str
