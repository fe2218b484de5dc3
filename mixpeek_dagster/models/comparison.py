"""What stored JSON values mean when they are compared: folding, instants, numbers, paths, points, order.

Every rule here is one that Python, SQLite and Postgres can follow alike; `catalog.dialects` says the same in SQL and
`tests/properties/test_filter_meaning.py` holds the three together. Records carry no NUL, no lone surrogate, no NaN and no
infinity.
"""

import functools
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

Json = Any
"""A JSON value: str, int, float, bool, None, list or mapping. `datetime` is taken for its ISO form."""

_FOLDED_BLOCKS = ((0x80, 0x2190), (0xFF21, 0xFF3B))
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DAY_US = 86_400_000_000
EARTH_RADIUS_M: Final = 6_371_008.8
TINY: Final = 1e-100
"""Postgres fails on a product too small for a double instead of taking it for 0; no product of two larger numbers is."""

INSTANT_PATTERN: Final = (
    "^(?!0000)(?:[0-9]{4}-(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|[0-9]{4}-(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|[0-9]{4}-02-(?:0[1-9]|1[0-9]|2[0-8])"
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
    "(?:[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,9})?)?"
    "(?:[Zz]|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)?)?$"
)
"""An ISO 8601 date or datetime in the extended form, in a syntax that Python's and Postgres' regular expressions share."""

_INSTANT = re.compile(INSTANT_PATTERN[:-1] + r"\Z")
_TIME = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:[.](\d+))?)?(?:[Zz]|([+-])(\d\d):?(\d\d)?)?\Z")


@functools.cache
def fold_table() -> Mapping[int, int]:
    """Code point → folded code point, for `str.translate`: simple case folding, one character for one.

    Covers ASCII, the letters of Unicode 3.2 up to U+218F (Latin, Greek, Cyrillic, Armenian …) and full-width Latin, so it is the
    same on every Python. No character outside ASCII folds into ASCII (the Kelvin sign stays itself): a folded ASCII text
    therefore equals what `lower()` of both databases makes of the original, and their native functions and indexes can be used
    for it.
    """
    table = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
    for first, end in _FOLDED_BLOCKS:
        for code in range(first, end):
            letter = chr(code)
            if unicodedata.ucd_3_2_0.category(letter)[0] != "L":
                continue
            folded = letter.casefold()
            if len(folded) != 1:
                folded = letter.lower()
            if len(folded) == 1 and folded != letter and ord(folded) >= 0x80 and folded.casefold() == folded:
                table[code] = ord(folded)
    return table


def fold(text: str) -> str:
    """`text` without differences of case; as long as `text`, and `fold(fold(x)) == fold(x)`."""
    return text.lower() if text.isascii() else text.translate(fold_table())


def instant_us(text: str) -> int | None:
    """Microseconds since 1970 UTC of an ISO date or datetime, None for any other text.

    A date is its midnight, a time without a zone is UTC, digits after the sixth of a fraction are dropped.
    """
    if not text[:1].isdigit() or not _INSTANT.match(text):
        return None
    us = (date(int(text[:4]), int(text[5:7]), int(text[8:10])).toordinal() - _EPOCH_DAY) * _DAY_US
    time = _TIME.match(text, 11)
    if time is None:
        return us
    hours, minutes, seconds, fraction, sign, zone_hours, zone_minutes = time.groups()
    us += (int(hours) * 3600 + int(minutes) * 60 + int(seconds or 0)) * 1_000_000 + int((fraction or "0")[:6].ljust(6, "0"))
    offset = (int(zone_hours or 0) * 3600 + int(zone_minutes or 0) * 60) * 1_000_000
    return us + offset if sign == "-" else us - offset


def is_number(value: Json) -> bool:
    """True for int and float; a bool is not a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: float) -> int | float:
    """The number that is compared: integers of 64 bits exactly, larger ones as the nearest double (infinity beyond it)."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value


def reached(record: Mapping[str, Json], path: Sequence[str]) -> list[Json]:
    """Every value at `path`; a step into an array goes into each of its objects (one level). Empty when the field is missing."""
    found: list[Json] = [record]
    for key in path:
        inside: list[Json] = []
        for value in found:
            for item in value if isinstance(value, list | tuple) else (value,):
                if isinstance(item, Mapping) and key in item:
                    inside.append(item[key])
        found = inside
    return [_iso(value) for value in found]


def candidates(record: Mapping[str, Json], path: Sequence[str]) -> Iterator[Json]:
    """What an operator is tried on: the values at `path`, and of arrays among them their elements instead."""
    for value in reached(record, path):
        if isinstance(value, list | tuple):
            yield from map(_iso, value)
        else:
            yield value


def value_at(record: Mapping[str, Json], path: Sequence[str]) -> Json:
    """The one value a document is sorted and grouped by: None when missing, the list of all where the path goes through an
    array.
    """
    value: Json = record
    for key in path:
        if isinstance(value, list | tuple):
            return reached(record, path)
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return _iso(value)


def sort_key(value: Json) -> tuple[Any, ...]:
    """The ascending order of values: numbers < texts < false < true < arrays and objects (all equal) < null and missing.

    Texts compare by code point, case matters. Descending order reverses everything except that null and missing stay last.
    """
    value = _iso(value)
    if value is None:
        return (4,)
    if isinstance(value, bool):
        return (2, value)
    if is_number(value):
        return (0, number(value))
    return (1, value) if isinstance(value, str) else (3,)


def texts(value: Json) -> Iterator[str]:
    """Every text inside `value`, at any depth; keys are not texts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def search_matches(record: Mapping[str, Json], term: str) -> bool:
    """The meaning of `search`: some text of the record contains `term`, ignoring case. An empty term matches every record."""
    wanted = fold(term)
    return not wanted or any(wanted in fold(text) for text in texts(record))


def point_of(value: Json) -> tuple[float, float] | None:
    """(latitude, longitude) in degrees of {lat, lon}; None when it is no point or out of range. Less than `TINY` degrees is 0."""
    if not isinstance(value, Mapping):
        return None
    lat: Json = value.get("lat")
    lon: Json = value.get("lon")
    if not is_number(lat) or not is_number(lon) or not (abs(lat) <= 90 and abs(lon) <= 180):
        return None
    return _degrees(lat), _degrees(lon)


def _degrees(value: float) -> float:
    return 0.0 if abs(value) < TINY else float(value)


def distance_m(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Great-circle distance of two (lat, lon) points in metres, by the haversine formula on the mean earth radius."""
    half_lat, half_lon = math.radians(b[0] - a[0]) / 2, math.radians(b[1] - a[1]) / 2
    h = math.sin(half_lat) ** 2 + math.cos(math.radians(a[0])) * math.cos(math.radians(b[0])) * math.sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, h)))


def _iso(value: Json) -> Json:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return value
