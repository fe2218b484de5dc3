"""Filters: what the wire form may look like, and what every operator means for one record."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models import patterns
from mixpeek_dagster.models.comparison import fold, fold_table, instant_us, search_matches, sort_key, value_at
from mixpeek_dagster.models.filters import OPERATORS, Filter

SEED = {
    "AND": [{"field": "name", "operator": "eq", "value": "John"}, {"field": "age", "operator": "gte", "value": 30}],
    "OR": [{"field": "status", "operator": "eq", "value": "active"}, {"field": "role", "operator": "eq", "value": "admin"}],
    "NOT": [{"field": "department", "operator": "eq", "value": "HR"}, {"field": "location", "operator": "eq", "value": "remote"}],
    "case_sensitive": True,
}


def holds(record: dict[str, Any], field: str, operator: str, value: Any, **root: Any) -> bool:
    return Filter.parse({"field": field, "operator": operator, "value": value, **root}).matches(record)


def test_the_filter_of_the_seed_page() -> None:
    filter = Filter.parse(SEED)
    john = {"name": "John", "age": 30, "role": "admin"}
    assert filter.matches(john)
    assert not filter.matches({**john, "name": "john"})
    assert not filter.matches({**john, "age": 29})
    assert not filter.matches({**john, "role": "user"})
    assert not filter.matches({**john, "department": "HR"})
    assert not filter.matches({**john, "location": "remote"})
    assert Filter.parse(filter.to_json()) == filter


@pytest.mark.parametrize("nothing", [None, {}, {"AND": []}, {"AND": None, "OR": [], "NOT": {}}, {"case_sensitive": True}])
def test_an_empty_filter_matches_everything(nothing: Any) -> None:
    filter = Filter.parse(nothing)
    assert filter.is_empty
    assert filter.matches({})


def test_not_takes_one_object_and_means_none_of_them() -> None:
    assert not Filter.parse({"NOT": {"a": 1}}).matches({"a": 1})
    neither = Filter.parse({"NOT": [{"a": 1}, {"b": 2}]})
    assert [neither.matches(record) for record in ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}, {})] == [False, False, False, True]


def test_keys_of_a_node_are_equality_tests() -> None:
    filter = Filter.parse({"metadata.title": "x", "n": 1, "OR": [{"a": 1}, {"field": "b", "value": 2}]})
    assert filter.matches({"metadata": {"title": "X"}, "n": 1, "b": 2})
    assert not filter.matches({"metadata": {"title": "X"}, "n": 1})


def test_only_the_root_says_what_case_means() -> None:
    stray = {"AND": [{"field": "a", "operator": "eq", "value": "x", "case_sensitive": False}], "case_sensitive": True}
    assert not Filter.parse(stray).matches({"a": "X"})
    assert Filter.parse({"AND": [{"field": "a", "value": "x", "case_sensitive": True}]}).matches({"a": "X"})
    assert not holds({"a": "X"}, "a", "eq", "x", case_sensitive=True)


def test_identifiers_compare_exactly() -> None:
    assert not holds({"source_object_id": "obj_A"}, "source_object_id", "eq", "obj_a")
    assert holds({"source_object_id": "obj_A"}, "source_object_id", "in", ["obj_A"])


@pytest.mark.parametrize(
    ("wire", "where"),
    [
        ([], "filters: expected an object"),
        ("x", "filters: expected an object"),
        ({"AND": {"a": 1}}, "filters.AND: expected a list"),
        ({"OR": "a"}, "filters.OR: expected a list"),
        ({"AND": [1]}, "filters.AND[0]: expected an object"),
        ({"AND": [{"a": 1}, {"operator": "eq", "value": 1}]}, "filters.AND[1].field: a condition needs a field"),
        ({"AND": [{"field": "a", "operator": "equals", "value": 1}]}, "filters.AND[0].operator: unknown operator 'equals'"),
        ({"field": "a", "operator": "eq"}, "filters.value: eq needs a value"),
        ({"field": "", "value": 1}, "filters.field: expected the name"),
        ({"field": 7, "value": 1}, "filters.field: expected the name"),
        ({"field": "a..b", "value": 1}, "filters.field: 'a..b' is not a dotted path"),
        ({"field": 'a"b', "value": 1}, "filters.field: a field name"),
        ({"a": [1]}, "filters.a: eq does not take a list; use `in`"),
        ({"a": {"b": 1}}, "filters.a: eq does not take an object"),
        ({"field": "a", "value": {"type": "dynamic", "field": "inputs.x"}}, "filters.value: dynamic values"),
        ({"field": "a", "operator": "in", "value": "x"}, "filters.value: in takes a list"),
        ({"field": "a", "operator": "in", "value": [1, {}]}, "filters.value[1]: in does not take an object"),
        ({"field": "a", "operator": "in", "value": [0] * 10_001}, "filters.value: more than 10,000"),
        ({"field": "a", "operator": "gt", "value": True}, "filters.value: gt does not take true"),
        ({"field": "a", "operator": "gt", "value": None}, "filters.value: gt does not take null"),
        ({"field": "a", "operator": "contains", "value": None}, "filters.value: contains does not take null"),
        ({"field": "a", "operator": "starts_with", "value": 1}, "filters.value: starts_with takes a text, got 1"),
        ({"field": "a", "operator": "exists", "value": "yes"}, 'filters.value: exists takes true or false, got "yes"'),
        ({"field": "a", "operator": "words", "value": " - "}, "filters.value: not a words we can search for: it holds no word"),
        ({"field": "a", "value": float("nan")}, "filters.value: the number"),
        ({"field": "a", "value": 10**400}, "filters.value: the number"),
        ({"field": "a", "value": "x\0"}, "filters.value: a text cannot hold NUL"),
        ({"field": "a", "value": "\ud800"}, "filters.value: a text cannot hold NUL"),
        ({"field": "a", "value": "x" * 10_001}, "filters.value: longer than"),
        ({"AND": [{"a": 1}], "case_sensitive": "yes"}, "filters.case_sensitive: expected true or false"),
        ({"field": "p", "operator": "geo_radius", "value": 1}, "filters.value: expected an object"),
        (
            {"field": "p", "operator": "geo_radius", "value": {"lat": 91, "lon": 0, "radius": 1}},
            "filters.value: expected {lat, lon}",
        ),
        ({"field": "p", "operator": "geo_radius", "value": {"lat": 9, "lon": 0, "radius": -1}}, "filters.value.radius: expected"),
        (
            {"field": "p", "operator": "geo_polygon", "value": {"exterior": {"points": []}}},
            "filters.value.exterior.points: expected",
        ),
        (
            {"field": "p", "operator": "geo_bounding_box", "value": {"top_left": {"lat": 1, "lon": 1}}},
            "filters.value.bottom_right: expected {lat, lon}",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 80 else "",
)
def test_a_bad_shape_is_refused_with_its_place(wire: Any, where: str) -> None:
    with pytest.raises(Invalid) as caught:
        Filter.parse(wire)
    assert caught.value.message.startswith(where)
    assert caught.value.details["location"] == where.split(":")[0]


def test_depth_and_number_of_conditions_are_limited() -> None:
    deep: dict[str, Any] = {"a": 1}
    for _ in range(15):
        deep = {"AND": [deep]}
    assert Filter.parse(deep).matches({"a": 1})
    with pytest.raises(Invalid, match="nested deeper than 16"):
        Filter.parse({"AND": [deep]})
    assert len(Filter.parse({"OR": [{"a": n} for n in range(500)]}).conditions()) == 500
    with pytest.raises(Invalid, match=r"filters\.OR\[500\].*more than 500"):
        Filter.parse({"OR": [{"a": n} for n in range(501)]})


POINT = {"lat": 52.52, "lon": 13.405}
BERLIN = {
    "exterior": {"points": [{"lat": 52, "lon": 13}, {"lat": 53, "lon": 13}, {"lat": 53, "lon": 14}, {"lat": 52, "lon": 14}]}
}


@pytest.mark.parametrize(
    ("stored", "operator", "value", "expected"),
    [
        ("Red", "eq", "rED", True),
        (1, "eq", 1.0, True),
        (True, "eq", 1, False),
        (1, "eq", True, False),
        ("1", "eq", 1, False),
        (["a", "B"], "eq", "b", True),
        ([["b"]], "eq", "b", False),
        (None, "eq", None, True),
        ([None], "eq", None, False),
        ("x", "ne", None, True),
        (["a", "b"], "ne", "b", False),
        (2**53 + 1, "eq", 2**53, False),
        ("2026-01-01T01:00:00+01:00", "eq", "2026-01-01", True),
        ("2026-01-01", "gte", "2025-12-31T23:59:59Z", True),
        ("2026-01-01T00:30:00+01:00", "lt", "2026-01-01", True),
        ("zebra", "gt", "2026-01-01", False),
        ("2026-02-30", "gt", "2026-01-01", False),
        ("zebra", "gt", "Apple", True),
        (5, "gt", "4", False),
        (5, "lte", 5, True),
        (False, "lt", 5, False),
        ([1, 9], "gt", 8, True),
        ("b", "in", ["A", "B"], True),
        (None, "in", [None], True),
        ("b", "in", [], False),
        ("b", "nin", [], True),
        ("b", "nin", ["B"], False),
        ("Hello World", "contains", "O w", True),
        (["Hello", 3], "contains", "hello", True),
        (["Hello", 3], "contains", "ell", False),
        (["Hello", 3], "contains", 3, True),
        (13, "contains", 3, False),
        ("Hello", "starts_with", "hE", True),
        (["x", "Hello"], "ends_with", "LO", True),
        ("Straße", "ends_with", "ßE", True),
        ("ΟΔΟΣ", "eq", "οδος", True),
        ("a1b", "regex", r"\d", True),
        ("ABC", "regex", "^b", False),
        ("ABC", "regex", "^a[b-d]+$", True),
        ("x" * 10_000 + "y", "regex", "y", False),
        ("Hello", "text", "LL", True),
        ("the red, CAR", "phrase", "Red car", True),
        ("the redcar", "phrase", "red car", False),
        ("he was running home", "words", "home run", True),
        ("Stories of makers", "words", "story", True),
        ("he is running", "words", "home run", False),
        (POINT, "geo_radius", {"center": {"lat": 52.52, "lon": 13.4}, "radius": 400}, True),
        (POINT, "geo_radius", {"lat": 52.52, "lon": 13.4, "radius": 300}, False),
        (
            [{"lat": 0, "lon": 0}, POINT],
            "geo_bounding_box",
            {"top_left": {"lat": 53, "lon": 13}, "bottom_right": {"lat": 52, "lon": 14}},
            True,
        ),
        (
            {"lat": 0, "lon": 179},
            "geo_bounding_box",
            {"top_left": {"lat": 1, "lon": 170}, "bottom_right": {"lat": -1, "lon": -170}},
            True,
        ),
        (POINT, "geo_polygon", BERLIN, True),
        (POINT, "geo_polygon", {**BERLIN, "interiors": [BERLIN["exterior"]]}, False),
        ({"lat": "52", "lon": 13.4}, "geo_polygon", BERLIN, False),
    ],
)
def test_what_operators_mean(stored: Any, operator: str, value: Any, expected: bool) -> None:
    assert holds({"f": stored}, "f", operator, value) is expected


def test_every_operator_is_known_and_the_negative_ones_hold_for_missing_fields() -> None:
    assert len(OPERATORS) == 20
    assert holds({}, "f", "ne", "x")
    assert holds({}, "f", "nin", ["x"])
    assert holds({}, "f", "is_null", True)
    assert holds({}, "f", "exists", False)
    assert holds({"f": None}, "f", "exists", True)
    assert holds({"f": None}, "f", "is_null", None)
    assert not holds({"f": []}, "f", "is_null", True)


def test_paths_go_through_arrays_of_objects() -> None:
    record = {"faces": [{"name": "Ann"}, {"age": 3}, "x", [{"name": "Nested"}]], "a.b": 1, "0": {"x": 1}}
    assert holds(record, "faces.name", "eq", "ann")
    assert not holds(record, "faces.name", "eq", "nested")
    assert not holds(record, "faces.0.name", "exists", True)
    assert not holds(record, "a.b", "exists", True)
    assert holds(record, "0.x", "eq", 1)
    assert value_at(record, ["faces", "name"]) == ["Ann"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (r"(a)\1", "no backreferences"),
        ("(?=a)", "lookaround"),
        ("(?i)a", "flags"),
        ("(?P<n>a)", "named groups"),
        ("a**", "repetition of a repetition"),
        ("a*+", "possessive"),
        ("*a", "nothing to repeat"),
        ("a{2,1}", "bad repetition"),
        ("a{300}", "bad repetition"),
        ("((((a{30}){30}){30}){30})", "too large"),
        ("(a", "not closed"),
        ("a)", "unmatched"),
        ("[a", "ends too early"),
        ("[z-a]", "bad range"),
        ("[[:alpha:]]", "not supported"),
        (r"\p{L}", "not supported"),
        ("a" * 513, "longer than 512"),
        ("(" * 30 + ")" * 30, "nested deeper"),
        (r"[^\s\S]", "matches nothing"),
    ],
)
def test_a_regex_outside_the_dialect_is_refused_with_the_reason(source: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        Filter.parse({"field": "a", "operator": "regex", "value": source})


@pytest.mark.parametrize("source", ["(a+)+b", "(a|aa)*b", "(.*)*x", ".*.*.*.*=", "(a?){100}a{100}", "(x+x+)+y", r"(\w+\s?)*!"])
@pytest.mark.timeout(20)
def test_a_regex_takes_time_in_proportion_to_the_text(source: str) -> None:
    pattern = patterns.regex(source, case_sensitive=False)
    for text in ("a" * 10_000, "x" * 10_000, "ax " * 3_333):
        pattern.search(text)


def test_the_two_ways_to_search_agree() -> None:
    for source in ("a(b|c)+d?$", r"\bab", "[^a]b{2,3}", "^(a|)$", r"x\B"):
        pattern = patterns.regex(source, case_sensitive=True)
        for text in ("", "a", "ab", "abc d", "xab", "cbbb", "abcbd", "x", "xx\n"):
            assert pattern._automaton.search(text) is (pattern._re(text) is not None), (source, text)


def test_folding_is_one_to_one_idempotent_and_keeps_ascii_apart() -> None:
    for code, folded in fold_table().items():
        assert fold(chr(folded)) == chr(folded)
        assert (code < 0x80) == (folded < 0x80)
    assert fold("ÀÉ ΣΊΣΥΦΟΣ Москва") == fold("àé σίσυφος МОСКВА")
    assert fold("\u212a") != "k"  # the Kelvin sign
    # Stored indexes and other Python versions rely on exactly this table.
    assert (len(fold_table()), sum(code * folded for code, folded in fold_table().items())) == FOLD_TABLE


FOLD_TABLE = (690, 125039660797)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-01-02T03:04:05.678901Z", datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)),
        ("2026-01-02 03:04", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02t03:04:05,6z", None),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("1900-02-29", None),
        ("2026-01-02T03:04:05-0330", datetime(2026, 1, 2, 6, 34, 5, tzinfo=UTC)),
        ("20260102", None),
        ("2026-W01", None),
        ("٢٠٢٦-01-01", None),
    ],
)
def test_instants(text: str, same: datetime | None) -> None:
    expected = None if same is None else int((same - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000 + 0.5)
    assert instant_us(text) == expected


def test_the_order_of_values() -> None:
    ordered = [-1, 0.5, 1, "", "A", "a", "é", False, True, [], None]
    assert sorted([*ordered[5:], *ordered[:5]], key=sort_key) == ordered
    assert sort_key({}) == sort_key([1])


def test_search_looks_into_every_text_but_no_key() -> None:
    record = {"title": "Ä tale", "deep": [{"x": ["two Cities"]}], "n": 7}
    assert search_matches(record, "ä TALE")
    assert search_matches(record, "cities")
    assert search_matches(record, "")
    assert not search_matches(record, "title")
    assert not search_matches(record, "7")
