"""Payload fields on SQLite: paths in a JSON text.

A value is one expression that keeps its type: texts and numbers are themselves; false, true and what is no scalar are the blobs
00, 01 and 02, which sort after all texts; null and missing are NULL. Where an array lies in the middle of a path, the reference
itself is asked.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import (
    ColumnElement,
    TableValuedAlias,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.types import Boolean, NullType, String

from mixpeek_dagster.catalog.functions import condition_key
from mixpeek_dagster.catalog.operands import ONE, Bound, Dialect, Operand, Sql, Test, View, quoted, written
from mixpeek_dagster.models.comparison import fold
from mixpeek_dagster.models.filters import Condition

FALSE, TRUE, OTHER = (literal_column(f"x'0{kind}'", NullType()) for kind in range(3))
_ARRAY: Sql = literal_column("'array'")
_LEAST: Sql = literal_column("-9e999", NullType())
_TEXTS: tuple[Sql, Sql] = (literal_column("''", NullType()), literal_column("x''", NullType()))


class SqliteFunctions:
    """See `Functions`."""

    dialect: Dialect = "sqlite"

    def fold(self, operand: Operand, wanted: str | None) -> Sql:
        return func.mixpeek_fold(operand.text)

    def instant_us(self, text: Sql) -> Sql:
        return func.mixpeek_instant(text)

    def has(self, text: Sql, part: Sql) -> ColumnElement[bool]:
        return func.instr(text, part) > literal_column("0")

    def ends(self, text: Sql, end: str) -> ColumnElement[bool]:
        return func.substr(text, -len(end)) == literal(end)

    def search(self, text: Sql, condition: Condition) -> ColumnElement[bool]:
        return func.mixpeek_search(condition.operator, condition.value, int(condition.case_sensitive), text) == ONE


FUNCTIONS = SqliteFunctions()


@dataclass(frozen=True)
class SqliteField:
    """A dotted path in the payload."""

    payload: Sql
    path: tuple[str, ...]

    def operand(self) -> Operand:
        return _own(self)

    def any(self, condition: Condition, test: Test, *, view: View) -> ColumnElement[bool]:
        operand = self.operand()
        return or_(test(operand), and_(operand.view(view) == OTHER, self._inside(condition, test)))

    def near(self, first: Bound, last: Bound, *, view: View) -> list[ColumnElement[bool]]:
        # A range with two ends is what the planner takes for a small one. The mark of arrays sorts above everything.
        key = self.operand().view(view)
        if last is None:
            return [] if first is None else [key >= literal(first), key <= OTHER]
        lowest = _TEXTS[0] if isinstance(last, str) else _LEAST
        return [or_(and_(key <= literal(last), key >= (lowest if first is None else literal(first))), key == OTHER)]

    def equals(self, condition: Condition, test: Test, *, view: View, values: Sequence[Sql]) -> ColumnElement[bool]:
        key = self.operand().view(view)
        return and_(key.in_([*values, OTHER]), or_(key != OTHER, self._inside(condition, test)))

    def contains(self, condition: Condition, within: Test, element: Test) -> ColumnElement[bool]:
        operand = self.operand()
        return or_(within(operand), and_(operand.text == OTHER, self._inside(condition, element)))

    def region(self, condition: Condition) -> ColumnElement[bool]:
        return and_(self.operand().text == OTHER, self._reference(condition))

    def is_reached(self, condition: Condition) -> ColumnElement[bool]:
        return or_(self._type().is_not(None), *self._in_middle(condition))

    def is_given(self, condition: Condition) -> ColumnElement[bool]:
        return or_(self._type() != literal_column("'null'"), *self._in_middle(condition))

    def at(self, depth: int | None = None) -> Sql:
        """The JSON path of so many steps, by default all."""
        return quoted("$" + "".join(f'."{step}"' for step in self.path[:depth]))

    def _type(self) -> Sql:
        return _kind(self)

    def middles(self) -> ColumnElement[bool]:
        """An array lies on the way."""
        return or_(*(func.json_type(self.payload, self.at(depth)) == _ARRAY for depth in range(1, len(self.path))))

    def _in_middle(self, condition: Condition) -> list[ColumnElement[bool]]:
        return [and_(self.middles(), self._reference(condition))] if len(self.path) > 1 else []

    def _reference(self, condition: Condition) -> ColumnElement[bool]:
        # Asked only where the first step holds an array or an object, so that alone is handed over, not the whole document.
        first = func.json_object(quoted(self.path[0]), func.json_extract(self.payload, self.at(1)))
        return type_coerce(func.mixpeek_matches(condition_key(condition), first) == ONE, Boolean)

    def _inside(self, condition: Condition, test: Test) -> ColumnElement[bool]:
        each, element = _elements(self)
        found = select(ONE).select_from(each).where(test(element)).exists()
        inside = and_(self._type() == _ARRAY, found)
        return or_(inside, and_(self._type().is_(None), self._reference(condition))) if len(self.path) > 1 else inside


# What depends on the field alone is made once: queries name the same few fields again and again.
@lru_cache(1024)
def _kind(field: SqliteField) -> Sql:
    return written(func.json_type(field.payload, field.at()), "sqlite")


@lru_cache(1024)
def _own(field: SqliteField) -> Operand:
    """The value at the path; what an array on the way hides is marked."""
    value = func.json_extract(field.payload, field.at())
    return _operand(_kind(field), value, case((field.middles(), OTHER)) if len(field.path) > 1 else null())


@lru_cache(1024)
def _elements(field: SqliteField) -> tuple[TableValuedAlias, Operand]:
    """The elements of an array at the path."""
    each = func.json_each(field.payload, field.at()).table_valued("value", "type", name="each")
    return each, _operand(each.c.type, each.c.value, null())


def _operand(kind: Sql, value: Sql, otherwise: Sql) -> Operand:
    def keyed(text: Sql) -> Sql:
        then = {"text": text, "integer": value, "real": value, "true": TRUE, "false": FALSE, "array": OTHER, "object": OTHER}
        whens: list[tuple[Sql, Sql]] = [(literal_column(f"'{name}'"), sql) for name, sql in then.items()]
        return written(type_coerce(case(*whens, value=kind, else_=otherwise), NullType()), "sqlite")

    key = keyed(value)
    is_text = kind == literal_column("'text'")
    return Operand(
        key, keyed(func.lower(value)), key, is_text, TRUE, FALSE, FUNCTIONS, texts_within=_TEXTS, numbers_below=_TEXTS[0]
    )


def searched(term: str, payload: Sql) -> ColumnElement[bool]:
    """Some text of the payload contains the term. The whole JSON is looked at first: most documents are out after that."""
    wanted = fold(term)
    lowered = func.lower if wanted.isascii() else func.mixpeek_fold
    each = func.json_tree(payload).table_valued("atom", "type")
    in_text = and_(each.c.type == literal_column("'text'"), FUNCTIONS.has(lowered(each.c.atom), literal(wanted)))
    near = FUNCTIONS.has(lowered(type_coerce(payload, String)), literal(json.dumps(wanted, ensure_ascii=False)[1:-1]))
    return and_(near, select(ONE).select_from(each).where(in_text).exists())


def group_key(payload: Sql, field: str, at: Sql) -> Sql:
    """`value_at` as JSON text, the same text for equal values; NULL for null and missing. Only scalars are said natively."""
    value = func.json_extract(payload, at)
    then: dict[str, Sql] = {
        "text": func.json_quote(value),
        "integer": cast(value, String),
        "true": literal_column("'true'"),
        "false": literal_column("'false'"),
        "null": null(),
    }
    whens: list[tuple[Sql, Sql]] = [(literal_column(f"'{name}'"), sql) for name, sql in then.items()]
    return case(*whens, value=func.json_type(payload, at), else_=func.mixpeek_group(payload, quoted(field)))
