"""What every model shares: frozen values, strict on input, and one form of time."""

import math
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, model_validator

from mixpeek_dagster.errors import Invalid

Json = dict[str, Any]
MAX_DEPTH = 64
"""How deep a JSON value may be nested."""


class Value(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Lenient(BaseModel):
    """A frozen value read from a request body: unknown keys are ignored, as the API does on most bodies, and null is absent."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, body: Any) -> Any:
        if isinstance(body, dict) and None in body.values():
            return {key: value for key, value in body.items() if value is not None}
        return body


def utc_now() -> datetime:
    """The default clock; functions that need the time take one, so that tests can move it."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with microseconds, e.g. `2026-11-22T01:02:03.000004Z`: its text sorts as the time does."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def check_json(value: Any, *, depth: int = 0) -> None:
    """Refuse a JSON value that no database takes.

    Raises:
        Invalid: nested deeper than `MAX_DEPTH`; NaN, infinite numbers, integers beyond 64 bits, NUL, halves of surrogate pairs.
    """
    if depth > MAX_DEPTH:
        raise Invalid(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid("Numbers have to be finite; NaN and Infinity are not JSON.")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise Invalid("Integers have to fit 64 bits.")
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_text(key)
            check_json(inner, depth=depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check_json(inner, depth=depth + 1)


def check_text(text: str) -> None:
    """Raises Invalid for NUL and halves of surrogate pairs, which no database takes."""
    if text.isascii():
        if "\x00" in text:
            raise Invalid("Texts may not hold the character NUL.")
        return
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise Invalid("Texts may not hold NUL or half a surrogate pair.")


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text as every database takes it: NUL, half surrogate pairs and undecodable bytes (surrogate escapes) as `%00` and `%FF`."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub(_percent_encoded, text)


def _percent_encoded(found: re.Match[str]) -> str:
    is_byte = "\udc80" <= found[0] <= "\udcff"
    return quote(found[0], errors="surrogateescape" if is_byte else "surrogatepass")
