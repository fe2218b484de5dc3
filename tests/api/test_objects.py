"""Objects: policies, idempotency, lists."""

from random import Random
from typing import Any

from fastapi.testclient import TestClient

from mixpeek_dagster.pipeline.warehouse import Warehouse

SCHEMA = {"properties": {"text": {"type": "text"}, "sku": {"type": "string"}, "price": {"type": "number"}}}


def keyed_bucket(client: TestClient, **unique_key: Any) -> str:
    body = {"bucket_name": "keyed", "bucket_schema": SCHEMA, "unique_key": {"fields": ["sku"], **unique_key}}
    return f"/v1/buckets/{client.post('/v1/buckets', json=body).json()['bucket_id']}/objects"


def test_policies_insert_update_and_upsert_by_the_unique_key(client: TestClient, namespace: dict[str, Any]) -> None:
    path = keyed_bucket(client)
    thing = {"sku": "a", "price": 1}
    assert client.post(path, json=thing).status_code == 400
    assert client.post(f"{path}?policy=update", json=thing).status_code == 404
    first = client.post(f"{path}?policy=insert", json=thing).json()
    assert client.post(f"{path}?policy=insert", json=thing).status_code == 409
    second = client.post(f"{path}?policy=upsert", json={"sku": "a", "price": 2}).json()
    assert second["object_id"] == first["object_id"] and second["price"] == 2
    assert client.post(f"{path}?policy=insert", json={"price": 1}).status_code == 422
    assert client.get(path).json()["pagination"]["total"] == 1


def test_a_unique_key_is_as_long_as_every_database_can_keep(client: TestClient, namespace: dict[str, Any]) -> None:
    path = keyed_bucket(client, default_policy="insert")
    digits = Random(1).randbytes(2000).hex()
    assert client.post(path, json={"sku": digits[:2496]}).status_code == 200
    refused = client.post(path, json={"sku": digits[:2497]})
    assert (refused.status_code, "2501 bytes; at most 2500" in refused.text) == (422, True)
    (made,) = client.get(path).json()["results"]
    assert client.patch(f"{path}/{made['object_id']}", json={"sku": digits}).status_code == 422


def test_an_idempotency_key_makes_one_object(client: TestClient, bucket: dict[str, Any]) -> None:
    path = f"/v1/buckets/{bucket['bucket_id']}/objects"
    body = {"idempotency_key": "k1", "price": 1}
    ids = {client.post(path, json=body).json()["object_id"] for _ in range(3)}
    assert len(ids) == 1
    (again,) = client.post(f"{path}/batch", json={"objects": [body]}).json()["succeeded"]
    assert again["replayed"] is True and again["replayed_by"] == "idempotency_key"
    assert client.get(f"/v1/buckets/{bucket['bucket_id']}").json()["object_count"] == 1


def test_metadata_is_taken_from_root_metadata_and_blobs_and_the_root_wins(client: TestClient, bucket: dict[str, Any]) -> None:
    blob = {"property": "product_text", "type": "text", "content": "x", "metadata": {"a": "blob", "b": "blob", "c": "blob"}}
    body = {"blobs": [blob], "metadata": {"a": "metadata", "b": "metadata"}, "a": "root", "object_id": "mine"}
    made = client.post(f"/v1/buckets/{bucket['bucket_id']}/objects", json=body).json()
    assert (made["a"], made["b"], made["c"]) == ("root", "metadata", "blob")
    assert made["object_id"].startswith("obj_")


def test_lists_filter_sort_search_select_and_page_to_the_end(client: TestClient, bucket: dict[str, Any]) -> None:
    path = f"/v1/buckets/{bucket['bucket_id']}/objects"
    client.post(f"{path}/batch", json={"objects": [{"price": n, "title": f"Thing {n}", "nested": {"n": n}} for n in range(25)]})
    query = {
        "filters": {"AND": [{"field": "metadata.price", "operator": "gte", "value": 20}]},
        "sort": {"field": "price", "direction": "desc"},
    }
    found = client.post(f"{path}/list", json=query).json()
    assert [one["price"] for one in found["results"]] == [24, 23, 22, 21, 20]
    assert found["pagination"]["total"] == 5
    seen: list[int] = []
    cursor = None
    for _ in range(10):
        page = client.post(f"{path}/list", json={"limit": 10, "cursor": cursor}).json()
        seen += [one["price"] for one in page["results"]]
        cursor = page["pagination"]["next_cursor"]
        client.post(path, json={"price": 100 + len(seen)})  # what comes meanwhile moves no page
        if cursor is None:
            break
    assert sorted(seen) == list(range(25))
    assert client.post(f"{path}/list", json={"search": "thing 7"}).json()["pagination"]["total"] == 1
    (one,) = client.post(f"{path}/list", json={"search": "thing 7", "select": ["title", "nested.n"]}).json()["results"]
    assert set(one) == {"object_id", "bucket_id", "status", "title", "nested"}


def test_deleting_an_object_deletes_the_file_we_kept(client: TestClient, warehouse: Warehouse, bucket: dict[str, Any]) -> None:
    path = f"/v1/buckets/{bucket['bucket_id']}/objects"
    blob = {"property": "hero_image", "type": "image", "data": "data:image/png;base64,aGVsbG8="}
    made = client.post(path, json={"blobs": [blob]}).json()
    with warehouse.catalog.reading() as records:
        (stored,) = records.objects.named([made["object_id"]]).values()
    key = stored.blobs[0].managed
    assert key is not None and warehouse.blobs.head(key) is not None
    assert client.delete(f"{path}/{made['object_id']}").status_code == 204
    assert warehouse.blobs.head(key) is None


def test_a_file_that_is_there_is_not_uploaded_twice(client: TestClient, bucket: dict[str, Any]) -> None:
    import hashlib

    path = f"/v1/buckets/{bucket['bucket_id']}/uploads"
    body = {"filename": "a.jpg", "content_type": "image/jpeg", "file_hash": hashlib.sha256(b"same").hexdigest()}
    first = client.post(path, json=body).json()
    client.put(first["presigned_url"], content=b"same")
    made = client.post(f"{path}/{first['upload_id']}/confirm").json()
    second = client.post(path, json=body).json()
    assert second["is_duplicate"] and second["presigned_url"] is None
    assert second["duplicate_of_upload_id"] == first["upload_id"] and second["existing_object_id"] == made["object_id"]
    blob = {"property": "hero_image", "type": "image", "upload_id": first["upload_id"]}
    copy = client.post(f"/v1/buckets/{bucket['bucket_id']}/objects", json={"blobs": [blob]}).json()
    assert copy["blobs"][0]["details"]["size_bytes"] == 4
