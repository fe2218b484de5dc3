"""Bad input, as a table: the documented 4xx, nothing written, no secret in the answer."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.test_errors import check_shape

LONG = "x" * 5000
DEEP: dict[str, Any] = {"field": "a", "operator": "eq", "value": 1}
for _ in range(30):
    DEEP = {"AND": [DEEP]}
BROAD = {"OR": [{"field": "a", "operator": "eq", "value": number} for number in range(2000)]}
INLINE = {"access_key_id": "AKIASECRET", "secret_access_key": "VERYSECRET"}


def blob(**source: Any) -> dict[str, Any]:
    return {"blobs": [{"property": "hero_image", "type": "image", **source}]}


def sync(**connection: Any) -> dict[str, Any]:
    return {
        "provider": "s3",
        "connection": {"bucket_name": "b", "credentials": INLINE, **connection},
        "sync_config": {"source_path": "/"},
    }


def bucket(**schema: Any) -> dict[str, Any]:
    return {"bucket_name": "b", "bucket_schema": {"properties": schema}}


CASES: list[tuple[str, str, str, Any, int | set[int]]] = [
    ("name too short", "POST", "/v1/namespaces", {"namespace_name": "ab"}, 422),
    ("name too long", "POST", "/v1/namespaces", {"namespace_name": "a" * 65}, 422),
    ("name of another type", "POST", "/v1/namespaces", {"namespace_name": 7}, 422),
    ("name with a slash", "POST", "/v1/namespaces", {"namespace_name": "../etc"}, 422),
    ("name taken", "POST", "/v1/namespaces", {"namespace_name": "production"}, 409),
    ("a list for a body", "POST", "/v1/namespaces", [1], 422),
    ("null for a body", "POST", "/v1/namespaces", None, 422),
    ("unknown extractor", "POST", "/v1/namespaces", {"namespace_name": "abc", "feature_extractors": [{"feature_extractor_name": "nope", "version": "v1"}]}, 422),
    ("dotted extractor", "POST", "/v1/namespaces", {"namespace_name": "abc", "feature_extractors": [{"feature_extractor_name": "os:system", "version": "v1"}]}, 422),
    ("standalone mode", "POST", "/v1/namespaces", {"namespace_name": "abc", "mode": "standalone"}, 422),
    ("rename to a taken name", "PATCH", "/v1/namespaces/second", {"namespace_name": "production"}, 409),
    ("unknown field type", "POST", "/v1/buckets", bucket(a={"type": "hologram"}), 422),
    ("no schema", "POST", "/v1/buckets", {"bucket_name": "b"}, 422),
    ("properties of another type", "POST", "/v1/buckets", {"bucket_name": "b", "bucket_schema": {"properties": [1]}}, 422),
    ("bucket name taken", "POST", "/v1/buckets", {"bucket_name": "product-catalog", "bucket_schema": {"properties": {}}}, 409),
    ("unique key of a blob", "POST", "/v1/buckets", {**bucket(a={"type": "image"}), "unique_key": {"fields": ["a"]}}, 422),
    ("unique key changed", "PATCH", "{bucket}", {"unique_key": {"fields": ["price"]}}, 400),
    ("limit 0", "POST", "/v1/buckets/list", {"limit": 0}, 422),
    ("limit 1001", "POST", "/v1/buckets/list", {"limit": 1001}, 422),
    ("limit in words", "GET", "/v1/buckets?limit=many", None, 422),
    ("negative offset", "POST", "{bucket}/objects/list", {"offset": -1}, 422),
    ("malformed cursor", "POST", "{bucket}/objects/list", {"cursor": "!!!"}, 400),
    ("cursor of another shape", "POST", "{bucket}/objects/list", {"cursor": "eyJrIjoxfQ"}, 400),
    ("cursor that is no object", "GET", "{bucket}/objects?cursor=W10", None, 400),
    ("filter depth", "POST", "{bucket}/objects/list", {"filters": DEEP}, 422),
    ("filter breadth", "POST", "{bucket}/objects/list", {"filters": BROAD}, 422),
    ("filter operator", "POST", "{bucket}/objects/list", {"filters": {"field": "a", "operator": "like", "value": 1}}, 422),
    ("filter field", "POST", "{bucket}/objects/list", {"filters": {"field": 'a"b', "operator": "eq", "value": 1}}, 422),
    ("filter of another type", "POST", "{bucket}/objects/list", {"filters": "a=1"}, 422),
    ("regex bomb", "POST", "{bucket}/objects/list", {"filters": {"field": "a", "operator": "regex", "value": "(" * 2000}}, 422),
    ("sort field", "POST", "{bucket}/objects/list", {"sort": {"field": 'x" desc; --'}}, 422),
    ("sort direction", "POST", "{bucket}/objects/list", {"sort": {"field": "x", "direction": "up"}}, 422),
    ("search too long", "POST", "{bucket}/objects/list", {"search": LONG}, 422),
    ("select too many", "POST", "{bucket}/objects/list", {"select": ["a"] * 101}, 422),
    ("no source of a blob", "POST", "{bucket}/objects", blob(), 422),
    ("two sources of a blob", "POST", "{bucket}/objects", blob(url="https://example.com/a", content="b"), 422),
    ("unknown property", "POST", "{bucket}/objects", {"blobs": [{"property": "nope", "type": "image", "url": "https://example.com/a"}]}, 422),
    ("another blob type", "POST", "{bucket}/objects", {"blobs": [{"property": "hero_image", "type": "video", "url": "https://example.com/a"}]}, 422),
    ("a metadata type for a blob", "POST", "{bucket}/objects", {"blobs": [{"property": "price", "type": "number", "content": "1"}]}, 422),
    ("property twice", "POST", "{bucket}/objects", {"blobs": blob(data="aGk=")["blobs"] * 2}, 422),
    ("metadata type", "POST", "{bucket}/objects", {"price": "cheap"}, 422),
    ("not base64", "POST", "{bucket}/objects", blob(data="%%%"), 422),
    ("policy without a unique key", "POST", "{bucket}/objects?policy=upsert", {}, 400),
    ("unknown policy", "POST", "{bucket}/objects?policy=merge", {}, 422),
    ("unknown upload", "POST", "{bucket}/objects", blob(upload_id="upl_nope"), 404),
    ("unconfirmed upload", "POST", "{bucket}/objects", blob(upload_id="{upload}"), 400),
    ("101 objects", "POST", "{bucket}/objects/batch", {"objects": [{}] * 101}, 422),
    ("no objects", "POST", "{bucket}/objects/batch", {"objects": []}, 422),
    *(
        (f"object url {url}", "POST", "{bucket}/objects", blob(url=url), 422)
        for url in (
            "http://127.0.0.1/a",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/a",
            "http://[::ffff:10.0.0.1]/a",
            "https://example.com:22/a",
            "https://user:pass@example.com/a",
            "file:///etc/passwd",
            "ftp://example.com/a",
            "gopher://example.com",
            "javascript:alert(1)",
            "https://exa mple.com/",
        )
    ),
    ("loopback in data", "POST", "{bucket}/objects", blob(data="http://127.0.0.1/a"), 422),
    *(
        (f"file name {name!r}", "POST", "{bucket}/uploads", {"filename": name, "content_type": "image/jpeg"}, 422)
        for name in ("../a.jpg", "/etc/passwd", "a/b.jpg", "a\\b.jpg", "..", ".", "", "a" * 256, "a\nb.jpg")
    ),
    ("content type", "POST", "{bucket}/uploads", {"filename": "a.jpg", "content_type": "jpeg"}, 422),
    ("no property for the type", "POST", "{bucket}/uploads", {"filename": "a.mp4", "content_type": "video/mp4"}, 422),
    ("unknown blob_property", "POST", "{bucket}/uploads", {"filename": "a.jpg", "content_type": "image/jpeg", "blob_property": "x"}, 422),
    ("expiration too long", "POST", "{bucket}/uploads", {"filename": "a.jpg", "content_type": "image/jpeg", "presigned_url_expiration": 86401}, 422),
    ("hash", "POST", "{bucket}/uploads", {"filename": "a.jpg", "content_type": "image/jpeg", "file_hash": "abc"}, 422),
    ("larger than allowed", "POST", "{bucket}/uploads", {"filename": "a.jpg", "content_type": "image/jpeg", "file_size_bytes": 10**12}, 422),
    ("101 uploads", "POST", "{bucket}/uploads/batch", {"uploads": [{"filename": "a.jpg", "content_type": "image/jpeg"}] * 101}, 422),
    ("confirm without a file", "POST", "/v1/uploads/{upload}/confirm", None, 400),
    ("confirm of an unknown upload", "POST", "/v1/uploads/upl_nope/confirm", None, 404),
    ("neither form of a sync", "POST", "{bucket}/syncs", {"sync_config": {}}, 422),
    ("unknown provider", "POST", "{bucket}/syncs", {"provider": "floppy", "connection": {}}, 422),
    ("dotted provider", "POST", "{bucket}/syncs", {"provider": "os:system", "connection": {}}, 422),
    ("connection of another type", "POST", "{bucket}/syncs", {"provider": "s3", "connection": "here"}, 422),
    ("local folder", "POST", "{bucket}/syncs", {"provider": "local", "connection": {}, "sync_config": {"source_path": "/etc"}}, 403),
    ("fsspec file", "POST", "{bucket}/syncs", {"provider": "fsspec+file", "connection": {}, "sync_config": {"source_path": "/etc"}}, 422),
    ("half a key", "POST", "{bucket}/syncs", {"provider": "s3", "connection": {"bucket_name": "b", "credentials": {"access_key_id": "AKIASECRET"}}}, 422),
    ("endpoint on loopback", "POST", "{bucket}/syncs", sync(endpoint_url="http://127.0.0.1:9000"), 422),
    ("endpoint of metadata", "POST", "{bucket}/syncs", sync(endpoint_url="http://169.254.169.254"), 422),
    ("environment of the server", "POST", "{bucket}/syncs", sync(credentials={"access_key_id": "a", "secret_access_key": {"env": "PATH"}}), 422),
    ("unknown mode", "POST", "{bucket}/syncs", {**sync(), "sync_config": {"source_path": "/", "sync_mode": "sometimes"}}, 422),
    ("interval 0", "POST", "{bucket}/syncs", {**sync(), "sync_config": {"source_path": "/", "polling_interval": 0}}, 422),
    ("unknown connection", "POST", "{bucket}/syncs", {"connection_id": "conn_nope", "source_path": "b/"}, 404),
    ("connection that does not answer", "POST", "/v1/organizations/connections", {"name": "c", "provider_type": "s3", "provider_config": {"bucket": "b", "endpoint_url": "https://nowhere.invalid", "credentials": INLINE}}, 400),
    ("connection to loopback", "POST", "/v1/organizations/connections", {"name": "c", "provider_type": "s3", "provider_config": {"endpoint_url": "http://127.0.0.1", "credentials": INLINE}}, 422),
    ("connection name too long", "POST", "/v1/organizations/connections", {"name": LONG, "provider_type": "s3", "provider_config": {}}, 422),
    ("foreign bucket", "GET", "/v1/buckets/foreign", None, 404),
    ("foreign bucket by id", "GET", "/v1/buckets/{foreign}", None, 404),
    ("foreign bucket deleted", "DELETE", "/v1/buckets/{foreign}", None, 404),
    ("foreign bucket written", "POST", "/v1/buckets/{foreign}/objects", {}, 404),
    ("nul in the path", "GET", "/v1/buckets/a%00b", None, 422),
    ("nul in the query", "GET", "/v1/buckets?search=a%00b", None, 422),
]  # fmt: skip


def test_bad_input_is_refused_and_writes_nothing(
    client: TestClient, bucket: dict[str, Any], inventory: Callable[[], dict[str, int]]
) -> None:
    client.post("/v1/namespaces", json={"namespace_name": "second"})
    there = {"X-Namespace": "second"}
    foreign = client.post(
        "/v1/buckets", json={"bucket_name": "foreign", "bucket_schema": {"properties": {}}}, headers=there
    ).json()
    path = f"/v1/buckets/{bucket['bucket_id']}"
    upload = client.post(f"{path}/uploads", json={"filename": "a.jpg", "content_type": "image/jpeg"}).json()["upload_id"]
    before, problems = inventory(), []
    for name, method, where, body, status in CASES:
        url = where.replace("{bucket}", path).replace("{upload}", upload).replace("{foreign}", foreign["bucket_id"])
        if isinstance(body, dict) and "{upload}" in str(body):
            body = {"blobs": [{**body["blobs"][0], "upload_id": upload}]}
        response = client.request(method, url, **({"json": body} if body is not None else {}))
        if response.status_code != status:
            problems.append(f"{name}: {response.status_code} instead of {status}: {response.text[:300]}")
            continue
        check_shape(response, status)
        assert "AKIASECRET" not in response.text and "VERYSECRET" not in response.text, name
        if inventory() != before:
            problems.append(f"{name}: wrote {inventory()}")
            before = inventory()
    assert not problems, "\n".join(problems)


def test_an_error_is_never_long_whatever_it_is_about(client: TestClient, bucket: dict[str, Any]) -> None:
    many = {str(number): number for number in range(5000)}
    config = {"name": "c", "provider_type": "s3", "provider_config": many}
    path = f"/v1/buckets/{bucket['bucket_id']}"
    for url, body in (
        ("/v1/organizations/connections", config),
        (f"{path}/syncs", {"provider": "s3", "connection": many}),
        (f"{path}/objects/list", {"sort": {"field": LONG * 50}}),
        ("/v1/documents/list", {**many, LONG * 50: 1}),
        (
            "/v1/buckets",
            {"bucket_name": "b", "bucket_schema": {"properties": {LONG * 50: {"type": "nope"}, "b": {"type": LONG}}}},
        ),
        ("/v1/batches/list", {"status": LONG * 50}),
    ):
        response = client.post(url, json=body)
        check_shape(response, 422)
        assert len(response.text) < 50_000, f"{url}: {len(response.text)}"


def test_a_signed_url_works_for_its_own_upload_only(client: TestClient, bucket: dict[str, Any]) -> None:
    path = f"/v1/buckets/{bucket['bucket_id']}/uploads"
    one, other = (client.post(path, json={"filename": "a.jpg", "content_type": "image/jpeg"}).json() for _ in range(2))
    url = one["presigned_url"]
    for bad in (url.replace(one["upload_id"], other["upload_id"]), url[:-1] + "x", url.replace("expires=", "expires=9")):
        check_shape(client.put(bad, content=b"x"), 403)
    check_shape(client.put(url, content=b"x", headers={"Content-Type": "text/html"}), 403)
    check_shape(client.put(url.split("?")[0], content=b"x"), 422)
    assert client.put(url, content=b"x").status_code == 200


@pytest.mark.parametrize(
    ("announced", "confirmed"),
    [
        ({"file_size_bytes": 5}, {}),
        ({}, {"file_size_bytes": 5}),
        ({}, {"etag": '"other"'}),
        ({"file_hash": "0" * 64}, {}),
    ],
    ids=["announced size", "confirmed size", "etag", "hash"],
)
def test_a_file_that_is_not_what_was_said_is_not_confirmed(
    client: TestClient, bucket: dict[str, Any], announced: dict[str, Any], confirmed: dict[str, Any]
) -> None:
    path = f"/v1/buckets/{bucket['bucket_id']}/uploads"
    upload = client.post(path, json={"filename": "a.jpg", "content_type": "image/jpeg", **announced}).json()
    assert client.put(upload["presigned_url"], content=b"x").status_code == 200
    check_shape(client.post(f"{path}/{upload['upload_id']}/confirm", json=confirmed), 400)
    assert client.get(f"/v1/buckets/{bucket['bucket_id']}").json()["object_count"] == 0
