"""Filters: the wire form parsed into a frozen tree, and what it means for one record.

`Filter.matches` is the reference meaning; `catalog.queries` compiles the same tree to SQL, and a property test holds them
together.

A filter is null or {} (everything), a condition {field, operator = eq, value}, or a node {AND, OR, NOT, case_sensitive, …}: all
of AND, at least one of OR, none of NOT, and every other key is an equality test. Absent, null and empty groups say nothing. Texts
compare ignoring case (`comparison.fold`) unless the root says `case_sensitive: true`; the stray `case_sensitive` that clients put
on inner nodes is ignored. The fields in `EXACT_FIELDS` hold identifiers and always compare exactly.

A `field` is a dotted path; a step into an array goes into each of its objects. *Reached* are the values at the path; the
*candidates* of an operator are the reached values, with arrays replaced by their elements. An operator holds when it holds for
any candidate; a candidate of another type than the operator compares does not match. What is reached is also what `comparison`
says about numbers, instants and points.

| operator | value | holds when |
|---|---|---|
| eq, ne | text, number, bool, null | a candidate equals the value; ne is its negation, so it holds for missing fields |
| gt gte lt lte | text, number | a candidate is on that side; texts by code point after folding |
| in, nin | list of what eq takes | eq holds for one of them; nin is the negation |
| contains | text, number, bool | a reached text contains the text, or a reached array has an element equal to the value |
| starts_with, ends_with | text | a candidate text does |
| regex | text | a candidate text has a match somewhere (dialect: `patterns`) in its first 10,000 characters |
| exists | bool = true | something is reached, null included; false negates |
| is_null | bool = true | nothing is reached, or only nulls; false negates |
| text | text | a candidate text contains it, ignoring case always |
| phrase | text | a candidate text has its words in sequence, ignoring case and what separates them |
| words | text | one candidate text has every word or one of its English forms as a whole word, ignoring case |
| geo_radius | {center: point (or lat, lon), radius: metres} | a candidate point is at most that far |
| geo_bounding_box | {top_left, bottom_right} | a candidate point is inside or on the edge; left > right crosses ±180 |
| geo_polygon | {exterior: {points}, interiors: [{points}]} | a point is inside the exterior and in no interior, on a flat map |

`eq null` is `is_null: true`. A text value that is an ISO date or datetime compares as an instant, and only with texts that are
ISO too, in eq, ne, in, nin, gt, gte, lt and lte.
"""

import json
import math
import operator as compare
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models import patterns
from mixpeek_dagster.models.automata import Pattern
from mixpeek_dagster.models.comparison import Json, candidates, fold, instant_us, is_number, number, reached
from mixpeek_dagster.models.geometry import Region, region

MAX_DEPTH: Final = 16
MAX_CONDITIONS: Final = 500
MAX_LIST: Final = 10_000
MAX_TEXT: Final = 10_000

EXACT_FIELDS: Final = frozenset(
    {
        *(
            "document_id",
            "namespace_id",
            "collection_id",
            "bucket_id",
            "object_id",
            "batch_id",
            "task_id",
            "sync_id",
            "connection_id",
        ),
        *(
            "root_object_id",
            "root_bucket_id",
            "source_object_id",
            "source_bucket_id",
            "source_document_id",
            "source_collection_id",
        ),
        *("run_id", "partition_key", "content_hash"),
    }
)
EQUALITY: Final = frozenset({"eq", "ne", "in", "nin"})
ORDER: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": compare.gt,
    "gte": compare.ge,
    "lt": compare.lt,
    "lte": compare.le,
}
CONTAINMENT: Final = frozenset({"contains", "starts_with", "ends_with", "text"})
PATTERNS: Final = frozenset({"regex", "phrase", "words"})
PRESENCE: Final = frozenset({"exists", "is_null"})
GEO: Final = frozenset({"geo_radius", "geo_bounding_box", "geo_polygon"})
OPERATORS: Final = EQUALITY | ORDER.keys() | CONTAINMENT | PATTERNS | PRESENCE | GEO


