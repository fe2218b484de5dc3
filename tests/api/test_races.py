"""Two requests about one thing at one moment, on each database: one is done, the other one is told, nothing is lost or done twice."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.api.conftest import open_warehouse
from tests.api.running import STUB, Shop, shop
from tests.api.seeded import FIND, HOOK, SYNC
from tests.api.test_errors import check_shape
from tests.pipeline.worlds import emptied

__all__ = ["shop"]

ROUNDS = 6
Call = tuple[str, str, Any]
Answer = Any


@pytest.fixture(params=["sqlite", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Warehouse]:
    more = {} if request.param == "sqlite" else {"catalog_url": emptied(request.getfixturevalue("postgres_url"))}
    opened = open_warehouse(tmp_path, rate_limit_per_minute=0, **more)
    yield opened
    opened.close()


def race(client: TestClient, *calls: Call) -> list[Answer]:
    """The answers of calls that are sent at the same moment; every refusal is a documented one."""
    start = Barrier(len(calls))

    def send(call: Call) -> Answer:
        method, path, body = call
        start.wait(timeout=30)
        return client.request(method, path, **({"json": body} if body is not None else {}))

    with ThreadPoolExecutor(len(calls)) as pool:
        answers = list(pool.map(send, calls))
    for call, answer in zip(calls, answers):
        if answer.status_code >= 300:
            check_shape(answer, {400, 404, 409, 422}), call
    return answers


def statuses(answers: list[Answer]) -> list[int]:
    return sorted(answer.status_code for answer in answers)


def path(shop: Shop, batch: dict[str, Any], more: str = "") -> str:
    return f"/v1/buckets/{shop.bucket_id}/batches/{batch['batch_id']}{more}"


def test_of_two_submits_one_succeeds(shop: Shop) -> None:
    for number in range(ROUNDS):
        batch = shop.batch(shop.add(f"a{number}"))
        submit = ("POST", path(shop, batch, "/submit"), {"include_processing_history": True})
        assert statuses(race(shop.client, submit, submit)) == [200, 400]
    assert shop.run() == ROUNDS


def test_of_two_batches_with_the_same_work_one_is_submitted(shop: Shop) -> None:
    for number in range(ROUNDS):
        (object_id,) = shop.add(f"a{number}")
        batches = [shop.batch([object_id]) for _ in range(2)]
        assert statuses(race(shop.client, *(("POST", path(shop, one, "/submit"), None) for one in batches))) == [200, 409]


def test_a_submit_takes_what_was_added_or_the_addition_is_refused(shop: Shop) -> None:
    for number in range(ROUNDS):
        first, second = shop.add(f"a{number}", f"b{number}")
        batch = shop.batch([first])
        add = ("POST", path(shop, batch, "/objects"), {"object_ids": [second]})
        added, submitted = race(shop.client, add, ("POST", path(shop, batch, "/submit"), None))
        assert submitted.status_code == 200 and added.status_code in (200, 400)
        assert shop.get(path(shop, batch))["object_count"] == (2 if added.status_code == 200 else 1)
        answered = submitted.json()["additional_data"]["object_count"]
        assert answered == (2 if added.status_code == 200 else 1)
        shop.run()
        done = shop.get(path(shop, batch))
        assert (done["status"], done["documents_written"]) == ("COMPLETED", answered)


def test_additions_at_once_are_all_kept(shop: Shop) -> None:
    for number in range(ROUNDS):
        objects = shop.add(*(f"{name}{number}" for name in "abcd"))
        batch = shop.batch(objects[:1])
        adds = [("POST", path(shop, batch, "/objects"), {"object_ids": [one]}) for one in (objects[1], objects[2], objects[2])]
        assert statuses(race(shop.client, *adds)) == [200, 200, 200]
        assert set(shop.get(path(shop, batch))["object_ids"]) == set(objects[:3])


def test_a_cancel_beside_a_submit_leaves_one_end(shop: Shop) -> None:
    for number in range(ROUNDS):
        batch = shop.batch(shop.add(f"a{number}"))
        canceled, submitted = race(
            shop.client, ("POST", path(shop, batch, "/cancel"), None), ("POST", path(shop, batch, "/submit"), None)
        )
        assert canceled.status_code == 200 and submitted.status_code in (200, 400)
        assert shop.get(path(shop, batch))["status"] == "CANCELED"
        assert shop.run() == 0


def test_of_two_cancels_one_succeeds(shop: Shop) -> None:
    for number in range(ROUNDS):
        batch = shop.batch(shop.add(f"a{number}"), auto_submit=True)
        cancel = ("POST", path(shop, batch, "/cancel"), None)
        assert statuses(race(shop.client, cancel, cancel)) == [200, 400]


def test_a_batch_that_is_submitted_is_not_deleted(shop: Shop) -> None:
    for number in range(ROUNDS):
        batch = shop.batch(shop.add(f"a{number}"))
        deleted, submitted = race(shop.client, ("DELETE", path(shop, batch), None), ("POST", path(shop, batch, "/submit"), None))
        assert sorted((deleted.status_code, submitted.status_code)) in ([200, 400], [200, 404])
        assert shop.client.get(path(shop, batch)).status_code == (404 if deleted.status_code == 200 else 200)


def test_of_two_resubmissions_both_are_batches_of_their_own(shop: Shop) -> None:
    batch = shop.batch(shop.add("a"), auto_submit=True)
    shop.run()
    again = race(shop.client, *[("POST", path(shop, batch, "/resubmit"), None)] * 2)
    assert len({one.json()["batch_id"] for one in again if one.status_code == 200}) == statuses(again).count(200) >= 1


def stub(name: str, shop: Shop) -> dict[str, Any]:
    extractor = {"feature_extractor_name": STUB, "version": "v1", "input_mappings": {"text": "content"}}
    source = {"type": "bucket", "bucket_ids": [shop.bucket_id]}
    return {"collection_name": name, "source": source, "feature_extractor": extractor}


NAMED: dict[str, Callable[[str, Shop], tuple[str, Any]]] = {
    "namespace": lambda name, shop: ("/v1/namespaces", {"namespace_name": name}),
    "bucket": lambda name, shop: ("/v1/buckets", {"bucket_name": name, "bucket_schema": {"properties": {}}}),
    "collection": lambda name, shop: ("/v1/collections", stub(name, shop)),
    "clone": lambda name, shop: ("/v1/collections/passages/clone", {"collection_name": name}),
    "connection": lambda name, shop: (
        "/v1/organizations/connections",
        {"name": name, "provider_type": "s3", "provider_config": SYNC["connection"], "test_before_save": False},
    ),
    "webhook": lambda name, shop: ("/v1/organizations/webhooks", {**HOOK, "webhook_name": name}),
    "retriever": lambda name, shop: (
        "/v1/retrievers",
        {"retriever_name": name, "collection_identifiers": ["passages"], "stages": [FIND]},
    ),
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_name_is_given_once(shop: Shop, kind: str) -> None:
    for number in range(ROUNDS):
        url, body = NAMED[kind](f"{kind}-{number}", shop)
        assert statuses(race(shop.client, *[("POST", url, body)] * 3)) == [200, 409, 409]


KEYED = {"unique_key": {"fields": ["sku"], "default_policy": "upsert"}}


def test_a_unique_key_names_one_object(client: TestClient, namespace: dict[str, Any], warehouse: Warehouse) -> None:
    shop = Shop(client, warehouse, **KEYED)
    objects = f"/v1/buckets/{shop.bucket_id}/objects"
    for number in range(ROUNDS):
        upsert = ("POST", objects, {"sku": f"s{number}"})
        answers = race(client, *[upsert] * 3)
        assert {one.status_code for one in answers} <= {200, 409} and statuses(answers)[0] == 200
        assert len({one.json()["object_id"] for one in answers if one.status_code == 200}) == 1
        insert = ("POST", f"{objects}?policy=insert", {"sku": f"i{number}"})
        assert statuses(race(client, *[insert] * 3)) == [200, 409, 409]
    assert shop.get(f"/v1/buckets/{shop.bucket_id}")["object_count"] == 2 * ROUNDS
    check_counts(warehouse, shop.client.headers["X-Namespace"])


def test_an_idempotency_key_makes_one_object(shop: Shop) -> None:
    objects = f"/v1/buckets/{shop.bucket_id}/objects"
    for number in range(ROUNDS):
        answers = race(shop.client, *[("POST", objects, {"sku": "x", "idempotency_key": f"k{number}"})] * 3)
        assert {one.status_code for one in answers} <= {200, 409} and statuses(answers)[0] == 200
        assert len({one.json()["object_id"] for one in answers if one.status_code == 200}) == 1
    assert shop.get(f"/v1/buckets/{shop.bucket_id}")["object_count"] == ROUNDS


def test_an_upload_is_confirmed_once(client: TestClient, bucket: dict[str, Any]) -> None:
    uploads = f"/v1/buckets/{bucket['bucket_id']}/uploads"
    for _ in range(ROUNDS):
        upload = client.post(uploads, json={"filename": "a.jpg", "content_type": "image/jpeg"}).json()
        assert client.put(upload["presigned_url"], content=b"\xff\xd8\xff").status_code == 200
        answers = race(client, *[("POST", f"{uploads}/{upload['upload_id']}/confirm", None)] * 3)
        assert statuses(answers) == [200, 200, 200]
        assert len({one.json()["object_id"] for one in answers}) == 1
    assert client.get(f"/v1/buckets/{bucket['bucket_id']}").json()["object_count"] == ROUNDS


def test_changes_of_different_fields_are_all_kept(shop: Shop) -> None:
    shop.batch(shop.add("a"), auto_submit=True)
    shop.run()
    (document,) = shop.documents()
    (object_id,) = (shop.get(f"/v1/buckets/{shop.bucket_id}/objects")["results"][0]["object_id"],)
    own, names = f"/v1/documents/{document['document_id']}", ("a", "b", "c")
    for number in range(ROUNDS):
        assert statuses(race(shop.client, *(("PATCH", own, {name: number}) for name in names))) == [200, 200, 200]
        assert [shop.get(own)[name] for name in names] == [number] * 3
        objects = f"/v1/buckets/{shop.bucket_id}/objects/{object_id}"
        assert statuses(race(shop.client, *(("PATCH", objects, {name: number}) for name in names))) == [200, 200, 200]
        assert [shop.get(objects)[name] for name in names] == [number] * 3


PATCHED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "namespace": ("/v1/namespaces/production", {"description": "new"}, {"payload_indexes": [{"field_name": "a", "type": "keyword"}]}),
    "bucket": ("/v1/buckets/shop", {"description": "new"}, {"metadata": {"a": 1}}),
    "collection": ("/v1/collections/passages", {"description": "new"}, {"metadata": {"a": 1}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", PATCHED)
def test_changes_of_different_settings_are_all_kept(shop: Shop, kind: str) -> None:
    url, first, second = PATCHED[kind]
    for _ in range(ROUNDS):
        nothing = {"description": "old"} | ({"payload_indexes": []} if kind == "namespace" else {"metadata": {}})
        assert shop.client.patch(url, json=nothing).status_code == 200
        assert statuses(race(shop.client, ("PATCH", url, first), ("PATCH", url, second))) == [200, 200]
        found = shop.get(url)
        assert found["description"] == "new"
        assert found.get("metadata") == {"a": 1} or [one["field_name"] for one in found["payload_indexes"]] == ["a"]


def test_two_triggers_of_a_sync_are_one_job(shop: Shop) -> None:
    sync = shop.post(f"/v1/buckets/{shop.bucket_id}/syncs", SYNC)["sync_id"]
    answers = race(shop.client, *[("POST", f"/v1/buckets/{shop.bucket_id}/syncs/{sync}/trigger", None)] * 3)
    assert statuses(answers) == [200, 200, 200]
    assert len({one.json()["sync_job_id"] for one in answers}) == 1


def test_what_is_added_to_a_bucket_that_is_deleted_is_refused_or_goes_with_it(shop: Shop, warehouse: Warehouse) -> None:
    for number in range(ROUNDS):
        body = {"bucket_name": f"gone-{number}", "bucket_schema": {"properties": {"sku": {"type": "string"}}}}
        bucket = f"/v1/buckets/{shop.post('/v1/buckets', body)['bucket_id']}"
        race(
            shop.client,
            ("DELETE", bucket, None),
            ("POST", f"{bucket}/objects", {"sku": "a"}),
            ("POST", f"{bucket}/objects/batch", {"objects": [{"sku": "a"}]}),
            ("POST", f"{bucket}/syncs", SYNC),
            ("POST", f"{bucket}/uploads", {"filename": "a.jpg", "content_type": "image/jpeg", "create_object_on_confirm": False}),
        )
        assert shop.client.get(bucket).status_code == 404
    check_counts(warehouse, shop.client.headers["X-Namespace"])


def test_what_is_made_in_a_namespace_that_is_deleted_is_refused_or_goes_with_it(shop: Shop, warehouse: Warehouse) -> None:
    for number in range(ROUNDS):
        made = shop.post("/v1/namespaces", {"namespace_name": f"gone-{number}"})["namespace_id"]
        inside = f"?namespace={made}"
        client = TestClient(shop.client.app, raise_server_exceptions=False)
        client.headers = {"Authorization": shop.client.headers["Authorization"]}  # type: ignore[assignment]  # httpx takes any mapping
        bucket = {"bucket_name": "b", "bucket_schema": {"properties": {}}}
        race(
            client,
            ("DELETE", f"/v1/namespaces/{made}", None),
            ("POST", f"/v1/buckets{inside}", bucket),
            ("POST", f"/v1/buckets{inside}", {**bucket, "bucket_name": "c"}),
            ("PATCH", f"/v1/namespaces/{made}", {"description": "x"}),
        )
        assert client.get(f"/v1/namespaces/{made}").status_code == 404
    check_counts(warehouse, shop.client.headers["X-Namespace"])


def test_collections_and_their_sources_that_go_at_the_same_moment(shop: Shop, warehouse: Warehouse) -> None:
    for number in range(ROUNDS):
        shop.collection(f"up-{number}", {"type": "bucket", "bucket_ids": [shop.bucket_id]})
        above = {"type": "collection", "collection_ids": [f"up-{number}"]}
        race(
            shop.client,
            ("DELETE", f"/v1/collections/up-{number}", None),
            ("POST", "/v1/collections", {**stub(f"down-{number}", shop), "source": above}),
            ("POST", f"/v1/collections/up-{number}/trigger", None),
            ("POST", f"/v1/collections/up-{number}/documents", {"title": "by hand"}),
        )
        is_gone = shop.client.get(f"/v1/collections/up-{number}").status_code == 404
        below = shop.client.get(f"/v1/collections/down-{number}")
        assert not (is_gone and below.status_code == 200 and below.json()["enabled"])
    check_counts(warehouse, shop.client.headers["X-Namespace"])


def check_counts(warehouse: Warehouse, namespace_id: str) -> None:
    """Running totals are what is there, and nothing refers to what is gone."""
    with warehouse.catalog.reading() as records:
        buckets = records.buckets.all(NamespaceId(namespace_id))
        for bucket in buckets:
            assert bucket.object_count == len(records.objects.ids_in_bucket(bucket.bucket_id)), bucket
        collections = records.collections.all(NamespaceId(namespace_id))
        known = {one.bucket_id for one in buckets} | {one.collection_id for one in collections}
        for collection in (one for one in collections if one.enabled):
            assert {*collection.source.bucket_ids, *collection.source.collection_ids} <= known, collection
