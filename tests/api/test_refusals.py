"""What is wrong with a request, tried on every route that the OpenAPI description lists: 4xx, nothing written, nothing told.

Routes are taken from the description, so a new one is tried without being named here.
"""

import base64
import json
import re
from typing import Any

import pytest

from tests.api.refusals import Routes, application, built, checked, routes, silent, warehouse, world
from tests.api.seeded import World, candidates
from tests.api.test_errors import check_shape

__all__ = ["application", "built", "routes", "silent", "warehouse", "world"]


def test_every_path_parameter_has_a_record_to_name(routes: Routes) -> None:
    """Else the tests here, and schemathesis, would only ever see 404 of that route: add it to `tests.api.seeded`."""
    named = {name for _, path, _ in routes.all for name in re.findall(r"\{(\w+)\}", path)}
    assert not [name for name in sorted(named) if not candidates(routes.world.own, name)]


def test_every_route_that_reads_finds_what_is_there(routes: Routes) -> None:
    """The same requests are 404 with ids of another namespace: that is worth something only if they are 200 with their own."""
    for method, path, _ in routes.guarded:
        if method == "GET" and not path.endswith(("/folders", "/files")):  # that asks the provider, which is not there
            answer = routes.send("GET", routes.path(path, routes.world.own))
            assert answer.status_code == 200, f"{path}: {answer.text[:300]}"


BODIES: dict[str, Any] = {
    "objects/batch": {"objects": [{"sku": "x"}]},
    "batches": {"object_ids": ["x"]},
    "{batch_id}/objects": {"object_ids": ["x"]},
    "syncs": {"connection_id": "conn", "source_path": "/"},
    "clone": {"collection_name": "a copy", "retriever_name": "a copy"},
    "uploads": {"filename": "a.jpg", "content_type": "image/jpeg"},
    "uploads/batch": {"uploads": [{"filename": "a.jpg", "content_type": "image/jpeg"}]},
    "confirm/batch": {"confirmations": [{"upload_id": "x"}]},
    "distinct": {"field": "sku"},
    "aggregate": {"aggregations": [{"function": "count", "alias": "many"}]},
    "documents/batch": {"updates": [{"document_id": "x", "update_data": {"a": 1}}]},
    "documents/bulk": {"update_data": {"a": 1}},
    "execute/batch": {"queries": [{"inputs": {"query": "x"}}]},
    "bulk-mark-failed": {"error_types": ["schema_violation"]},
}
"""Bodies that fit, by the end of the path, for routes that take no empty one."""


def fitting(path: str) -> Any:
    return next((body for end, body in sorted(BODIES.items(), key=lambda one: -len(one[0])) if path.endswith(end)), {})


def naming_a_record(routes: Routes) -> list[tuple[str, str, Any]]:
    """Routes of a namespace whose path names something in it."""
    return [one for one in routes.in_namespace if "{" in one[1]]


def test_ids_and_names_of_another_namespace_name_nothing(routes: Routes, silent: None) -> None:
    own, foreign = routes.world.own, routes.world.foreign
    for method, path, operation in naming_a_record(routes):
        more = {"json": fitting(path)} if "requestBody" in operation else {}
        names = re.findall(r"\{(\w+)\}", path)
        for other in names:
            theirs = candidates(foreign, other)
            if theirs == candidates(own, other):
                continue  # the position of a blob
            ids = {**own, other: list(theirs)}
            answer = routes.send(method, routes.path(path, ids), **more)
            checked(answer, (method, path, f"foreign {other}"), {404})