@dataclass(frozen=True)
class Condition:
    """One test of one field. `value` is normalised: numbers within 64 bits or floats, `in` lists as tuples, geo values as
    `Region`.
    """

    field: str
    operator: str
    value: Any
    case_sensitive: bool = False

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.field.split("."))

    @cached_property
    def searches(self) -> tuple[Pattern, ...]:
        """What `regex`, `phrase` and `words` search for; all have to be found in the same text."""
        return compiled(self.operator, self.value, case_sensitive=self.case_sensitive)

    def folded(self, text: str) -> str:
        return text if self.case_sensitive and self.operator != "text" else fold(text)

    def matches(self, record: Mapping[str, Json]) -> bool:
        """The table in this module's docstring."""
        wanted = self.value
        match self.operator:
            case "exists":
                return bool(reached(record, self.path)) is wanted
            case "is_null":
                return all(value is None for value in reached(record, self.path)) is wanted
            case "eq" | "in":
                return self._equals_any(record)
            case "ne" | "nin":
                return not self._equals_any(record)
            case "contains":
                return any(map(self._contains, reached(record, self.path)))
            case _:
                return any(map(self._holds, candidates(record, self.path)))

    def _equals_any(self, record: Mapping[str, Json]) -> bool:
        options = self.value if self.operator in ("in", "nin") else (self.value,)
        if None in options and all(value is None for value in reached(record, self.path)):
            return True
        return any(self._equals(value, option) for value in candidates(record, self.path) for option in options)

    def _equals(self, value: Json, wanted: Json) -> bool:
        if isinstance(wanted, str):
            if not isinstance(value, str):
                return False
            instant = instant_us(wanted)
            return self.folded(value) == self.folded(wanted) if instant is None else instant_us(value) == instant
        if isinstance(wanted, bool):
            return value is wanted
        return wanted is not None and is_number(value) and number(value) == wanted

    def _contains(self, value: Json) -> bool:
        if isinstance(value, str):
            return isinstance(self.value, str) and self.folded(self.value) in self.folded(value)
        return isinstance(value, list | tuple) and any(self._equals(element, self.value) for element in value)

    def _holds(self, value: Json) -> bool:
        wanted = self.value
        if isinstance(wanted, Region):
            return wanted.has(value)
        if not isinstance(wanted, str):
            return is_number(value) and ORDER[self.operator](number(value), wanted)
        if not isinstance(value, str):
            return False
        if self.operator in ORDER:
            instant = instant_us(wanted)
            if instant is None:
                return ORDER[self.operator](self.folded(value), self.folded(wanted))
            own = instant_us(value)
            return own is not None and ORDER[self.operator](own, instant)
        match self.operator:
            case "starts_with":
                return self.folded(value).startswith(self.folded(wanted))
            case "ends_with":
                return self.folded(value).endswith(self.folded(wanted))
            case "text":
                return self.folded(wanted) in self.folded(value)
        return all(pattern.search(value) for pattern in self.searches)

    def to_json(self) -> dict[str, Json]:
        value = (
            self.value.wire
            if isinstance(self.value, Region)
            else list(self.value)
            if isinstance(self.value, tuple)
            else self.value
        )
        return {"field": self.field, "operator": self.operator, "value": value}


@dataclass(frozen=True)
class All:
    """Every node holds."""

    nodes: tuple["Node", ...]


@dataclass(frozen=True)
class Some:
    """At least one node holds."""

    nodes: tuple["Node", ...]


@dataclass(frozen=True)
class Neither:
    """No node holds."""

    nodes: tuple["Node", ...]


Node = Condition | All | Some | Neither


def _matches(node: Node, record: Mapping[str, Json]) -> bool:
    match node:
        case Condition():
            return node.matches(record)
        case All(nodes):
            return all(_matches(inner, record) for inner in nodes)
        case Some(nodes):
            return any(_matches(inner, record) for inner in nodes)
        case Neither(nodes):
            return not any(_matches(inner, record) for inner in nodes)


