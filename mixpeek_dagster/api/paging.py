"""Pages of lists: what a request may say, and the pagination block, which is the union of the two shapes clients know."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from fastapi import Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field

from mixpeek_dagster.api.strict_json import parse
from mixpeek_dagster.errors import BadRequest, Invalid
from mixpeek_dagster.models.comparison import fold, sort_key, value_at
from mixpeek_dagster.models.filters import Filter, field_path
from mixpeek_dagster.models.values import Lenient

T = TypeVar("T")
MAX_OFFSET = 10_000_000


class SortOption(Lenient):
    """One key to sort by."""

    field: str = Field(min_length=1, max_length=512)
    direction: Literal["asc", "desc"] = "asc"


class PlainPageBody(Lenient):
    """Which page, in the body of a list request; what it says wins over the query string."""

    limit: int | None = Field(default=None, ge=1, le=1000)
    page_size: int | None = Field(default=None, ge=1, le=1000)
    offset: int | None = Field(default=None, ge=0, le=MAX_OFFSET)
    page: int | None = Field(default=None, ge=1, le=MAX_OFFSET)
    cursor: str | None = Field(default=None, max_length=4096)


class PageBody(PlainPageBody):
    """The same, of a list that can be filtered, searched and sorted."""

    filters: dict[str, Any] | None = None
    sort: SortOption | None = None
    sorts: Sequence[SortOption] | None = Field(default=None, max_length=10)
    search: str | None = Field(default=None, max_length=1000)
    case_sensitive: bool = False

    @property
    def sorting(self) -> list[SortOption]:
        return list(self.sorts or ()) or ([self.sort] if self.sort else [])

    def parsed_filters(self) -> Filter:
        """Raises Invalid when they are no filters."""
        wire = self.filters
        if wire and self.case_sensitive and "field" not in wire:
            wire = {**wire, "case_sensitive": True}
        return Filter.parse(wire)


class PageQuery(BaseModel):
    """The same in the query string, with the aliases that clients use."""

    limit: int | None = Query(default=None, ge=1, le=1000)
    page_size: int | None = Query(default=None, ge=1, le=1000)
    offset: int | None = Query(default=None, ge=0, le=MAX_OFFSET)
    page: int | None = Query(default=None, ge=1, le=MAX_OFFSET)
    cursor: str | None = Query(default=None, max_length=4096)
    next_cursor: str | None = Query(default=None, max_length=4096)
    after: str | None = Query(default=None, max_length=4096)


Asked = Annotated[PageQuery, Depends()]


class Paging(BaseModel):
    """Which page: `cursor` (decoded) beats `offset`."""

    model_config = ConfigDict(frozen=True)

    limit: int
    offset: int = 0
    cursor: dict[str, Any] | None = None

    @classmethod
    def of(cls, query: PageQuery, body: PlainPageBody | None = None, *, default: int = 100, most: int = 1000) -> Self:
        """The body wins over the query, `limit` over `page_size`, `offset` over `page`, a cursor over both.

        Raises:
            Invalid: the limit is above `most`.
            BadRequest: the cursor is none of ours.
        """
        body = body or PlainPageBody()
        limit = body.limit or body.page_size or query.limit or query.page_size or default
        if limit > most:
            raise Invalid(f"limit: at most {most}.")
        offset = body.offset if body.offset is not None else None
        if offset is None and body.page is not None:
            offset = (body.page - 1) * limit
        if offset is None:
            offset = query.offset if query.offset is not None else ((query.page or 1) - 1) * limit
        token = body.cursor or query.cursor or query.next_cursor or query.after
        cursor = read_cursor(token) if token else None
        if cursor is not None and isinstance(cursor.get("o"), int):
            offset = cursor["o"]
        if not 0 <= offset <= MAX_OFFSET:
            raise Invalid(f"offset: between 0 and {MAX_OFFSET}.")
        return cls(limit=limit, offset=offset, cursor=cursor)


class Pagination(BaseModel):
    """The union of the seed's shape (has_more, limit, offset, total_count) and the SDK's (total, page, …)."""

    has_more: bool
    limit: int
    offset: int
    total_count: int
    total: int
    page: int
    page_size: int
    total_pages: int
    next_page: str | None = None
    previous_page: str | None = None
    next_cursor: str | None = None


def pagination(paging: Paging, *, total: int, returned: int, next_cursor: Mapping[str, Any] | None = None) -> Pagination:
    """The pagination block of one page. Without a cursor of its own a list continues by offset."""
    is_keyset = paging.cursor is not None and "o" not in paging.cursor
    end = paging.offset + returned
    has_more = next_cursor is not None if is_keyset else end < total
    following = write_cursor(next_cursor or {"o": end}) if has_more else None
    return Pagination(
        has_more=has_more,
        limit=paging.limit,
        offset=paging.offset,
        total_count=total,
        total=total,
        page=paging.offset // paging.limit + 1,
        page_size=paging.limit,
        total_pages=-(-total // paging.limit),
        next_page=f"?limit={paging.limit}&cursor={following}" if following else None,
        previous_page=f"?limit={paging.limit}&offset={max(0, paging.offset - paging.limit)}" if paging.offset else None,
        next_cursor=following,
    )


def write_cursor(value: Mapping[str, Any]) -> str:
    """An opaque cursor; clients hand it back unread."""
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


def read_cursor(token: str) -> dict[str, Any]:
    """Raises BadRequest for a cursor that this API did not write."""
    try:
        value = parse(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, binascii.Error, Invalid, RequestValidationError) as error:
        raise BadRequest("The cursor is malformed: pass `pagination.next_cursor` back as it came.") from error
    if not isinstance(value, dict):
        raise BadRequest("The cursor is malformed: pass `pagination.next_cursor` back as it came.")
    return value


def select_page(
    items: Sequence[T], paging: Paging, body: PageBody, *, record: Callable[[T], Mapping[str, Any]], text: Callable[[T], str]
) -> tuple[list[T], int]:
    """Filter, search, sort and cut a list that is short enough to hold (namespaces, buckets, syncs): the page, and the total.

    Args:
        record: an item as filters and sorting see it.
        text: what `search` looks in.
    """
    wanted = body.parsed_filters()
    found = [one for one in items if wanted.matches(record(one))] if not wanted.is_empty else list(items)
    if body.search:
        term = fold(body.search)
        found = [one for one in found if term in fold(text(one))]
    for option in reversed(body.sorting):
        found.sort(key=_key(record, field_path(option.field, "sort.field")), reverse=option.direction == "desc")
    return found[paging.offset : paging.offset + paging.limit], len(found)


def _key(record: Callable[[T], Mapping[str, Any]], path: Sequence[str]) -> Callable[[T], Any]:
    return lambda one: sort_key(value_at(record(one), path))
