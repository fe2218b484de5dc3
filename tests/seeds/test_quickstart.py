"""Every request of the quickstart page (seed 003) as it is written there, host and key apart, and every field the page names."""

import time
from typing import Any

import pytest
from fastapi.testclient import TestClient

NAMESPACE = {
    "namespace_name": "production",
    "feature_extractors": [{"feature_extractor_name": "multimodal_extractor", "version": "v1"}],
}
BUCKET = {
    "bucket_name": "product-catalog",
    "bucket_schema": {
        "properties": {"product_text": {"type": "text", "required": True}, "hero_image": {"type": "image"}},
    },
}
SYNC = {
    "provider": "s3",
    "connection": {
        "bucket_name": "my-source-bucket",
        "region": "us-east-1",
        "credentials": {"access_key_id": "AKIA...", "secret_access_key": "..."},
    },
    "sync_config": {"source_path": "/videos/", "sync_mode": "incremental", "polling_interval": 3600},
}
OBJECT = {
    "key_prefix": "/products",
    "blobs": [
        {"property": "hero_image", "type": "image", "url": "https://example.com/photo.jpg"},
        {"property": "product_text", "type": "text", "content": "Wireless headphones"},
    ],
}
UPLOAD = {"filename": "photo.jpg", "content_type": "image/jpeg"}
KEYS = {"access_key_id": "a", "secret_access_key": "s"}
STATUSES = {
    "PENDING",
    "IN_PROGRESS",
    "PROCESSING",
    "COMPLETED",
    "FAILED",
    "CANCELED",
    "UNKNOWN",
    "SKIPPED",
    "DRAFT",
    "ACTIVE",
    "ARCHIVED",
    "SUSPENDED",
    "QUEUED",
}


def send(client: TestClient, path: str, body: Any = None) -> dict[str, Any]:
    response = client.post(path, json=body) if body is not None else client.post(path)
    assert response.status_code == 200, response.text
    assert response.headers["X-Request-Id"]
    return dict(response.json())


@pytest.fixture
def seed_bucket(client: TestClient) -> str:
    made = send(client, "/v1/namespaces", NAMESPACE)
    client.headers["X-Namespace"] = made["namespace_id"]
    return str(send(client, "/v1/buckets", BUCKET)["bucket_id"])


def test_a_namespace_is_set_up(client: TestClient) -> None:
    made = send(client, "/v1/namespaces", NAMESPACE)
    assert made["namespace_id"].startswith("ns_")
    assert made["namespace_name"] == "production"
    assert made["feature_extractors"][0]["feature_extractor_name"] == "multimodal_extractor"
    assert made["namespace_ready"] is True


@pytest.mark.parametrize("by", ["id", "name", "query"])
def test_a_bucket_is_made_in_the_namespace_named_by_header_or_query(client: TestClient, by: str) -> None:
    namespace = send(client, "/v1/namespaces", NAMESPACE)
    path = "/v1/buckets"
    if by == "query":
        path += "?namespace=production"
    else:
        client.headers["X-Namespace"] = namespace["namespace_id"] if by == "id" else "production"
    made = send(client, path, BUCKET)
    assert made["bucket_id"].startswith("bkt_")
    assert made["namespace_id"] == namespace["namespace_id"]
    assert made["bucket_schema"]["properties"]["product_text"] == {"type": "text", "required": True}
    assert made["bucket_schema"]["properties"]["hero_image"]["type"] == "image"


@pytest.mark.parametrize("blob_type", ["text", "image", "audio", "video", "json", "binary"])
def test_every_blob_type_of_the_page_is_accepted(client: TestClient, namespace: dict[str, Any], blob_type: str) -> None:
    body = {"bucket_name": blob_type, "bucket_schema": {"properties": {"file": {"type": blob_type}}}}
    assert send(client, "/v1/buckets", body)["bucket_schema"]["properties"]["file"]["type"] == blob_type


def test_a_sync_with_its_connection_inline_is_made_and_triggered(client: TestClient, seed_bucket: str) -> None:
    made = send(client, f"/v1/buckets/{seed_bucket}/syncs", SYNC)
    assert made["sync_id"] == made["sync_config_id"]
    assert made["sync_config"]["sync_mode"] == "incremental"
    assert made["sync_config"]["polling_interval"] == made["polling_interval_seconds"] == 3600
    assert made["sync_mode"] == "continuous", "the SDK reads no other word for it"
    assert made["status"] in STATUSES
    triggered = send(client, f"/v1/buckets/{seed_bucket}/syncs/{made['sync_id']}/trigger")
    assert triggered["sync_job_id"]
    assert "..." not in str(made["provider"]) and "secret_access_key" not in str(made)


