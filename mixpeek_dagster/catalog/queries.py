"""From a filter to SQL with exactly the meaning of `Filter.matches`, on SQLite and on Postgres, and the indexes that make it
fast.

Names in `columns` are columns of the table, every other name is a path in the payload. Conditions on a payload field compare the
very expressions that `index_expressions` gives, so the database uses such an index by itself where it exists:

| declared type | indexes | serve |
|---|---|---|
| keyword, uuid | the folded text, the text | eq, in, gt … lte, starts_with: ignoring case by the first, exactly by the second |
| datetime, bool | the text | eq, in, gt … lte |
| integer, float | the number | eq, in, gt … lte |
| text, geo | none | – |

Negations (ne, nin, NOT, is_null) read every row. Texts outside ASCII are found in the folded index by their ASCII beginning.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, and_, case, column, false, func, literal, not_, or_, true
from sqlalchemy.sql.elements import Grouping

from mixpeek_dagster.catalog import postgres, sqlite
from mixpeek_dagster.catalog.functions import register_functions
from mixpeek_dagster.catalog.operands import KEY_LENGTH, Bound, ColumnField, Dialect, Field, Operand, Sql, Test, View
from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models import patterns
from mixpeek_dagster.models.comparison import fold, instant_us
from mixpeek_dagster.models.filters import EQUALITY, ORDER, PATTERNS, All, Condition, Filter, Neither, Node, Some, field_path

__all__ = ["INDEX_TYPES", "compile_filter", "field_of", "index_expressions", "register_functions"]

INDEX_TYPES: Final[Mapping[str, tuple[View, ...]]] = {
    "keyword": ("folded", "text"),
    "uuid": ("folded", "text"),
    "datetime": ("text",),
    "bool": ("text",),
    "integer": ("number",),
    "float": ("number",),
    "text": (),
    "geo": (),
}


def compile_filter(filter: Filter, *, columns: Mapping[str, Sql], payload: Sql, dialect: Dialect) -> ColumnElement[bool]:
    """A predicate that holds for exactly the rows whose record the filter matches; it is true, false or NULL, where NULL is no
    match.

    Args:
        columns: known field names → columns of texts, numbers or booleans. NULL is a missing field; texts hold no JSON.
        payload: the JSON column: text on SQLite (written with `ensure_ascii=False`), JSONB on Postgres.
        dialect: which of the two; on SQLite the connection needs `register_functions`.
    """
    fields: dict[str, Field] = {}

    def field(name: str) -> Field:
        if name not in fields:
            fields[name] = field_of(name, columns=columns, payload=payload, dialect=dialect)
        return fields[name]

    def ranges(conditions: Sequence[Condition]) -> list[ColumnElement[bool]]:
        """Two bounds of one field become one range."""
        found: dict[tuple[str, View], tuple[Bound, Bound]] = {}
        for condition in conditions:
            if (bounds := _bounds(condition)) is not None:
                view, first, end = bounds
                known = found.get((condition.field, view), (None, None))
                found[condition.field, view] = (known[0] if first is None else first, known[1] if end is None else end)
        return [near for (name, view), bounds in found.items() for near in field(name).near(*bounds, view=view)]

    def exact(condition: Condition) -> ColumnElement[bool]:
        test = _condition(condition, field(condition.field))
        # Where a range is said apart, it alone shall be looked up: a planner cannot know that it is the narrower one.
        return test if _bounds(condition) is None else opaque(test)

    def groups(nodes: Sequence[Node]) -> list[Node]:
        return [node for node in nodes if not isinstance(node, Condition)]

    def compiled(node: Node) -> ColumnElement[bool]:
        match node:
            case Condition():
                return and_(*ranges([node]), exact(node))
            case All(nodes):
                own = [inner for inner in nodes if isinstance(inner, Condition)]
                # What is cheap comes first: databases look at conditions from left to right.
                return and_(true(), *ranges(own), *map(exact, own), *map(compiled, groups(nodes)))
            case Some(nodes):
                return or_(false(), *map(compiled, nodes))
            case Neither(nodes):
                return _not(or_(false(), *map(compiled, nodes)))

    return compiled(filter.root)


def field_of(name: str, *, columns: Mapping[str, Sql], payload: Sql, dialect: Dialect) -> Field:
    """Where a field's values are: in its column, or at its path in the payload."""
    if name in columns:
        return ColumnField(columns[name], sqlite.FUNCTIONS if dialect == "sqlite" else postgres.FUNCTIONS)
    kind = sqlite.SqliteField if dialect == "sqlite" else postgres.PostgresField
    return kind(payload, field_path(name))


