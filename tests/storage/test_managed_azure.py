"""The warehouse's own files at Azure Blob Storage: azurite, which checks signatures, and scripted answers."""

import base64
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import urllib3

from mixpeek_dagster.errors import AccessDenied, Changed, Invalid, ProviderDown, WrongConnection
from mixpeek_dagster.storage import managed_azure
from mixpeek_dagster.storage.azure_sas import AccountKey, Login, OwnIdentity
from mixpeek_dagster.storage.blobs import BlobStore
from mixpeek_dagster.storage.http import Backoff, Http
from mixpeek_dagster.storage.managed_azure import AzureBlobs
from mixpeek_dagster.storage.stores import open_store
from mixpeek_dagster.storage.tokens import BearerToken
from tests.storage.azure_machine import entra_token
from tests.storage.scripted import Answer, Asked, scripted
from tests.storage.test_azure import ACCOUNT, KEY, Account
from tests.storage.test_managed import BlobContract
from tests.storage.worlds import allow, new_name

Open = Callable[..., AzureBlobs]
"""Makes a container and opens it."""

AT_ONCE = Backoff(sleep=lambda _s: None)


def blobs_in(url: str, container: str, *, secret: bytes | None = None, login: Login | None = None, **options: Any) -> AzureBlobs:
    http = Http(allowed_hosts={"127.0.0.1"}, backoff=AT_ONCE)
    login = login or AccountKey(ACCOUNT, secret or base64.b64decode(KEY), http=http)
    return AzureBlobs(container, prefix="managed/", account=ACCOUNT, login=login, base_url=url, **options)


def azure_blobs(url: str, **options: Any) -> AzureBlobs:
    container = new_name("blobs")
    Account(url).call("PUT", f"/{container}?restype=container")
    return blobs_in(url, container, **options)


@pytest.fixture(params=["key", "identity"])
def open_blobs(request: pytest.FixtureRequest) -> Open:
    """With the account's key, and with an identity."""
    if request.param == "key":
        return partial(azure_blobs, request.getfixturevalue("azurite"))
    url = request.getfixturevalue("trusted_azurite").url
    http = Http(allowed_hosts={"127.0.0.1"}, backoff=AT_ONCE)
    return partial(azure_blobs, url, login=OwnIdentity(BearerToken(entra_token), http=http, base_url=url))


class TestAzurite(BlobContract):
    @pytest.fixture
    def blobs(self, open_blobs: Open) -> BlobStore:
        return open_blobs()


def send(url: str, body: bytes | None, method: str, headers: dict[str, str] | None = None) -> urllib3.BaseHTTPResponse:
    return urllib3.request(method, url, body=body, headers=headers, retries=False)


def test_a_presigned_put_makes_one_file_once(open_blobs: Open) -> None:
    blobs = open_blobs()
    signed = blobs.presign_put("up/x.png", expires_s=60, content_type="image/png", size=5)
    assert signed.headers == {"Content-Type": "image/png", "x-ms-blob-type": "BlockBlob"}
    assert signed.expires_at > datetime.now(UTC)
    assert send(signed.url, b"12345", "PUT", {"Content-Type": "image/png"}).status == 400, "Azure wants to know the kind of blob"
    assert send(signed.url.replace("x.png", "y.png"), b"12345", "PUT", signed.headers).status == 403
    assert send(signed.url.replace("sp=c", "sp=cw"), b"12345", "PUT", signed.headers).status == 403
    put = send(signed.url, b"12345", "PUT", signed.headers)
    assert put.status == 201
    assert send(signed.url, b"54321", "PUT", signed.headers).status == 403, "it makes files, and replaces none"
    for method in ("GET", "DELETE"):
        assert send(signed.url, None, method).status == 403
    found = blobs.head("up/x.png")
    assert found is not None
    assert (found.size, found.content_type, found.etag) == (5, "image/png", put.headers["ETag"].strip('"'))
    with pytest.raises(Invalid, match="too large"):
        blobs.presign_put("up/y.png", expires_s=60, size=10, max_bytes=9)


