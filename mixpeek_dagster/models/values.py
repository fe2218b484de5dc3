"""What every model shares: frozen values, strict on input, and one form of time."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

Json = dict[str, Any]


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