def index_expressions(field: str, type: str, *, payload: Column[Any], dialect: Dialect) -> list[Sql]:
    """What to build the indexes of a declared payload field on: one index for each expression, alone or after columns such as an
    id.

    Raises:
        Invalid: the type is none of `INDEX_TYPES`, or the field is no path.
    """
    if type not in INDEX_TYPES:
        raise Invalid(f"unknown type {type!r} of an index; known are {', '.join(INDEX_TYPES)}")
    bare = column(payload.name, payload.type)  # indexes name columns without their table
    operand = field_of(field, columns={}, payload=bare, dialect=dialect).operand()
    return [Grouping(operand.view(view)) for view in INDEX_TYPES[type]]


def opaque(predicate: ColumnElement[bool]) -> ColumnElement[bool]:
    """The same, true or false, as something that no index is looked up for.

    A CASE, because SQLite leaves out what need not be looked at only where it jumps: in `coalesce(a OR b, 0)` it works out both.
    """
    return case((predicate, true()), else_=false())


def _not(predicate: ColumnElement[bool]) -> ColumnElement[bool]:
    return case((predicate, false()), else_=true())


def _condition(condition: Condition, field: Field) -> ColumnElement[bool]:
    """One condition; negative operators are the negation of their positive counterpart, so that every field has to say only
    that.
    """
    match condition.operator:
        case "exists":
            found = field.is_reached(replace(condition, value=True))
            return found if condition.value else _not(found)
        case "is_null":
            found = field.is_given(replace(condition, value=False))
            return _not(found) if condition.value else found
        case "eq" | "ne":
            found = _equals(replace(condition, operator="in", value=(condition.value,)), field)
            return found if condition.operator == "eq" else _not(found)
        case "in" | "nin":
            found = _equals(replace(condition, operator="in"), field)
            return found if condition.operator == "in" else _not(found)
        case "contains":
            return field.contains(condition, lambda operand: _has(operand, condition), lambda element: _same(element, condition))
        case "geo_radius" | "geo_bounding_box" | "geo_polygon":
            return field.region(condition)
    tests: dict[str, Callable[[Operand, Condition], ColumnElement[bool]]] = {
        "text": _has,
        "starts_with": _starts,
        "ends_with": _ends,
        **dict.fromkeys(ORDER, _compares),
        **dict.fromkeys(PATTERNS, _finds),
    }
    test = tests[condition.operator]
    return field.any(condition, lambda operand: test(operand, condition), view=_view(condition, condition.value))


def _bounds(condition: Condition) -> tuple[View, Bound, Bound] | None:
    """(view, first, last): where that view of a candidate must lie, ends included, for the condition to hold at all."""
    value, operator = condition.value, condition.operator
    if operator not in ORDER and operator != "starts_with":
        return None
    view = _view(condition, value)
    is_up = operator not in ("lt", "lte")
    if not isinstance(value, str):
        return view, *((value, None) if is_up else (None, value))
    if operator in ORDER and (instant := instant_us(value)) is not None:
        day = _day(instant, -1 if is_up else 2) or None
        return view, *((day, None) if is_up else (None, day))
    start = (value if view == "text" else _ascii_start(fold(value)))[: KEY_LENGTH - 1]
    if not start:
        return None
    return view, start if is_up else None, (_after(start) or None) if operator == "starts_with" or not is_up else None


def _view(condition: Condition, value: object) -> View:
    """The view that a test of this value looks at, and with it the index."""
    if not isinstance(value, str):
        return "text" if isinstance(value, bool) else "number"
    is_exact = condition.case_sensitive or condition.operator in PATTERNS
    return "text" if is_exact or (condition.operator in EQUALITY | ORDER.keys() and instant_us(value) is not None) else "folded"