def test_a_presigned_url_ends(open_blobs: Open) -> None:
    late = open_blobs(clock=lambda: datetime.now(UTC) - timedelta(seconds=90))
    signed = late.presign_put("x.png", expires_s=60)
    assert send(signed.url, b"1", "PUT", signed.headers).status == 403


def test_a_file_is_read_under_another_name(open_blobs: Open) -> None:
    blobs = open_blobs()
    blobs.put("x.png", io.BytesIO(b"12345"), content_type="image/png")
    reading = blobs.presign_get("x.png", expires_s=60, content_type="image/jpeg", filename='a"b.png')
    answer = send(reading.url, None, "GET")
    assert (answer.status, answer.data) == (200, b"12345")
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%22b.png"
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert send(reading.url, b"1", "PUT", {"x-ms-blob-type": "BlockBlob"}).status == 403


def test_a_wrong_key_and_a_missing_container_are_told_apart(azurite: str) -> None:
    with pytest.raises(AccessDenied):
        azure_blobs(azurite, secret=b"wrong").put("a.bin", io.BytesIO(b"x"))
    missing = blobs_in(azurite, "no-such-container")
    with pytest.raises(WrongConnection):
        missing.put("a.bin", io.BytesIO(b"x"))
    with pytest.raises(WrongConnection):
        missing.head("a.bin")
    with pytest.raises(ProviderDown):
        blobs_in("http://127.0.0.1:9/devstoreaccount1", "c").put("a.bin", io.BytesIO(b"x"))


def test_a_copy_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def states(*states: str) -> list[Answer]:
        return [Answer(202 if not number else 200, b"", {"x-ms-copy-status": state}) for number, state in enumerate(states)]

    answers: list[Answer] = []

    def answer(asked: Asked) -> Answer:
        if asked.method == "PUT":
            assert asked.headers["x-ms-source-if-match"] == '"0x1"'
        return answers.pop(0)

    monkeypatch.setattr("mixpeek_dagster.storage.managed_azure.time.sleep", lambda _s: None)
    with scripted(answer) as server:
        blobs = blobs_in(server.url, "c")
        answers += states("pending", "pending", "success")
        blobs.copy("a.bin", "b.bin", etag="0x1")
        assert [one.method for one in server.asked] == ["PUT", "HEAD", "HEAD"]
        answers += states("pending", "failed")
        with pytest.raises(Changed):
            blobs.copy("a.bin", "b.bin", etag="0x1")
        monkeypatch.setattr(managed_azure, "COPIED_WITHIN_S", -1.0)
        answers += states("pending")
        with pytest.raises(ProviderDown, match="still copying"):
            blobs.copy("a.bin", "b.bin", etag="0x1")


def test_without_an_account_and_its_key_there_is_no_store() -> None:
    with pytest.raises(Invalid, match="AZURE_STORAGE_ACCOUNT"):
        open_store("az://c", settings=allow(azure_key=KEY))
    with pytest.raises(Invalid, match="AZURE_STORAGE_KEY is not") as raised:
        open_store("az://c", settings=allow(azure_account="myaccount", azure_key="SECRET%"))
    assert "SECRET" not in str(raised.value)
    with pytest.raises(Invalid, match="storage account 'My Account'"):
        open_store("az://c?account_name=My%20Account", settings=allow(azure_key=KEY))
    signed = open_store("az://c/a/b?account_name=other", settings=allow(azure_account="myaccount", azure_key=KEY))
    url = signed.presign_put("x", expires_s=60).url
    assert url.startswith("https://other.blob.core.windows.net/c/a/b/x?sv=")
    assert "&spr=https&" in url


@pytest.mark.parametrize("url", ["az://", "az:///a", "az://c?region=x", "gs://b?account_name=x", "s3://b?key=x", "ftp://b", "b"])
def test_another_form_of_url_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="MIXPEEK_BLOBS"):
        open_store(url, settings=allow(azure_account="abc", azure_key=KEY))