def test_ids_in_bodies_reach_no_other_namespace(routes: Routes, silent: None) -> None:
    own, foreign = routes.world.own, routes.world.foreign
    bucket, collection = own["bucket_identifier"][0], own["collection_identifier"][0]
    stub = {"feature_extractor_name": "passthrough_extractor", "version": "v1"}

    def named(kind: str, **source: Any) -> dict[str, Any]:
        return {"collection_name": "theirs", "source": {"type": kind, **source}, "feature_extractor": stub}

    for path, body in (
        (f"/v1/buckets/{bucket}/batches", {"object_ids": foreign["object_identifier"]}),
        (f"/v1/buckets/{bucket}/batches", {"object_ids": own["object_identifier"], "collection_ids": [foreign["collection_identifier"][0]]}),
        (f"/v1/buckets/{bucket}/batches/{own['batch_id'][0]}/objects", {"object_ids": foreign["object_identifier"]}),
        (f"/v1/buckets/{bucket}/objects", {"blobs": [{"property": "hero_image", "type": "image", "upload_id": foreign["upload_id"][1]}]}),
        (f"/v1/collections/{collection}/trigger", {"object_ids": foreign["object_identifier"]}),
        (f"/v1/collections/{collection}/trigger", {"include_buckets": [foreign["bucket_identifier"][0]]}),
        (f"/v1/collections/{collection}/trigger", {"include_collections": [foreign["collection_identifier"][0]]}),
        (f"/v1/collections/{collection}/clone", named("bucket", bucket_ids=[foreign["bucket_identifier"][0]])),
        ("/v1/collections", named("bucket", bucket_ids=[foreign["bucket_identifier"][0]])),
        ("/v1/collections", named("collection", collection_ids=[foreign["collection_identifier"][0]])),
    ):  # fmt: skip
        checked(routes.send("POST", path, json=body), (path, body), {400, 404, 422})
    theirs = set(foreign["document_id"])
    for path, body in (
        ("/v1/documents/list", {"collection_ids": [foreign["collection_identifier"][0]], "limit": 1000}),
        ("/v1/documents/list", {"limit": 1000}),
        ("/v1/documents/batch-get", {"document_ids": sorted(theirs)}),
        ("/v1/tasks/list", {}),
        ("/v1/batches/list", {"bucket_id": foreign["bucket_identifier"][0]}),
        ("/v1/batches/list", {"collection_id": foreign["collection_identifier"][0]}),
    ):
        answer = routes.send("POST", path, json=body)
        if answer.status_code != 404:
            assert answer.status_code == 200, answer.text
            found = answer.json()
            shown = json.dumps(
                {key: value for key, value in found.items() if key not in ("not_found", "unknown_collection_ids", "warnings")}
            )
            assert not [one for ids in _theirs(routes.world) for one in ids if one in shown], path


def test_nothing_that_is_listed_or_read_is_of_another_namespace(routes: Routes) -> None:
    for method, path, _ in routes.in_namespace:
        if (method == "GET" or path.endswith("/list")) and not path.endswith(("/folders", "/files")):
            answer = routes.send(method, routes.path(path, routes.world.own))
            assert answer.status_code == 200, f"{path}: {answer.text[:300]}"
            assert not [one for ids in _theirs(routes.world) for one in ids if one in answer.text], path


def _theirs(world: World) -> list[list[str]]:
    """Ids that only the other namespace has; names are the same in both."""
    mine = {one for ids in world.own.values() for one in ids}
    return [[one for one in ids if one not in mine and "_" in one] for ids in world.foreign.values()]


def test_ids_that_are_too_long_or_hold_strange_characters_name_nothing(routes: Routes, silent: None) -> None:
    strange = ["x" * 5000, "a%00b", "%ED%A0%80", "%F0%9F%98%80", "..%2F..%2Fetc", "%27%20OR%201=1", "%0A"]
    for method, path, operation in routes.guarded:
        more = {"json": fitting(path)} if "requestBody" in operation else {}
        for name in re.findall(r"\{(\w+)\}", path):
            for value in strange:
                ids = {**routes.world.own, name: [value]}
                answer = routes.send(method, routes.path(path, ids), **more)
                checked(answer, (method, path, name, value[:20]), {404, 405, 422})


