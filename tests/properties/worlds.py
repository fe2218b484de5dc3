"""Random records and filters: a few values on purpose in many places, so that filters have something to find."""

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from mixpeek_dagster.models.comparison import point_of

COLUMN_NAMES = ("name", "created_at", "size", "ratio", "public")

# fmt: off
TEXTS = (
    "", "a", "A", "ab", "Ab", "aB c", "b", "cars", "The CAR is red", "a-b", "red_car", "10", "5", "%", "_", "a%b", "[", "[1]",
    "{", "\\", "'", '"', "\x01", "\x02", "\x03t", "\x04", "\x7f", "\x80", "\n", "a\nb", "a ", " a", "true", "null", "é", "É",
    "café", "CAFÉ", "cafè", "Straße", "STRASSE", "ß", "ẞ", "İ", "i̇", "ı", "\u212a", "k", "ſ", "s", "Σ", "σ", "ς", "ΟΔΟΣ",
    "οδος", "Москва", "МОСКВА", "ǅ", "ǆ", "Ａ", "ａ", "東京", "東京都", "😀", "a😀", "\U0010ffff", "\ud7ff", "\ue000", "x" * 255,
    "x" * 256, "X" * 257, "x" * 300 + "y", "é" * 260,
)
DATES = (
    "2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00", "2026-01-01 00:00", "2025-12-31T23:30:00-00:30",
    "2024-02-29", "2023-02-29", "2026-01-01T01:00:00.5+01:00", "2026-01-01t00:00:00.500000z", "2026-01-01T00:00:00.4999999Z",
    "0001-01-01", "0000-01-01", "9999-12-31T23:59:59.999999-23:59", "2026-01-01T24:00:00Z", "2026-13-01", "2026-01-01\n",
    "2026-01-02T01:00+0530", "2026-01-01T05+01", "2025-12-31T20:00:00-12", "2026-01-01T00:00:60Z",
    "2026-01-01T10:20:30.123456789-0130", "1969-12-31T23:59:59.999999Z",
)
NUMBERS = (
    0, 1, -1, 2, 5, 10, 0.0, -0.0, 1.0, 0.1, 0.5, -2.5, 1e-9, 1e15, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 1e300,
    5e-324,
)
FIELDS = (
    "a", "b", "a.b", "a.b.c", "tags", "tags.b", "when", "place", "a.place", "deep.x.y", "ünï", "sp ace", "it's", "0",
    "tags.0", "%s", ":x",
)
# fmt: on

# fmt: off
FEW_TEXTS = (
    "a", "A", "ab", "Ab", "é", "É", "The CAR is red", "red cars", "ΟΔΟΣ", "οδος", "2026-01-01", "2026-01-01T01:00:00+01:00",
    "2026-02-01",
)
# fmt: on
FEW_FIELDS = ("a", "a", "a", "b", "a.b", "tags", "place", "name", "created_at")

few_texts = st.sampled_from(FEW_TEXTS)
texts = few_texts | few_texts | st.sampled_from(TEXTS + DATES) | st.text(st.sampled_from("aAbB éÉΣς_-.1xX"), max_size=6)
numbers = st.sampled_from((0, 1, 1.0, 5)) | st.sampled_from(NUMBERS) | st.integers(-3, 12) | st.floats(-10, 10)
scalars = texts | numbers | st.booleans() | st.none()
degrees = st.sampled_from((0, 0.0, 1, 10, 44.5, 45, -45, 89.9, 90, 91, 179.5, 180, -180, -179.5, "1", None)) | st.floats(-90, 90)
points = st.fixed_dictionaries({"lat": st.floats(-90, 90), "lon": st.floats(-180, 180)}) | st.fixed_dictionaries(
    {"lat": degrees, "lon": degrees}
)
leaves = scalars | points | st.lists(scalars | points, max_size=4)
names = st.sampled_from(sorted({step for field in FIELDS for step in field.split(".")}))
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6)
likely = st.fixed_dictionaries(
    {},
    optional={
        "a": leaves | st.fixed_dictionaries({"b": leaves}),
        "b": scalars,
        "tags": st.lists(scalars, max_size=4),
        "place": points,
    },
)
payloads = likely | likely | st.dictionaries(names, values, max_size=6)
records = st.fixed_dictionaries(
    {"payload": payloads},
    optional={
        "name": texts,
        "created_at": st.sampled_from(DATES) | texts,
        "size": st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 12),
        "ratio": st.floats(-10, 10) | st.integers(-3, 3).map(float),
        "public": st.booleans(),
    },
)