@pytest.mark.parametrize(
    ("provider", "connection"),
    [
        (
            "s3",
            {
                "bucket_name": "b",
                "credentials": {**KEYS, "role_arn": "arn:aws:iam::123456789012:role/r", "external_id": "external"},
            },
        ),
        ("gcs", {"bucket": "b", "credentials": {"service_account_json": None}}),
        ("azure", {"container": "c", "credentials": {"account_name": "acct", "account_key": "a2V5"}}),
        ("r2", {"bucket_name": "b", "account_id": "0123abc", "credentials": KEYS}),
        ("backblaze", {"bucket_name": "b", "credentials": {"key_id": "a", "application_key": "s"}}),
        ("wasabi", {"bucket_name": "b", "region": "eu-central-1", "credentials": KEYS}),
        ("tigris", {"bucket_name": "b", "credentials": KEYS}),
        ("box", {"folder_id": "0", "credentials": {"client_id": "c", "client_secret": "s", "access_token": "t"}}),
        ("mux", {"credentials": {"access_token_id": "a", "access_token_secret": "s"}}),
        (
            "supabase",
            {"bucket_name": "b", "project_ref": "proj", "region": "us-east-1", "credentials": KEYS},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_of_the_ten_providers_is_accepted(
    client: TestClient, seed_bucket: str, provider: str, connection: dict[str, Any]
) -> None:
    from mixpeek_dagster import plugins

    if {"azure": "azure_blob"}.get(provider, provider) not in plugins.known("providers"):
        pytest.skip(f"provider {provider} is not there yet")
    if provider == "gcs":
        connection = {"bucket": "b", "credentials": {"service_account_json": service_account()}}
    body = {
        "provider": provider,
        "connection": connection,
        "sync_config": {"source_path": {"box": "0", "mux": "mux://"}.get(provider, "/videos/")},
    }
    response = client.post(f"/v1/buckets/{seed_bucket}/syncs", json=body)
    if response.status_code == 500 and "optional dependency" in response.text:
        pytest.skip(response.json()["error"]["message"])
    assert response.status_code == 200, response.text
    assert response.json()["provider_type"] in {"s3", "gcs", "azure_blob", "backblaze", "tigris", "box", "mux", "supabase"}


def service_account() -> dict[str, str]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    uri = "https://oauth2.googleapis.com/token"
    return {
        "type": "service_account",
        "client_email": "a@b.iam.gserviceaccount.com",
        "private_key": pem,
        "project_id": "p",
        "token_uri": uri,
    }


def test_an_object_is_registered_by_url_and_content(client: TestClient, seed_bucket: str) -> None:
    made = send(client, f"/v1/buckets/{seed_bucket}/objects", OBJECT)
    assert made["object_id"].startswith("obj_")
    assert made["bucket_id"] == seed_bucket
    assert made["key_prefix"] == "/products"
    image, text = made["blobs"]
    assert image["property"] == "hero_image" and image["properties"]["url"] == "https://example.com/photo.jpg"
    assert text["property"] == "product_text" and text["properties"]["content"] == "Wireless headphones"
    assert made["status"] == "PENDING"


@pytest.mark.parametrize("scope", ["un-scoped", "of its bucket"])
def test_a_photo_is_put_to_the_presigned_url_and_confirmed(client: TestClient, seed_bucket: str, scope: str) -> None:
    upload = send(client, f"/v1/buckets/{seed_bucket}/uploads", UPLOAD)
    assert upload["upload_id"].startswith("upl_")
    assert upload["blob_property"] == "hero_image", "the only property for a JPEG, though its name is photo"
    put = client.put(
        upload["presigned_url"], content=b"\xff\xd8\xff", headers={"Content-Type": "image/jpeg", "Authorization": ""}
    )
    assert put.status_code == 200 and put.headers["ETag"]
    path = "/v1/uploads" if scope == "un-scoped" else f"/v1/buckets/{seed_bucket}/uploads"
    confirmed = send(client, f"{path}/{upload['upload_id']}/confirm")
    assert confirmed["status"] == "COMPLETED"
    made = client.get(f"/v1/buckets/{seed_bucket}/objects/{confirmed['object_id']}?return_presigned_urls=true").json()
    assert made["blobs"][0]["details"]["filename"] == "photo.jpg"
    fetched = client.get(made["blobs"][0]["presigned_url"], headers={"Authorization": ""})
    assert fetched.content == b"\xff\xd8\xff" and fetched.headers["Content-Type"] == "image/jpeg"


def test_batch_uploads_are_announced_sent_and_confirmed_together(client: TestClient, seed_bucket: str) -> None:
    made = send(client, f"/v1/buckets/{seed_bucket}/uploads/batch", {"uploads": [UPLOAD, {**UPLOAD, "filename": "b.jpg"}]})
    assert made["total"] == 2
    for number, upload in enumerate(made["uploads"]):
        client.put(upload["presigned_url"], content=bytes([number]) * 10, headers={"Content-Type": "image/jpeg"})
    confirmations = [{"upload_id": upload["upload_id"]} for upload in made["uploads"]]
    task = send(client, f"/v1/buckets/{seed_bucket}/uploads/confirm/batch", {"confirmations": confirmations})
    assert task["task_id"] and task["confirmations_count"] == 2
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        listed = send(client, f"/v1/buckets/{seed_bucket}/uploads/list")
        if listed["stats"]["uploads_by_status"] == {"COMPLETED": 2}:
            break
    assert [one["object_id"] is not None for one in listed["results"]] == [True, True]