NOT_TAKEN: dict[str, bytes] = {
    "nothing closed": b"{",
    "not UTF-8": b"\xff\xfe{}",
    "brackets": b"[" * 100_000,
    "depth": b'{"a":' * 2000 + b"1" + b"}" * 2000,
    "65 levels": b'{"a":' * 65 + b"1" + b"}" * 65,
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, deep": b'{"filters": {"field": "a", "operator": "eq", "value": 1, "field": "b"}}',
    "nul": b'{"a": "x\\u0000y"}',
    "nul in a key": b'{"x\\u0000y": 1}',
    "nul, deep": b'{"a": [{"b": ["\\u0000"]}]}',
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "half of one in a key": b'{"\\udc00": 1}',
    "nan": b'{"a": NaN}',
    "infinite": b'{"a": [-Infinity]}',
    "too large for a float": b'{"a": 1e999}',
    "65 bits": b'{"a": 18446744073709551616}',
    "digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a list": b"[1]",
    "a number": b"7",
    "a text": b'"a"',
    "two values": b"{} {}",
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_json_that_is_ambiguous_or_unstorable_is_refused_on_every_route(routes: Routes, silent: None, name: str) -> None:
    for method, path, _ in routes.with_body:
        url = routes.path(path, routes.world.own)
        answer = routes.send(method, url, content=NOT_TAKEN[name], headers={"Content-Type": "application/json"})
        checked(answer, (method, path, name), {422})


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", ""]
)
def test_another_content_type_is_refused_on_every_route(routes: Routes, silent: None, kind: str) -> None:
    for method, path, _ in routes.with_body:
        url = routes.path(path, routes.world.own)
        answer = routes.send(method, url, content=b'{"a": 1}', headers={"Content-Type": kind})
        checked(answer, (method, path, kind), {422})


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


CURSORS = [
    "!!!", "é", "W10", "a", "====", "x" * 4000, encoded([]), encoded({}) + "x", encoded({"o": -1}), encoded({"o": 10**30}),
    encoded({"o": "1"}) + "!", encoded({"k": ["\ud800", "x"]}), encoded({"k": ["a\0", "b"]}), encoded({"k": [1, 2]}),
    encoded({"k": "ab"}), encoded([1, "x", "y", "z"]), encoded({"s": -1}), encoded({"s": 2**64}), encoded({"s": "x"}),
    base64.urlsafe_b64encode(b"[" * 2000).decode(), base64.urlsafe_b64encode(b'{"o": NaN}').decode(),
]  # fmt: skip


def test_a_malformed_cursor_is_refused_wherever_one_is_taken(routes: Routes, silent: None) -> None:
    """A cursor of another list may be read as the start of this one; it never fails."""
    tried = 0
    for method, path, operation in routes.guarded:
        names = {one["name"] for one in operation.get("parameters", ())} & {"cursor", "next_cursor", "after"}
        names -= {"next_cursor", "after"} if len(names) > 1 else set()  # other names for the same
        for cursor in CURSORS:
            url = routes.path(path, routes.world.own)
            answers = [routes.send(method, url, params={name: cursor}) for name in names]
            if path.endswith("/list") and not names:
                answers.append(routes.send(method, url, json={"cursor": cursor}))
            for answer in answers:
                tried += 1
                assert answer.status_code in (200, 400, 422), f"{method} {path} {cursor[:40]}: {answer.text[:300]}"
                if answer.status_code != 200:
                    check_shape(answer, {400, 422})
                else:
                    assert _is_another_lists(cursor), f"{method} {path} takes {cursor[:40]}"
    assert tried > 300


def _is_another_lists(cursor: str) -> bool:
    """It is an object in base64, with nothing in it that this list reads."""
    try:
        value = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        return False
    return isinstance(value, dict)