@dataclass(frozen=True)
class Filter:
    """A parsed filter. `Filter()` matches everything."""

    root: Node = All(())
    case_sensitive: bool = False

    @classmethod
    def parse(cls, wire: Json, *, at: str = "filters") -> "Filter":
        """Read the wire form; `at` names it in messages.

        Raises:
            Invalid: the shape is wrong; the message starts with the JSON path of what is wrong, e.g. `filters.AND[2].operator`.
        """
        if wire is None:
            return cls()
        if not isinstance(wire, Mapping):
            raise _invalid(at, f"expected an object, got {_kind(wire)}")
        case_sensitive = wire.get("case_sensitive")
        if not isinstance(case_sensitive, bool | None):
            raise _invalid(f"{at}.case_sensitive", f"expected true or false, got {_kind(case_sensitive)}")
        parser = _Parser(case_sensitive=bool(case_sensitive))
        return cls(parser.node(wire, at, depth=1), bool(case_sensitive))

    @property
    def is_empty(self) -> bool:
        """True when it says nothing and so matches everything."""
        return self.root == All(())

    def matches(self, record: Mapping[str, Json]) -> bool:
        """Whether a record (a JSON object) passes: the reference that SQL has to agree with."""
        return _matches(self.root, record)

    def conditions(self) -> list[Condition]:
        """Every condition in the tree, e.g. to see which fields are asked for."""
        todo, found = [self.root], list[Condition]()
        while todo:
            node = todo.pop()
            if isinstance(node, Condition):
                found.append(node)
            else:
                todo += reversed(node.nodes)
        return found

    def to_json(self) -> dict[str, Json]:
        """A wire form that parses to an equal filter; equal filters give equal JSON."""
        return {**_wire(self.root), "case_sensitive": self.case_sensitive}


def _wire(node: Node) -> dict[str, Json]:
    if isinstance(node, Condition):
        return node.to_json()
    name = {All: "AND", Some: "OR", Neither: "NOT"}[type(node)]
    return {name: [_wire(inner) for inner in node.nodes]}


def compiled(operator: str, text: str, *, case_sensitive: bool) -> tuple[Pattern, ...]:
    """The patterns of `regex`, `phrase` or `words`, cached. Raises `ValueError` when the text is none."""
    if operator == "regex":
        return (patterns.regex(text, case_sensitive=case_sensitive),)
    return patterns.phrase(text) if operator == "phrase" else patterns.words(text)


