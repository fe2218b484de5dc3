"""Uploads that clients put into the operator's bucket themselves, at each provider; and uploads nobody confirms."""

import base64
import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import botocore.session
import pytest
import urllib3
from fastapi.testclient import TestClient

from mixpeek_dagster.models.values import utc_now
from mixpeek_dagster.pipeline.uploads import sweep_uploads
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.settings import AzureIdentity
from mixpeek_dagster.storage import gcs, managed_s3
from mixpeek_dagster.storage.gcs_iam import KeptAccount
from tests.api.conftest import open_warehouse
from tests.servers import S3Server, TlsServer, s3_client
from tests.storage.azure_machine import entra_token
from tests.storage.google_stub import GoogleStub, google_machine
from tests.storage.scripted import Answer, scripted
from tests.storage.test_azure import ACCOUNT, KEY, Account
from tests.storage.test_gcs import call
from tests.storage.worlds import account_file, new_name

BODY = b"a text of 23 characters"


class Place(NamedTuple):
    """A provider that holds uploads. `refuses`: what was not announced is not taken at all. `once`: a URL replaces no file.
    `plain`: it takes a PUT without headers of its own."""

    settings: dict[str, Any]
    url: str
    refuses: bool = False
    once: bool = False
    plain: bool = True


@pytest.fixture
def s3_place(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> Place:
    bucket = new_name("uploads")
    client: Any = s3_client(seaweedfs)
    client.create_bucket(Bucket=bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_access_key)
    monkeypatch.setattr(managed_s3, "aws_session", botocore.session.Session)  # the process's own may have looked already
    url = f"s3://{bucket}/warehouse?region={seaweedfs.region}&endpoint_url={seaweedfs.url}"
    return Place({"blobs_url": url}, seaweedfs.url, refuses=True)


@pytest.fixture
def gcs_place(fake_gcs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """fake-gcs-server checks neither signatures nor conditions: tests/storage/test_managed_gcs.py does."""
    bucket = new_name("uploads")
    call(f"{fake_gcs}/storage/v1/b?project=test", "POST", json.dumps({"name": bucket}).encode(), "application/json")
    (tmp_path / "key.json").write_text(json.dumps(account_file()))
    with scripted(lambda _asked: Answer(200, b'{"access_token": "secret", "expires_in": 3600}')) as tokens:
        monkeypatch.setattr(gcs, "TOKEN_URL", tokens.url)
        url = f"gs://{bucket}/warehouse?endpoint_url={fake_gcs}"
        yield Place({"blobs_url": url, "google_credentials": tmp_path / "key.json"}, fake_gcs)


@pytest.fixture
def gcs_machine_place(fake_gcs: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Without a key file, on a machine of Google's."""
    bucket = new_name("uploads")
    call(f"{fake_gcs}/storage/v1/b?project=test", "POST", json.dumps({"name": bucket}).encode(), "application/json")
    with google_machine(monkeypatch, GoogleStub()):
        yield Place({"blobs_url": f"gs://{bucket}/warehouse?endpoint_url={fake_gcs}"}, fake_gcs)


@pytest.fixture
def azure_place(azurite: str) -> Place:
    container = new_name("uploads")
    Account(azurite).call("PUT", f"/{container}?restype=container")
    settings = {"blobs_url": f"az://{container}/warehouse?endpoint_url={azurite}", "azure_account": ACCOUNT, "azure_key": KEY}
    return Place(settings, azurite, once=True, plain=False)


@pytest.fixture
def azure_machine_place(trusted_azurite: TlsServer) -> Iterator[Place]:
    """Without the account's key, on a machine of Azure's."""
    container, url = new_name("uploads"), trusted_azurite.url
    Account(url).call("PUT", f"/{container}?restype=container")
    told = json.dumps({"access_token": entra_token().access_token, "expires_in": 3600}).encode()
    with scripted(lambda _asked: Answer(200, told)) as machine:
        identity = AzureIdentity(endpoint=machine.url, header="hush")
        settings = {
            "blobs_url": f"az://{container}/warehouse?endpoint_url={url}",
            "azure_account": ACCOUNT,
            "azure_identity": identity,
        }
        yield Place(settings, url, once=True, plain=False)


@pytest.fixture(params=["s3", "gcs", "gcs_machine", "azure", "azure_machine"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
def warehouse(tmp_path: Path, place: Place) -> Iterator[Warehouse]:
    warehouse = open_warehouse(tmp_path, **place.settings)
    yield warehouse
    warehouse.close()


def announce(client: TestClient, bucket: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"filename": "a.txt", "content_type": "text/plain", "file_size_bytes": len(BODY), **more}
    answer = client.post(f"/v1/buckets/{bucket['bucket_id']}/uploads", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def put(upload: dict[str, Any], body: bytes = BODY, *, headers: Mapping[str, str] | None = None) -> int:
    """The status, which is 200 for each success."""
    sent = {**upload["required_headers"], **(headers or {})}
    status = urllib3.request("PUT", upload["presigned_url"], body=body, headers=sent, retries=False).status
    return 200 if status == 201 else status


def confirm(client: TestClient, upload: dict[str, Any], **body: Any) -> Any:
    return client.post(f"/v1/uploads/{upload['upload_id']}/confirm", json=body)


def read(client: TestClient, bucket: dict[str, Any], object_id: str) -> bytes:
    """The bytes of an object's file."""
    path = f"/v1/buckets/{bucket['bucket_id']}/objects/{object_id}?return_presigned_urls=true"
    return client.get(client.get(path).json()["blobs"][0]["presigned_url"]).content


def test_a_file_goes_straight_to_the_bucket_and_only_as_announced(
    client: TestClient, bucket: dict[str, Any], place: Place
) -> None:
    upload = announce(client, bucket, file_hash=hashlib.sha256(BODY).hexdigest())
    assert upload["presigned_url"].startswith(place.url)
    if place.refuses:
        assert put(upload, BODY + b"!") == 403
        assert put(upload, headers={"Content-Type": "text/html"}) == 403
        assert confirm(client, upload).status_code == 400  # nothing is there yet
    else:
        assert put(upload, BODY + b"!") == 200
        assert f"has {len(BODY) + 1} bytes, not {len(BODY)}" in confirm(client, upload).json()["error"]["message"]
    assert put(upload) == 200
    answer = confirm(client, upload)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["status"], answer.json()["file_size_bytes"]) == ("COMPLETED", len(BODY))
    found = client.get(f"/v1/buckets/{bucket['bucket_id']}/objects/{answer.json()['object_id']}")
    assert found.json()["blobs"][0]["details"]["size_bytes"] == len(BODY)
    assert read(client, bucket, answer.json()["object_id"]) == BODY


def test_the_quickstarts_upload_works_as_it_stands(
    client: TestClient, bucket: dict[str, Any], tmp_path: Path, place: Place
) -> None:
    """A plain `curl -X PUT --data-binary` that sends the Content-Type and nothing else, of a size that nobody announced; where the
    provider needs more, the answer says what."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl: apt-get install curl")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(BODY)
    body = {"filename": "photo.jpg", "content_type": "image/jpeg"}
    upload = client.post(f"/v1/buckets/{bucket['bucket_id']}/uploads", json=body).json()
    command = [curl, "-sS", "-o", str(tmp_path / "answer"), "-w", "%{http_code}", "-X", "PUT", upload["presigned_url"]]
    if not place.plain:
        assert upload["required_headers"] == {"Content-Type": "image/jpeg", "x-ms-blob-type": "BlockBlob"}
        command += ["-H", "x-ms-blob-type: BlockBlob"]
    sent = subprocess.run(
        [*command, "-H", "Content-Type: image/jpeg", "--data-binary", f"@{photo}"], capture_output=True, text=True, check=True
    )
    assert sent.stdout in ("200", "201"), sent
    assert confirm(client, upload).json()["status"] == "COMPLETED"


def test_the_etag_that_the_provider_answers_with_is_the_one_to_confirm(client: TestClient, bucket: dict[str, Any]) -> None:
    upload = announce(client, bucket)
    answer = urllib3.request("PUT", upload["presigned_url"], body=BODY, headers=upload["required_headers"], retries=False)
    etag = answer.headers.get("ETag") or base64.b64decode(answer.json()["md5Hash"]).hex()  # as Google's, but fake-gcs-server's
    confirmed = confirm(client, upload, etag=etag)
    assert (confirmed.status_code, confirmed.json()["etag"]) == (200, etag.strip('"'))


def test_a_confirmed_file_stays_what_it_was_whatever_its_url_is_used_for(
    client: TestClient, bucket: dict[str, Any], warehouse: Warehouse
) -> None:
    upload = announce(client, bucket)
    assert put(upload) == 200
    object_id = confirm(client, upload).json()["object_id"]
    assert put(upload, BODY[::-1]) == 200, "the URL is good for an hour"
    assert read(client, bucket, object_id) == BODY
    with warehouse.catalog.reading() as records:
        stored = records.uploads.get(upload["upload_id"])
    assert stored.key != stored.landing_key
    warehouse.clock = lambda: utc_now() + timedelta(hours=2.5)
    assert [sweep_uploads(warehouse).uploads for _ in range(2)] == [0, 0]
    assert warehouse.blobs.head(stored.landing_key) is None, "what came late is swept"
    assert read(client, bucket, object_id) == BODY
    with warehouse.catalog.reading() as records:
        assert records.uploads.late(before=warehouse.now(), limit=10, completed=True) == []


def test_a_file_that_is_put_again_while_it_is_confirmed_is_not_taken_for_the_first(
    client: TestClient, bucket: dict[str, Any], warehouse: Warehouse, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = announce(client, bucket)
    assert put(upload) == 200
    copy = warehouse.blobs.copy

    def late(key: str, to: str, *, etag: str) -> None:
        monkeypatch.setattr(warehouse.blobs, "copy", copy)
        assert put(upload, BODY[::-1]) == (403 if place.once else 200)
        copy(key, to, etag=etag)

    monkeypatch.setattr(warehouse.blobs, "copy", late)
    if place.once:
        assert read(client, bucket, confirm(client, upload).json()["object_id"]) == BODY
        return
    answer = confirm(client, upload)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_state")
    object_id = confirm(client, upload).json()["object_id"]
    assert read(client, bucket, object_id) == BODY[::-1]


def test_a_file_that_is_not_what_was_announced_is_removed_and_can_be_put_again(
    client: TestClient, bucket: dict[str, Any]
) -> None:
    upload = announce(client, bucket, file_hash=hashlib.sha256(BODY).hexdigest())
    assert put(upload, BODY[::-1]) == 200
    assert "SHA-256" in confirm(client, upload).json()["error"]["message"]
    assert put(upload) == 200
    assert confirm(client, upload, etag="another").status_code == 400
    assert put(upload) == 200
    assert confirm(client, upload).json()["status"] == "COMPLETED"


def test_uploads_that_nobody_confirms_are_given_up_with_their_files(
    client: TestClient, bucket: dict[str, Any], warehouse: Warehouse
) -> None:
    kept, left, never = (announce(client, bucket) for _ in range(3))
    put(kept)
    put(left)
    assert confirm(client, kept).status_code == 200
    for hours, swept in ((1.5, 0), (2.5, 2), (3.0, 0)):
        warehouse.clock = lambda hours=hours: utc_now() + timedelta(hours=hours)
        assert sweep_uploads(warehouse).uploads == swept
        client.post(f"/v1/buckets/{bucket['bucket_id']}/uploads/list", json={})  # expires what is late, which must not hide it
    with warehouse.catalog.reading() as records:
        assert warehouse.blobs.head(records.uploads.get(kept["upload_id"]).key) is not None
    assert warehouse.blobs.head(left["s3_key"]) is None
    with warehouse.catalog.reading() as records:
        assert records.uploads.get(never["upload_id"]).status == "FAILED"


@pytest.mark.parametrize("place", ["gcs_machine"], indirect=True)
def test_the_urls_of_many_uploads_are_signed_at_once(
    client: TestClient, bucket: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    two, sign = threading.Barrier(2, timeout=20), KeptAccount.sign

    def together(account: KeptAccount, data: bytes) -> bytes:
        two.wait()
        return sign(account, data)

    monkeypatch.setattr(KeptAccount, "sign", together)
    files = [{"filename": f"{number}.txt", "content_type": "text/plain", "file_size_bytes": len(BODY)} for number in range(6)]
    uploads = client.post(f"/v1/buckets/{bucket['bucket_id']}/uploads/batch", json={"uploads": files}).json()["uploads"]
    assert [upload["filename"] for upload in uploads] == [file["filename"] for file in files]
    assert all(upload["s3_key"] in upload["presigned_url"] for upload in uploads)
    listed = client.post(f"/v1/buckets/{bucket['bucket_id']}/uploads/list", json={"return_presigned_urls": True}).json()[
        "results"
    ]
    assert all(upload["s3_key"] in upload["presigned_url"] for upload in listed)