def test_limits_and_offsets_out_of_range_are_refused_wherever_they_are_taken(routes: Routes, silent: None) -> None:
    values = {"limit": ("0", "-1", "1000000", "9" * 30, "many", "1.5", ""), "page_size": ("0", "9" * 30)}
    values |= {"offset": ("-1", "9" * 30, "x"), "page": ("0", "9" * 30), "top_k": ("0", "9" * 30)}
    for method, path, operation in routes.guarded:
        for name in {one["name"] for one in operation.get("parameters", ())} & set(values):
            for value in values[name]:
                answer = routes.send(method, routes.path(path, routes.world.own), params={name: value})
                checked(answer, (method, path, name, value), {422})
        if path.endswith("/list"):
            for name in ("limit", "offset"):
                number: Any
                for number in (-1, 10**18, "x", [], 1.5, True):
                    if (name, number) in (("limit", True), ("offset", True)):
                        continue
                    answer = routes.send(method, routes.path(path, routes.world.own), json={name: number})
                    assert answer.status_code in (200, 422), answer.text
                    assert answer.status_code == 422 or number == 10**18, (path, name, number)


DEEP: dict[str, Any] = {"field": "a", "operator": "eq", "value": 1}
for _ in range(30):
    DEEP = {"AND": [DEEP]}
FILTERS: dict[str, Any] = {
    "depth": DEEP,
    "negations": {"NOT": [{"NOT": [DEEP]}]},
    "breadth": {"OR": [{"field": "a", "operator": "eq", "value": number} for number in range(2000)]},
    "values": {"field": "a", "operator": "in", "value": list(range(100_000))},
    "operator": {"field": "a", "operator": "like", "value": 1},
    "operand": {"field": "a", "operator": "in", "value": 1},
    "quotes": {"field": "a\"'; DROP TABLE documents; --", "operator": "eq", "value": 1},
    "field of another type": {"field": ["a"], "operator": "eq", "value": 1},
    "long field": {"field": "a." * 1000 + "a", "operator": "eq", "value": 1},
    "unbalanced pattern": {"field": "a", "operator": "regex", "value": "(" * 2000},
    "huge repetition": {"field": "a", "operator": "regex", "value": "((a{1000}){1000}){1000}"},
    "long pattern": {"field": "a", "operator": "regex", "value": "a" * 100_000},
    "back reference": {"field": "a", "operator": "regex", "value": "(a+)+\\1$"},
    "text": "a=1",
    "list": [1],
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_that_is_none_or_too_large_is_refused_wherever_one_is_taken(routes: Routes, silent: None, name: str) -> None:
    tried = 0
    for method, path, operation in routes.with_body:
        if "filters" not in _properties(routes, operation):
            continue
        tried += 1
        body = {"update_data": {"a": 1}, **fitting(path), "filters": FILTERS[name]}
        body.pop("updates", None)
        if "search" in path:
            body["query"] = "x"
        answer = routes.send(method, routes.path(path, routes.world.own), json=body)
        checked(answer, (method, path, name), {422})
    assert tried > 15


def test_a_pattern_that_backtracks_for_ever_elsewhere_is_quick(routes: Routes) -> None:
    """Patterns are matched in time that grows with the text, so these answer at all."""
    collection = f"/v1/collections/{routes.world.own['collection_identifier'][0]}/documents"
    assert routes.send("POST", collection, json={"a": "a" * 5000 + "!"}).status_code == 200
    for pattern in ("(a+)+$", "(a|a)*$", "(a|aa)+$", "(.*)*x", "([a-z]+)*$", "a?" * 30 + "a" * 30):
        body = {"filters": {"field": "a", "operator": "regex", "value": pattern}}
        assert routes.send("POST", f"{collection}/list", json=body).status_code in (200, 422)


def _properties(routes: Routes, operation: dict[str, Any]) -> dict[str, Any]:
    """The properties of the body's model."""
    components = routes.client.app.openapi()["components"]["schemas"]  # type: ignore[attr-defined]  # as above
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    for one in (schema, *schema.get("anyOf", ())):
        if "$ref" in one:
            return dict(components[one["$ref"].rpartition("/")[2]].get("properties", {}))
    return {}