def _equals(condition: Condition, field: Field) -> ColumnElement[bool]:
    """Some candidate equals one of the values (`in`), sorted by how they are compared."""
    values = list(dict.fromkeys((type(value) is bool, value) for value in condition.value))
    texts = [value for _, value in values if isinstance(value, str)]
    instants = [instant for instant in map(instant_us, texts) if instant is not None]
    plain = [value for value in texts if instant_us(value) is None]
    if not condition.case_sensitive:
        plain = list(dict.fromkeys(map(fold, plain)))
    is_native = [condition.case_sensitive or value.isascii() for value in plain]
    short = [value for value, native in zip(plain, is_native) if native and len(value) < KEY_LENGTH]
    long = [value for value, native in zip(plain, is_native) if native and len(value) >= KEY_LENGTH]
    foreign = [value for value, native in zip(plain, is_native) if not native]
    numbers = [value for is_bool, value in values if not is_bool and isinstance(value, int | float)]
    view: View = "text" if condition.case_sensitive else "folded"
    own = field.operand()

    def one_of(wanted: list[str]) -> Test:
        return lambda operand: _texts(operand, operand.view(view, max(wanted, key=len)).in_(wanted))

    def number_in(operand: Operand) -> ColumnElement[bool]:
        return _numbers(operand, operand.number.in_([operand.parameter(value) for value in numbers]))

    found: list[ColumnElement[bool]] = []
    if short:
        found.append(field.equals(condition, one_of(short), view=view, values=[literal(value) for value in short]))
    if long:
        found.append(field.any(condition, one_of(long), view=view))
    for some in [foreign] if len(foreign) > 16 else [[value] for value in foreign]:
        found.append(field.any(condition, partial(_folds_into, wanted=some), view="folded"))
    if instants:
        found.append(field.any(condition, partial(_is_instant, wanted=instants), view="text"))
    if numbers and "number" in own.kinds:
        found.append(field.equals(condition, number_in, view="number", values=[own.parameter(value) for value in numbers]))
    for _, value in values:
        if isinstance(value, bool) and "bool" in own.kinds:
            test = partial(_is_truth, wanted=value)
            found.append(field.equals(condition, test, view="text", values=[own.true if value else own.false]))
        if value is None:
            found.append(_not(field.is_given(Condition(condition.field, "is_null", False))))
    return or_(false(), *found)


def _same(element: Operand, condition: Condition) -> ColumnElement[bool]:
    """The element equals the condition's value."""
    value = condition.value
    if isinstance(value, bool):
        return _is_truth(element, wanted=value)
    if not isinstance(value, str):
        return _numbers(element, element.number == element.parameter(value))
    if (instant := instant_us(value)) is not None:
        return _is_instant(element, wanted=[instant])
    if condition.case_sensitive:
        return _texts(element, element.text == value)
    return _folds_into(element, wanted=[fold(value)])


def _texts(operand: Operand, test: ColumnElement[bool]) -> ColumnElement[bool]:
    return and_(test, operand.is_text) if "text" in operand.kinds else false()


def _numbers(operand: Operand, test: ColumnElement[bool]) -> ColumnElement[bool]:
    return test if "number" in operand.kinds else false()


def _is_truth(operand: Operand, *, wanted: bool) -> ColumnElement[bool]:
    return and_(operand.text == (operand.true if wanted else operand.false), not_(operand.is_text))


def _folds_into(operand: Operand, *, wanted: list[str]) -> ColumnElement[bool]:
    if len(wanted) > 1:
        return _texts(operand, operand.functions.fold(operand, None).in_(wanted))
    near = _begins(operand, "folded", _ascii_start(wanted[0]))
    if wanted[0].isascii():
        return _texts(operand, operand.view("folded", wanted[0]) == wanted[0])
    return _texts(operand, and_(near, operand.functions.fold(operand, wanted[0]) == wanted[0]))


def _is_instant(operand: Operand, *, wanted: list[int]) -> ColumnElement[bool]:
    near = and_(_from_day(operand, min(wanted)), _to_day(operand, max(wanted)))
    return _texts(operand, and_(near, operand.functions.instant_us(operand.text).in_(wanted)))


def _from_day(operand: Operand, instant: int) -> ColumnElement[bool]:
    """Only texts that can be an instant not before this one: zones shift the date in the text by less than a day."""
    day = _day(instant, -1)
    return operand.view("text", day) >= day if day else true()


def _to_day(operand: Operand, instant: int) -> ColumnElement[bool]:
    day = _day(instant, 2)
    return operand.view("text", day) < day if day else true()


def _day(instant: int, days: int) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant, days=days)).date().isoformat()
    except OverflowError:
        return ""


