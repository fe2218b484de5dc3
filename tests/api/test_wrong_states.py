"""Requests that would be right at another time, or of another key: refused with 4xx, and nothing is written."""

from collections.abc import Callable
from typing import Any

import pytest

from mixpeek_dagster.pipeline.keys import create_key
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.refusals import Routes, application, built, checked, routes, silent, warehouse, world
from tests.api.seeded import HOOK
from tests.api.test_refusals import fitting

__all__ = ["application", "built", "routes", "silent", "warehouse", "world"]

STUB = {"feature_extractor_name": "passthrough_extractor", "version": "v1"}
SHOP = {"collection_name": "passages", "source": {"type": "bucket", "bucket_ids": ["shop"]}, "feature_extractor": STUB}

# {draft} {done} {waiting} are batches, {empty} {sent} {confirmed} uploads, {ended} a task: see `tests.api.seeded`
CASES: list[tuple[str, str, str, Any, int]] = [
    ("submit a batch twice", "POST", "{bucket}/batches/{waiting}/submit", None, 400),
    ("submit an ended batch", "POST", "{bucket}/batches/{done}/submit", None, 400),
    ("add to a submitted batch", "POST", "{bucket}/batches/{waiting}/objects", {"object_ids": ["{object}"]}, 400),
    ("add what is not there", "POST", "{bucket}/batches/{draft}/objects", {"object_ids": ["obj_nope"]}, 404),
    ("delete a batch under way", "DELETE", "{bucket}/batches/{waiting}", None, 400),
    ("cancel an ended batch", "POST", "{bucket}/batches/{done}/cancel", None, 400),
    ("cancel it by its own id", "POST", "/v1/batches/{done}/cancel", None, 400),
    ("retry a draft", "POST", "{bucket}/batches/{draft}/retry", None, 400),
    ("resubmit a draft", "POST", "{bucket}/batches/{draft}/resubmit", None, 400),
    ("resubmit what is under way", "POST", "{bucket}/batches/{waiting}/resubmit", None, 400),
    ("end an ended task", "DELETE", "/v1/tasks/{ended}", None, 400),
    ("confirm a file that was not sent", "POST", "{bucket}/uploads/{empty}/confirm", None, 400),
    ("confirm it without its bucket", "POST", "/v1/uploads/{empty}/confirm", None, 400),
    ("confirm another size", "POST", "{bucket}/uploads/{sent}/confirm", {"file_size_bytes": 1}, 400),
    ("an object of a file that was not sent", "POST", "{bucket}/objects", {"blobs": [{"property": "hero_image", "type": "image", "upload_id": "{empty}"}]}, 400),
    ("delete a connection in use", "DELETE", "/v1/organizations/connections/{used}", None, 400),
    ("delete a collection that others read", "DELETE", "/v1/collections/passages", None, 400),
    ("choose collections of a bucket's reader", "POST", "/v1/collections/passages/trigger", {"include_collections": ["above"]}, 400),
    ("choose buckets of a collection's reader", "POST", "/v1/collections/above/trigger", {"include_buckets": ["shop"]}, 400),
    ("trigger an unknown object", "POST", "/v1/collections/passages/trigger", {"object_ids": ["{object}", "obj_nope"]}, 404),
    ("trigger an unknown bucket", "POST", "/v1/collections/passages/trigger", {"include_buckets": ["shop", "bkt_nope"]}, 404),
    ("trigger an unknown collection", "POST", "/v1/collections/above/trigger", {"include_collections": ["passages", "col_nope"]}, 404),
    ("submit to an unknown collection", "POST", "{bucket}/batches/{draft}/submit", {"collection_ids": ["col_nope"]}, 404),
    ("choose nothing", "POST", "/v1/collections/passages/trigger", {"include_buckets": []}, 422),
    ("a collection that reads itself", "POST", "/v1/collections", {**SHOP, "collection_name": "loop", "source": {"type": "collection", "collection_ids": ["loop"]}}, 404),
    ("a namespace's name twice", "POST", "/v1/namespaces", {"namespace_name": "elsewhere"}, 409),
    ("a bucket's name twice", "POST", "/v1/buckets", {"bucket_name": "shop", "bucket_schema": {"properties": {}}}, 409),
    ("a collection's name twice", "POST", "/v1/collections", SHOP, 409),
    ("a clone under a taken name", "POST", "/v1/collections/above/clone", {"collection_name": "passages"}, 409),
    ("a collection renamed to a taken name", "PATCH", "/v1/collections/above", {"collection_name": "passages"}, 409),
    ("a connection's name twice", "POST", "/v1/organizations/connections", {"name": "conn", "provider_type": "s3", "provider_config": {"bucket_name": "b", "credentials": {"access_key_id": "a", "secret_access_key": "b"}}, "test_before_save": False}, 409),
    ("a webhook's name twice", "POST", "/v1/organizations/webhooks", HOOK, 409),
    ("a webhook to this machine", "POST", "/v1/organizations/webhooks", {**HOOK, "webhook_name": "own", "channels": [{"channel": "webhook", "configs": {"url": "https://127.0.0.1/"}}]}, 422),
    ("a webhook over http", "POST", "/v1/organizations/webhooks", {**HOOK, "webhook_name": "own", "channels": [{"channel": "webhook", "configs": {"url": "http://example.com/"}}]}, 422),
    ("a batch that tells over http", "POST", "{bucket}/batches/{draft}/submit", {"webhook_url": "http://example.com/"}, 422),
    ("a batch that tells a port", "POST", "{bucket}/batches/{draft}/submit", {"webhook_url": "https://example.com:22/"}, 422),
    ("a batch that tells this machine", "POST", "{bucket}/batches/{draft}/submit", {"webhook_url": "https://169.254.169.254/"}, 422),
    *((f"a model at {uri}", "POST", "/v1/collections", {**SHOP, "collection_name": "models", "feature_extractor": {"feature_extractor_name": "text_extractor", "parameters": {"model": uri}}}, 422)
      for uri in ("nope", "/etc/pack", "file:///etc/pack", "http://127.0.0.1/pack", "http://169.254.169.254/pack", "s3://bucket/pack", "https://a:WORD@example.com/pack", "simplecache::file:///etc/pack", "x" * 3000)),
    *((f"the extractor {name}", "POST", "/v1/collections", {**SHOP, "collection_name": "models", "feature_extractor": {"feature_extractor_name": name}}, 422)
      for name in ("os:system", "subprocess:Popen", "antigravity:fly", "../x:y", ":", "nope")),
    ("a namespace of dotted extractors", "POST", "/v1/namespaces", {"namespace_name": "dotted", "feature_extractors": [{"feature_extractor_name": "antigravity:fly", "version": "v1"}]}, 422),
]  # fmt: skip


