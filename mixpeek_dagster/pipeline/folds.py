"""Aggregates over values that come one by one: no more is kept than the answer needs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from mixpeek_dagster.catalog.functions import canonical
from mixpeek_dagster.models.comparison import is_number, sort_key

MOST: Final = 10_000
"""How many values a list of them holds at most."""


class Fold(Protocol):
    """One aggregate. Null and missing are None."""

    def add(self, value: Any) -> None: ...

    def result(self) -> Any: ...


class Count:
    def __init__(self) -> None:
        self._count = 0

    def add(self, value: Any) -> None:
        self._count += value is not None

    def result(self) -> int:
        return self._count


class Sum:
    """Of the numbers; None when there is none."""

    def __init__(self, *, is_average: bool = False) -> None:
        self._sum: float = 0
        self._count = 0
        self._is_average = is_average

    def add(self, value: Any) -> None:
        if is_number(value):
            self._sum += value
            self._count += 1

    def result(self) -> float | None:
        if not self._count:
            return None
        return self._sum / self._count if self._is_average else self._sum


class Extreme:
    """The least or the largest in the order of `sort_key`; of equal ones the first."""

    def __init__(self, *, is_largest: bool) -> None:
        self._best: Any = None
        self._is_largest = is_largest

    def add(self, value: Any) -> None:
        if value is None:
            return
        if self._best is None or (
            sort_key(value) > sort_key(self._best) if self._is_largest else sort_key(value) < sort_key(self._best)
        ):
            self._best = value

    def result(self) -> Any:
        return self._best


class First:
    def __init__(self) -> None:
        self._values: list[Any] = []

    def add(self, value: Any) -> None:
        if not self._values:
            self._values.append(value)

    def result(self) -> Any:
        return self._values[0] if self._values else None


class Last:
    def __init__(self) -> None:
        self._value: Any = None

    def add(self, value: Any) -> None:
        self._value = value

    def result(self) -> Any:
        return self._value


class Push:
    """The first values, in order."""

    def __init__(self) -> None:
        self._values: list[Any] = []

    def add(self, value: Any) -> None:
        if value is not None and len(self._values) < MOST:
            self._values.append(value)

    def result(self) -> list[Any]:
        return self._values


class Distinct:
    """The values that differ: how many, or the first of them. Of equal ones the last is kept."""

    def __init__(self, *, is_counted: bool) -> None:
        self._values: dict[str, Any] = {}
        self._is_counted = is_counted

    def add(self, value: Any) -> None:
        if value is not None:
            self._values[repr(canonical(value))] = None if self._is_counted else value

    def result(self) -> Any:
        return len(self._values) if self._is_counted else list(self._values.values())[:MOST]


FOLDS: Final[Mapping[str, Callable[[], Fold]]] = {
    "count": Count,
    "count_distinct": partial(Distinct, is_counted=True),
    "sum": Sum,
    "avg": partial(Sum, is_average=True),
    "min": partial(Extreme, is_largest=False),
    "max": partial(Extreme, is_largest=True),
    "first": First,
    "last": Last,
    "push": Push,
    "add_to_set": partial(Distinct, is_counted=False),
}
