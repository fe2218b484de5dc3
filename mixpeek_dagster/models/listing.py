"""What a request for a list of documents may say: the body of `POST /v1/documents/list`."""

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.filters import Filter, field_path
from mixpeek_dagster.models.values import Lenient

MAX_COLLECTIONS = 1000
_ALIASES = {"page_size": "limit", "collection_id": "collection_ids", "collections": "collection_ids"}

FieldName = Annotated[str, Field(min_length=1, max_length=512)]
Identifier = Annotated[str, Field(min_length=1, max_length=255)]


class Sorting(Lenient):
    """One key to sort by."""

    field: FieldName
    direction: Literal["asc", "desc"] = "asc"


class Partition(Lenient):
    """One of `count` disjoint slices, for parallel readers."""

    index: int = Field(ge=0)
    count: int = Field(ge=1, le=256)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.index >= self.count:
            raise ValueError(f"partition {self.index} of {self.count}: the first is 0")
        return self


class ListRequest(Lenient):
    """Which documents, in which order, and how much of them. A cursor beats an offset.

    `return_vector_names` is true for the names of a document's vectors, or a list of names for those vectors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    filters: dict[str, Any] | None = None
    sort: Sorting | None = None
    search: str | None = Field(default=None, max_length=1000)
    cursor: str | None = Field(default=None, max_length=100_000)
    limit: int = Field(default=10, ge=1, le=1000)
    offset: int = Field(default=0, ge=0, le=2**53)
    return_presigned_urls: bool = False
    return_vectors: bool = False
    return_vector_names: bool | Annotated[list[FieldName], Field(max_length=100)] = False
    group_by: FieldName | None = None
    select: Sequence[FieldName] | None = Field(default=None, max_length=200)
    expand: Sequence[FieldName] | None = Field(default=None, max_length=50)
    collection_ids: Sequence[Identifier] | None = Field(default=None, max_length=MAX_COLLECTIONS)
    partition: Partition | None = None
    include_total: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain_form(cls, body: Any) -> Any:
        """Null is absent, aliases take their names, `group_by: {field}` is `group_by`; an unknown key is named with the known ones."""
        if not isinstance(body, dict):
            return body
        unknown = sorted(str(key) for key in body if key not in cls.model_fields and key not in _ALIASES)
        if unknown:
            known = ", ".join(sorted([*cls.model_fields, *_ALIASES]))
            raise ValueError(f"unknown key {', '.join(map(repr, unknown))}; accepted are {known}")
        plain = {key: value for key, value in body.items() if value is not None}
        for alias, name in _ALIASES.items():
            if alias in plain:
                value = plain.pop(alias)
                plain.setdefault(name, [value] if alias == "collection_id" and isinstance(value, str) else value)
        grouped = plain.get("group_by")
        if isinstance(grouped, dict) and set(grouped) == {"field"}:
            plain["group_by"] = grouped["field"]
        for name in ("filters", "sort"):
            if plain.get(name) == {}:
                del plain[name]
        return plain

    @cached_property
    def filter(self) -> Filter:
        """Raises `Invalid` when `filters` are none."""
        return Filter.parse(self.filters)

    def check(self) -> None:
        """Raises `Invalid` when filters or a field name are wrong: what reading the body cannot tell in one word."""
        _ = self.filter
        for at, names in (("select", self.select), ("expand", self.expand)):
            for place, name in enumerate(names or ()):
                field_path(name, f"{at}[{place}]")
        if self.sort:
            field_path(self.sort.field, "sort.field")
        if self.group_by:
            field_path(self.group_by, "group_by")
        if self.search and any(char == "\0" or "\ud800" <= char < "\ue000" for char in self.search):
            raise Invalid("search: a text cannot hold NUL or half a surrogate pair")