def test_what_comes_at_the_wrong_time_is_refused(routes: Routes, warehouse: Warehouse, silent: None) -> None:
    own = routes.world.own
    with warehouse.catalog.reading() as records:
        used = records.syncs.get(own["sync_id"][0]).connection_id
    names = dict(zip(("draft", "done", "waiting"), own["batch_id"])) | dict(zip(("sent", "confirmed", "empty"), own["upload_id"]))
    names |= {"bucket": f"/v1/buckets/{own['bucket_identifier'][0]}", "object": own["object_identifier"][0]}
    names |= {"ended": own["task_id"][0], "used": used}
    problems = []
    for what, method, path, body, status in CASES:
        more = {"json": _filled(body, names)} if body is not None else {}
        answer = routes.send(method, _filled(path, names), **more)
        if answer.status_code != status:
            problems.append(f"{what}: {answer.status_code} instead of {status}: {answer.text[:300]}")
        else:
            checked(answer, what, {status})
            assert "WORD" not in answer.text, what
    assert not problems, "\n".join(problems)


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, names) for inner in value]
    for name, meant in names.items():
        value = value.replace(f"{{{name}}}", meant) if isinstance(value, str) else value
    return value


@pytest.fixture
def narrow(warehouse: Warehouse, routes: Routes) -> str:
    """A key that is limited to our namespace."""
    return create_key(warehouse, name="narrow", namespace=routes.world.namespace_id).token


def test_a_key_of_one_namespace_opens_nothing_else(routes: Routes, narrow: str, inventory: Callable[[], dict[str, int]]) -> None:
    foreign, before = routes.world.foreign, inventory()
    headers = {"Authorization": f"Bearer {narrow}", "X-Namespace": foreign["namespace_identifier"][0]}
    for method, path, operation in routes.guarded:
        is_inside = any(one["name"] == "x-namespace" for one in operation.get("parameters", ()))
        if is_inside or "{namespace_identifier}" in path or "/organizations/" in path:
            more = {"json": HOOK if "webhook" in path else fitting(path)} if "requestBody" in operation else {}
            answer = routes.send(method, routes.path(path, foreign), headers=headers, **more)
            checked(answer, (method, path), {403, 404} if "connections" not in path else {403, 404, 422})
    assert inventory() == before
