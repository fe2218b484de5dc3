"""What a filter compares, as SQL: candidates (`Operand`) and how the candidates of a field are reached (`Field`).

The expressions of a payload field's own value are also what its indexes are built on, so they hold no bound parameter. They mark
the few documents where the path meets an array or an object, so that one index finds a value and also the arrays to look into.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import ge, le
from typing import Any, Literal, Protocol

from sqlalchemy import Boolean, ColumnElement, Numeric, String, cast, collate, false, func, literal, literal_column, null
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect as Dialect_

from mixpeek_dagster.models.comparison import fold_table
from mixpeek_dagster.models.filters import Condition

Sql = ColumnElement[Any]
Test = Callable[["Operand"], ColumnElement[bool]]
Bound = str | int | float | None
View = Literal["text", "folded", "number"]
Dialect = Literal["sqlite", "postgresql"]

KEY_LENGTH = 256
"""Postgres indexes hold at most so many characters of a text: it refuses rows whose index entry is too long."""

ONE: Sql = literal_column("1")
_YES: Sql = literal_column("true")
_NO: Sql = literal_column("false")
_POSTGRES: Dialect_ = postgresql.dialect()  # type: ignore[no-untyped-call]
_NAMED: Dialect_ = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # percent signs stay as they are
_SQLITE: Dialect_ = sqlite.dialect()


@dataclass(frozen=True)
class Operand:
    """One candidate. Where it has another type than a view says, comparing that view is never true in company of `is_text`.

    Attributes:
        text: the text; other scalars and NULL where it is none.
        folded: `text` with ASCII letters lowered by the database.
        number: the number.
        is_text: it is a text.
        true, false: what `text` equals when it is that boolean.
        functions: how the dialect says the rest.
        kinds: the types it can have at all.
        key_length: how much of a text the indexes of this value hold; None means all, or that there is no index.
        texts_within: what texts lie between, the upper end excluded, where other types are ordered in the same expression.
        numbers_below: what numbers are less than, likewise.
        is_decimal: numbers are compared as decimals.
    """

    text: Sql
    folded: Sql
    number: Sql
    is_text: ColumnElement[bool]
    true: Sql
    false: Sql
    functions: "Functions"
    kinds: frozenset[str] = frozenset({"text", "number", "bool"})
    key_length: int | None = None
    texts_within: tuple[Sql, Sql] | None = None
    numbers_below: Sql | None = None
    is_decimal: bool = False

    def parameter(self, value: float) -> Sql:
        """A number as this operand compares it."""
        return decimal(value) if self.is_decimal else literal(value)

    def view(self, name: View, value: object = "") -> Sql:
        """A view as it is indexed; as it is when `value` is too long to be told apart by that."""
        sql: Sql = {"text": self.text, "folded": self.folded, "number": self.number}[name]
        if self.key_length is None or name == "number" or (isinstance(value, str) and len(value) >= self.key_length):
            return sql
        return func.left(sql, literal_column(str(self.key_length)))


class Functions(Protocol):
    """What the two databases say in different words. All take texts; what they give for anything else does not matter."""

    dialect: Dialect

    def fold(self, operand: Operand, wanted: str | None) -> Sql:
        """The folded text; with `wanted`, one that need only be right where it agrees with that folded text."""
        ...

    def instant_us(self, text: Sql) -> Sql: ...

    def has(self, text: Sql, part: Sql) -> ColumnElement[bool]: ...

    def ends(self, text: Sql, end: str) -> ColumnElement[bool]: ...

    def search(self, text: Sql, condition: Condition) -> ColumnElement[bool]: ...


class Field(Protocol):
    """The candidates of one dotted path. `condition` is the test in the words of the reference, never negated."""

    def operand(self) -> Operand:
        """The field's own value."""
        ...

    def any(self, condition: Condition, test: Test, *, view: View) -> ColumnElement[bool]:
        """Some candidate passes the test, which looks at `view`."""
        ...

    def near(self, first: Bound, last: Bound, *, view: View) -> list[ColumnElement[bool]]:
        """Cheap predicates that hold wherever some candidate's view may lie between `first` and `last`: what to look at at
        all.
        """
        ...

    def equals(self, condition: Condition, test: Test, *, view: View, values: Sequence[Sql]) -> ColumnElement[bool]:
        """As `any`, where only candidates whose view is one of `values` pass: one search of an index finds them and the
        arrays.
        """
        ...

    def contains(self, condition: Condition, within: Test, element: Test) -> ColumnElement[bool]:
        """A reached text passes `within`, or an element of a reached array passes `element`."""
        ...

    def region(self, condition: Condition) -> ColumnElement[bool]:
        """Some candidate is a point in the condition's region."""
        ...

    def is_reached(self, condition: Condition) -> ColumnElement[bool]:
        """`exists: true`."""
        ...

    def is_given(self, condition: Condition) -> ColumnElement[bool]:
        """`is_null: false`: something other than null is reached."""
        ...