class _Parser:
    def __init__(self, *, case_sensitive: bool) -> None:
        self.case_sensitive = case_sensitive
        self.conditions = 0

    def node(self, wire: Json, at: str, *, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise _invalid(at, f"nested deeper than {MAX_DEPTH}")
        if not isinstance(wire, Mapping):
            raise _invalid(at, f"expected an object, got {_kind(wire)}")
        if "field" in wire:
            return self.condition(wire, at)
        if "operator" in wire or "value" in wire:
            raise _invalid(f"{at}.field", "a condition needs a field")
        groups: list[Node] = []
        for name, kind in (("AND", All), ("OR", Some), ("NOT", Neither)):
            inner = wire.get(name)
            if isinstance(inner, Mapping) and name == "NOT":
                inner = [inner] if inner else []
            if not isinstance(inner, Sequence | None) or isinstance(inner, str):
                raise _invalid(f"{at}.{name}", f"expected a list of conditions, got {_kind(inner)}")
            nodes = tuple(self.node(item, f"{at}.{name}[{place}]", depth=depth + 1) for place, item in enumerate(inner or ()))
            if nodes:
                groups.append(kind(nodes))
        for name, value in wire.items():
            if name not in ("AND", "OR", "NOT", "case_sensitive"):
                groups.append(self.condition({"field": name, "value": value}, f"{at}.{name}", value_at=f"{at}.{name}"))
        return groups[0] if len(groups) == 1 else All(tuple(groups))

    def condition(self, wire: Mapping[str, Json], at: str, *, value_at: str | None = None) -> Condition:
        self.conditions += 1
        if self.conditions > MAX_CONDITIONS:
            raise _invalid(at, f"more than {MAX_CONDITIONS} conditions")
        field, operator = wire["field"], wire.get("operator") or "eq"
        field_path(field, at if value_at else f"{at}.field")
        if not isinstance(operator, str) or operator not in OPERATORS:
            raise _invalid(f"{at}.operator", f"unknown operator {operator!r}; known are {', '.join(sorted(OPERATORS))}")
        value_at = value_at or f"{at}.value"
        if "value" not in wire and operator not in PRESENCE:
            raise _invalid(value_at, f"{operator} needs a value")
        value = wire.get("value")
        if isinstance(value, Mapping) and value.get("type") == "dynamic":
            raise _invalid(value_at, "dynamic values need the inputs of a retriever; give the value itself")
        case_sensitive = self.case_sensitive or field in EXACT_FIELDS
        return Condition(field, operator, _value(operator, value, value_at, case_sensitive=case_sensitive), case_sensitive)


def field_path(field: Json, at: str = "field") -> tuple[str, ...]:
    """The steps of a dotted field name. Raises `Invalid` for what no JSON path of both databases can name."""
    if not isinstance(field, str) or not field:
        raise _invalid(at, f"expected the name of a field, got {_kind(field)}")
    if len(field) > 512 or any(ord(char) < 32 or char in '"\\' or 0xD800 <= ord(char) < 0xE000 for char in field):
        raise _invalid(at, "a field name has at most 512 characters, without quotation marks, backslashes and control characters")
    steps = tuple(field.split("."))
    if "" in steps or len(steps) > 32:
        raise _invalid(at, f"{field!r} is not a dotted path of 1 to 32 names")
    return steps


def _value(operator: str, value: Json, at: str, *, case_sensitive: bool) -> Any:
    if operator in PRESENCE:
        if not isinstance(value, bool | None):
            raise _invalid(at, f"{operator} takes true or false, got {_kind(value)}")
        return value is not False
    if operator in ("in", "nin"):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise _invalid(at, f"{operator} takes a list, got {_kind(value)}")
        if len(value) > MAX_LIST:
            raise _invalid(at, f"more than {MAX_LIST:,} values")
        return tuple(_scalar(operator, item, f"{at}[{place}]") for place, item in enumerate(value))
    if operator in GEO:
        return region(operator, value, at)
    if operator in CONTAINMENT - {"contains"} | PATTERNS and not isinstance(value, str):
        raise _invalid(at, f"{operator} takes a text, got {_kind(value)}")
    if (operator in ORDER and isinstance(value, bool)) or (operator not in EQUALITY and value is None):
        raise _invalid(at, f"{operator} does not take {_kind(value)}")
    scalar = _scalar(operator, value, at)
    if operator in PATTERNS:
        try:
            compiled(operator, scalar, case_sensitive=case_sensitive)
        except ValueError as error:
            raise _invalid(at, f"not a {operator} we can search for: {error}") from error
    return scalar


def _scalar(operator: str, value: Json, at: str) -> Json:
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise _invalid(at, f"longer than {MAX_TEXT:,} characters")
        if any(char == "\0" or "\ud800" <= char < "\ue000" for char in value):
            raise _invalid(at, "a text cannot hold NUL or half a surrogate pair")
        return value
    if value is None or isinstance(value, bool):
        return value
    if not is_number(value):
        remedy = "; use `in` to test for one of several" if isinstance(value, Sequence) else ""
        raise _invalid(at, f"{operator} does not take {_kind(value)}{remedy}")
    if not math.isfinite(exact := number(value)):
        raise _invalid(at, "the number is too large, or none")
    return exact


def _kind(value: Json) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    return json.dumps(value, default=repr)[:60]


def _invalid(at: str, problem: str) -> Invalid:
    return Invalid(f"{at}: {problem}", details={"location": at})