def _compares(operand: Operand, condition: Condition) -> ColumnElement[bool]:
    value = condition.value
    order: Callable[[Sql, object], ColumnElement[bool]] = ORDER[condition.operator]  # type: ignore[assignment]  # SQL overloads it
    is_up = condition.operator in ("gt", "gte")
    if not isinstance(value, str):
        test = order(operand.number, operand.parameter(value))
        bounded = and_(test, operand.number < operand.numbers_below) if is_up and operand.numbers_below is not None else test
        return _numbers(operand, bounded)
    if "text" not in operand.kinds:
        return false()
    if (instant := instant_us(value)) is not None:
        near = _from_day(operand, instant) if is_up else _to_day(operand, instant)
        return _texts(
            operand, and_(near, order(operand.functions.instant_us(operand.text), instant), *_type_bounds(operand, "text", is_up))
        )
    if condition.case_sensitive:
        return _texts(operand, and_(order(operand.view("text", value), value), *_type_bounds(operand, "text", is_up)))
    wanted = fold(value)
    start = _ascii_start(wanted)
    if start == wanted:
        return _texts(operand, and_(order(operand.view("folded", wanted), wanted), *_type_bounds(operand, "folded", is_up)))
    view = operand.view("folded", start)
    near = true() if not start else view >= start if is_up else view < _after(start)
    return _texts(
        operand, and_(near, order(operand.functions.fold(operand, None), wanted), *_type_bounds(operand, "folded", is_up))
    )


def _type_bounds(operand: Operand, view: View, is_up: bool) -> list[ColumnElement[bool]]:
    """Keeps an index range on the texts, where one expression holds all types."""
    if operand.texts_within is None:
        return []
    first, end = operand.texts_within
    return [operand.view(view) < end] if is_up else [operand.view(view) >= first]


def _starts(operand: Operand, condition: Condition) -> ColumnElement[bool]:
    wanted = condition.folded(condition.value)
    if condition.case_sensitive or wanted.isascii():
        view: View = "text" if condition.case_sensitive else "folded"
        near, text = _begins(operand, view, wanted), operand.view(view, wanted)
    else:
        near, text = _begins(operand, "folded", _ascii_start(wanted)), operand.functions.fold(operand, wanted)
    return _texts(operand, and_(near, func.substr(text, 1, len(wanted)) == wanted))


def _ends(operand: Operand, condition: Condition) -> ColumnElement[bool]:
    wanted = condition.folded(condition.value)
    return _texts(operand, operand.functions.ends(_folded(operand, condition, wanted), wanted) if wanted else true())


def _has(operand: Operand, condition: Condition) -> ColumnElement[bool]:
    if not isinstance(condition.value, str):
        return false()
    wanted = condition.folded(condition.value)
    return _texts(operand, operand.functions.has(_folded(operand, condition, wanted), literal(wanted)))


def _finds(operand: Operand, condition: Condition) -> ColumnElement[bool]:
    """A pattern; before it, what the text must contain for a word or a phrase to be found in it costs next to nothing."""
    parts = patterns.parts(condition.operator, condition.value)
    near = [operand.functions.has(operand.folded, literal(part)) for part in parts if part and part.isascii()]
    return _texts(operand, and_(true(), *near, operand.functions.search(operand.text, condition)))


def _folded(operand: Operand, condition: Condition, wanted: str) -> Sql:
    """The text as the condition compares it."""
    if condition.case_sensitive and condition.operator != "text":
        return operand.text
    return operand.folded if wanted.isascii() else operand.functions.fold(operand, wanted)


def _begins(operand: Operand, view: View, start: str) -> ColumnElement[bool]:
    """The view begins with `start`, as a range that an index serves."""
    if not start:
        return true()
    key = operand.view(view, start)
    end = _after(start)
    return and_(key >= start, key < end) if end else key >= start


def _after(start: str) -> str:
    """The least text above every text that begins with `start`; "" when there is none."""
    for length in range(len(start), 0, -1):
        code = ord(start[length - 1]) + 1
        if code <= 0x10FFFF:
            return start[: length - 1] + chr(0xE000 if code == 0xD800 else code)
    return ""


def _ascii_start(text: str) -> str:
    return text if text.isascii() else text[: next(place for place, char in enumerate(text) if not char.isascii())]