@dataclass(frozen=True)
class ColumnField:
    """A column of the table: one scalar of its type, NULL is missing."""

    column: Sql
    functions: Functions

    def operand(self) -> Operand:
        kind, absent, sql = self.column.type, null(), self.column
        if isinstance(kind, Boolean):
            return Operand(sql, absent, absent, false(), _YES, _NO, self.functions, kinds=frozenset({"bool"}))
        if not isinstance(kind, String):
            return Operand(absent, absent, sql, false(), absent, absent, self.functions, kinds=frozenset({"number"}))
        collation = getattr(kind.dialect_impl(_POSTGRES), "collation", None)
        text = collate(sql, "C") if self.functions.dialect == "postgresql" and collation != "C" else sql
        return Operand(
            text, func.lower(text), absent, sql.is_not(None), absent, absent, self.functions, kinds=frozenset({"text"})
        )

    def any(self, condition: Condition, test: Test, *, view: View) -> ColumnElement[bool]:
        return test(self.operand())

    def near(self, first: Bound, last: Bound, *, view: View) -> list[ColumnElement[bool]]:
        key, kind = self.operand().view(view), "number" if view == "number" else "text"
        bounds = (ge, first), (le, last)
        return [order(key, literal(end)) for order, end in bounds if end is not None and kind in self.operand().kinds]

    def equals(self, condition: Condition, test: Test, *, view: View, values: Sequence[Sql]) -> ColumnElement[bool]:
        return test(self.operand())

    def contains(self, condition: Condition, within: Test, element: Test) -> ColumnElement[bool]:
        return within(self.operand())

    def region(self, condition: Condition) -> ColumnElement[bool]:
        return false()

    def is_reached(self, condition: Condition) -> ColumnElement[bool]:
        return self.column.is_not(None)

    def is_given(self, condition: Condition) -> ColumnElement[bool]:
        return self.column.is_not(None)


def written(sql: Sql, dialect: Dialect) -> Sql:
    """The expression, which holds no parameter, as the text that a statement holds of it: statements of it are made quickly."""
    text = sql.compile(dialect=_SQLITE if dialect == "sqlite" else _NAMED, compile_kwargs={"literal_binds": True})
    made = literal_column(str(text), sql.type)
    made.key = "written"  # or parameters compared with it would be named after the whole text
    return made


def quoted(text: str) -> ColumnElement[str]:
    """A text constant written into the statement, as expressions of indexes need it."""
    return literal_column("'" + text.replace("'", "''") + "'", String())


def variants(wanted: str) -> tuple[str, str]:
    """The characters outside ASCII that fold into one of `wanted`, and what each folds into."""
    found = [(chr(code), chr(folded)) for code, folded in fold_table().items() if code >= 0x80 and chr(folded) in wanted]
    return "".join(upper for upper, _ in found), "".join(lower for _, lower in found)


def decimal(value: str | float) -> Sql:
    """A number as Postgres reads it in JSON."""
    return cast(literal(str(value)), Numeric)
