"""The functions that SQLite asks Python for, where its own cannot say what a filter means. All are pure.

Indexes never use them, so that any other program can still read and write the database file.
"""

import functools
import json
from typing import Any

from mixpeek_dagster.models.comparison import candidates, fold, instant_us, number, value_at
from mixpeek_dagster.models.filters import Condition, Filter, compiled


def register_functions(connection: Any) -> None:
    """Make the `mixpeek_*` functions known to one DBAPI connection of `sqlite3`; called for every new one."""
    for name, arguments, function in (
        ("mixpeek_fold", 1, _fold),
        ("mixpeek_instant", 1, _instant),
        ("mixpeek_search", 4, _search),
        ("mixpeek_matches", 2, _matches),
        ("mixpeek_candidates", 2, _candidates),
        ("mixpeek_group", 2, _group),
    ):
        connection.create_function(name, arguments, function, deterministic=True)


def condition_key(condition: Condition) -> str:
    """A condition as the argument of `mixpeek_matches`."""
    return json.dumps([condition.to_json(), condition.case_sensitive], ensure_ascii=False, separators=(",", ":"))


def _fold(text: object) -> str | None:
    return fold(text) if isinstance(text, str) else None


def _instant(text: object) -> int | None:
    return instant_us(text) if isinstance(text, str) else None


def _search(operator: str, wanted: str, case_sensitive: int, text: object) -> int:
    if not isinstance(text, str):
        return 0
    return int(all(pattern.search(text) for pattern in compiled(operator, wanted, case_sensitive=bool(case_sensitive))))


@functools.lru_cache(128)
def _condition(key: str) -> Condition:
    wire, case_sensitive = json.loads(key)
    (condition,) = Filter.parse({**wire, "case_sensitive": case_sensitive}).conditions()
    return condition


def _matches(key: str, payload: str) -> int:
    return int(_condition(key).matches(json.loads(payload)))


def _candidates(payload: str, field: str) -> str:
    return canonical_text([canonical_text(value) for value in candidates(json.loads(payload), field.split("."))])


def _group(payload: str, field: str) -> str | None:
    value = value_at(json.loads(payload), field.split("."))
    return None if value is None else canonical_text(value)


def canonical_text(value: Any) -> str:
    """`value` as JSON, the same text for equal values."""
    return json.dumps(canonical(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def canonical(value: Any) -> Any:
    """`value` with one spelling for equal numbers, at any depth: whole ones within 64 bits as int, all others as float."""
    if isinstance(value, float) and value.is_integer() and -(2.0**63) <= value < 2.0**63:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return number(value)
    if isinstance(value, dict):
        return {key: canonical(inner) for key, inner in value.items()}
    return [canonical(inner) for inner in value] if isinstance(value, list) else value