fields = st.sampled_from(FEW_FIELDS) | st.sampled_from(FEW_FIELDS) | st.sampled_from((*FIELDS, *COLUMN_NAMES))
parts = st.sampled_from(("a", "A", "e", "é", "É", "car", "CARS", "red", "the car", "is RED", "ος", "ο", "2026"))
wanted_texts = parts | parts | texts | st.text(st.sampled_from("aAbcCrRsé"), min_size=1, max_size=3)
good_points = st.fixed_dictionaries({"lat": st.floats(-90, 90) | st.sampled_from((0, 45, 90)), "lon": st.floats(-180, 180)})
# fmt: off
REGEXES = (
    *( "a", "^a", "a$", "A.b", "[a-c]+", "[^a]", r"\bcar", r"car\b", r"\Bb", r"\d+", r"\w\s", r"\W", "(a|b)*c", "(a+)+$",
    "^$", "x{255}", "É", ), *( "[À-ÿ]", "σ", "c(a|é)?f", ".", "^.{2,3}$", r"\.", r"\u00e9", "a|", "(?:ab){2}", "[a-zß]+$",
    r"[\]\-\\]", "k", "ſ", "😀", r"\S+\D", "[^\n]$", ),
)
# fmt: on
regexes = st.sampled_from(REGEXES) | st.text(st.sampled_from("abAé.*+?()|[]^$\\bdwB1{},"), max_size=8)


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    places = st.sampled_from(("place", "place", "a", "a.b", "tags"))

    def of(operators: Sequence[str], value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        where = places if operators[0].startswith("geo") else fields
        return st.fixed_dictionaries({"field": where, "operator": st.sampled_from(operators), "value": value})

    ring = st.fixed_dictionaries({"points": st.lists(good_points, min_size=3, max_size=5)})
    return st.one_of(
        of(["eq", "ne"], scalars),
        of(["gt", "gte", "lt", "lte"], texts | numbers),
        of(["in", "nin"], st.lists(scalars, max_size=5) | st.lists(texts, min_size=17, max_size=25)),
        of(["contains"], wanted_texts | numbers | st.booleans()),
        of(["starts_with", "ends_with", "text"], wanted_texts),
        of(["phrase", "words"], wanted_texts),
        of(["regex"], regexes),
        of(["exists", "is_null"], st.booleans()),
        of(["geo_radius"], st.fixed_dictionaries({"center": good_points, "radius": st.floats(0, 2e7)})),
        of(["geo_bounding_box"], st.fixed_dictionaries({"top_left": good_points, "bottom_right": good_points}).map(upright)),
        of(["geo_polygon"], st.fixed_dictionaries({"exterior": ring}, optional={"interiors": st.lists(ring, max_size=1)})),
    )


def upright(box: dict[str, Any]) -> dict[str, Any]:
    lats = sorted((box["top_left"]["lat"], box["bottom_right"]["lat"]))
    return {"top_left": {**box["top_left"], "lat": lats[1]}, "bottom_right": {**box["bottom_right"], "lat": lats[0]}}


def nodes(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    group = st.lists(inner, max_size=3)
    return st.fixed_dictionaries({}, optional={"AND": group, "OR": group, "NOT": group | inner})


def leaves_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every (dotted path, value) that a filter could be aimed at."""
    if isinstance(value, list):
        for inner in value:
            yield from leaves_of(inner, path)
        return
    if path:
        yield ".".join(path), value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves_of(inner, (*path, key))


@st.composite
def aimed(draw: st.DrawFn, stored: list[dict[str, Any]]) -> dict[str, Any]:
    """A condition made from something that is stored, so that it has a fair chance to hold."""
    targets = [leaf for row in stored for leaf in leaves_of(record_of(row))]
    if not targets:
        return draw(conditions())
    field, value = draw(st.sampled_from(targets))
    if isinstance(value, str):
        start, end = sorted(draw(st.lists(st.integers(0, len(value)), min_size=2, max_size=2)))
        part = draw(st.sampled_from((value, value[start:end], value[:end], value[start:], *value.split())))
        part = draw(st.sampled_from((part, part.swapcase(), part.upper(), part.title())))
        operators = (
            "eq",
            "ne",
            "in",
            "nin",
            "gt",
            "gte",
            "lt",
            "lte",
            "contains",
            "starts_with",
            "ends_with",
            "text",
            "phrase",
            "words",
            "regex",
        )
        operator = draw(st.sampled_from(operators))
        wanted: Any = re.escape(part).replace(r"\ ", " ") if operator == "regex" else part
    elif isinstance(value, dict) and point_of(value):
        operator = draw(st.sampled_from(("geo_radius", "geo_bounding_box", "geo_polygon")))
        size = draw(st.sampled_from((0.001, 1, 30)))
        north, south = min(90, value["lat"] + size), max(-90, value["lat"] - size / 3)
        west, east = max(-180, value["lon"] - size / 7), min(180, value["lon"] + size)
        a, b, c, d = ({"lat": lat, "lon": lon} for lat, lon in ((north, west), (north, east), (south, east), (south, west)))
        wanted = {"center": a, "radius": size * 2e5, "top_left": a, "bottom_right": c, "exterior": {"points": [a, b, c, d]}}
    else:
        operator = draw(st.sampled_from(("eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains", "exists", "is_null")))
        wanted = True if operator in ("exists", "is_null") else value
    if operator in ("in", "nin"):
        wanted = [wanted, *draw(st.lists(scalars, max_size=3))]
    return {"field": field, "operator": operator, "value": wanted}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[Any]]:
    """Some records, and some filters to ask them for."""
    stored = draw(st.lists(records, min_size=1, max_size=8))
    trees = st.recursive(aimed(stored) | aimed(stored) | conditions(), nodes, max_leaves=4)
    filters = st.tuples(trees, st.booleans()).map(lambda pair: {**pair[0], "case_sensitive": pair[1]})
    return stored, draw(st.lists(filters, min_size=1, max_size=6))


def record_of(row: dict[str, Any]) -> dict[str, Any]:
    """What the reference sees: the payload, with columns in place of payload fields of the same name."""
    return {
        **{key: value for key, value in row["payload"].items() if key not in COLUMN_NAMES},
        **{k: v for k, v in row.items() if k in COLUMN_NAMES},
    }


# A fixed world: what random records and filters would meet too rarely.

PLACES = [{"lat": lat, "lon": lon} for lat in (0, 1e-9, 44.4, 44.6, 90) for lon in (-180, -0.4, 0, 0.4, 180)]


def corpus() -> list[Any]:
    others = [
        True,
        False,
        None,
        [],
        {},
        {"x": "a"},
        [None],
        [["a"]],
        [{"f": "a"}],
        ["a", 1, True],
        *PLACES,
        {"lat": "1", "lon": 1},
    ]
    return [*TEXTS, *DATES, *NUMBERS, *others]


def placed(value: Any) -> dict[str, Any]:
    return {"f": value, "l": ["other", value], "o": {"f": value}, "a": [{"g": 1}, {"f": value}], "m": [{"f": [value]}, {"f": 7}]}


def questions(number: int) -> list[dict[str, Any]]:
    """Filters of one condition: every operator with up to `number` values of every kind, the same ones in each run."""
    dice = random.Random(2026)
    texts = [*TEXTS, *DATES]
    scalars = [*texts, *NUMBERS, True, False, None]
    corner, across = {"lat": 44.5, "lon": -0.5}, {"lat": -1, "lon": 0.5}
    ring = {"points": [{"lat": 44.5, "lon": -1}, {"lat": 44.5, "lon": 1}, {"lat": 44.7, "lon": 0}]}
    values: dict[str, list[Any]] = {
        "eq": scalars,
        "ne": scalars,
        **{operator: [*texts, *NUMBERS] for operator in ("gt", "gte", "lt", "lte")},
        **{operator: [dice.sample(scalars, size) for size in (0, 1, 2, 3, 5, 30) * 10] for operator in ("in", "nin")},
        "contains": [*texts, *NUMBERS, True, False],
        **{operator: [*texts, *(text[:1] for text in texts)] for operator in ("starts_with", "ends_with", "text")},
        **{
            operator: ["car", "the car", "a", "red", "é", "straße", "東京", "x", "10", "οδος", "is cars"]
            for operator in ("phrase", "words")
        },
        "regex": list(REGEXES),
        "exists": [True, False] * 10,
        "is_null": [True, False] * 10,
        "geo_radius": [{"center": corner, "radius": radius} for radius in (0, 5_000, 12_000, 80_000, 2e7)],
        "geo_bounding_box": [{"top_left": a, "bottom_right": b} for a, b in ((corner, across), ({**corner, "lon": 179}, across))],
        "geo_polygon": [{"exterior": ring}, {"exterior": ring, "interiors": [ring]}],
    }
    asked = []
    for operator, some in values.items():
        for value in dice.sample(some, len(some) if operator == "regex" else min(len(some), number)):
            for field in dice.sample(("f", "l", "o.f", "a.f", "m.f"), 2 if len(some) > 20 else 5):
                asked.append({"field": field, "operator": operator, "value": value, "case_sensitive": dice.random() < 0.4})
    return asked
