"""Google Cloud Storage, against fake-gcs-server and scripted answers."""

import base64
import json
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mixpeek_dagster.errors import AccessDenied, BadListing, Changed, Invalid, ProviderDown, WrongConnection
from mixpeek_dagster.storage import gcs
from mixpeek_dagster.storage.connect import open_source
from mixpeek_dagster.storage.gcs import GCSSource
from mixpeek_dagster.storage.http import Backoff
from tests.storage.contract import ProviderContract, World, listing
from tests.storage.scripted import Answer, Asked, Scripted, scripted
from tests.storage.worlds import account_file, allow, new_name


def call(url: str, method: str, body: bytes | None = None, content_type: str = "application/octet-stream") -> None:
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": content_type})
    urllib.request.urlopen(request, timeout=10).close()


def gcs_world(url: str, prefix: str = "") -> World:
    bucket = new_name("gcs")
    call(f"{url}/storage/v1/b?project=test", "POST", json.dumps({"name": bucket}).encode(), "application/json")

    def put(key: bytes, body: bytes) -> None:
        kind = "image/jpeg" if key.endswith(b".jpg") else "application/octet-stream"
        name = quote(prefix.encode() + key, safe="")
        call(f"{url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", "POST", body, kind)

    if prefix:
        put(b"", b"")  # the folder marker itself; removed again below
    source = open_source(
        "gcs", {"bucket": bucket, "endpoint_url": url}, source_path="/" + prefix, settings=allow(url.removeprefix("http://"))
    )
    world = World(
        source=source,
        put=put,
        delete=lambda key: call(f"{url}/storage/v1/b/{bucket}/o/{quote(prefix.encode() + key, safe='')}", "DELETE"),
        prefix=prefix.encode(),
    )
    if prefix:
        world.delete(b"")
    return world


class TestFakeGCS(ProviderContract):
    impossible = frozenset({"not utf-8"})

    @pytest.fixture
    def world(self, fake_gcs: str) -> World:
        return gcs_world(fake_gcs)


class TestFakeGCSBelowAPrefix(ProviderContract):
    impossible = frozenset({"not utf-8"})

    @pytest.fixture
    def world(self, fake_gcs: str) -> World:
        return gcs_world(fake_gcs, "vid eos/2026/")


def test_a_missing_bucket_is_a_wrong_connection_also_for_a_single_file(fake_gcs: str) -> None:
    settings = allow(fake_gcs.removeprefix("http://"))
    source = open_source("google", {"endpoint_url": fake_gcs}, source_path="gs://no-such-bucket/", settings=settings)
    with pytest.raises(WrongConnection):
        source.check()
    with pytest.raises(WrongConnection):
        source.head(b"a.txt")


def source_of(server: Scripted, **config: Any) -> GCSSource:
    given = {"bucket": "b", "endpoint_url": server.url, **config}
    source = open_source("gcs", given, source_path="", settings=allow(server.host))
    assert isinstance(source, GCSSource)
    source._http.backoff = Backoff(sleep=lambda _s: None)
    return source


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def account(key: rsa.RSAPrivateKey) -> dict[str, str]:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    return {"client_email": "a@b", "private_key": pem, "private_key_id": "k1", "token_uri": "http://169.254.169.254/steal"}


def test_a_service_account_gets_a_token_with_a_signed_assertion(key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = iter(["first", "second"])

    def answer(asked: Asked) -> Answer:
        if asked.path == "/token":
            return Answer(body=json.dumps({"access_token": next(tokens), "expires_in": 3600}).encode())
        fresh = asked.headers["Authorization"] == "Bearer second"
        return Answer(body=b'{"items": []}') if fresh else Answer(401, b'{"error": {"message": "old"}}')

    with scripted(answer) as server:
        monkeypatch.setattr(gcs, "TOKEN_URL", f"{server.url}/token")
        source = source_of(server, credentials={"service_account_json": account(key)})
        source.check()
        source.check()
        asked = server.asked
        assert [one.path for one in asked] == ["/token", "/storage/v1/b/b/o", "/token", "/storage/v1/b/b/o", "/storage/v1/b/b/o"]
        assertion = parse_qs(asked[0].body.decode())["assertion"][0]
        signed, _, signature = assertion.rpartition(".")
        padded = signature + "=" * (-len(signature) % 4)
        key.public_key().verify(base64.urlsafe_b64decode(padded), signed.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_a_clock_that_is_off_is_named(key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values."
    body = json.dumps({"error": "invalid_grant", "error_description": words}).encode()
    with scripted(lambda _asked: Answer(400, body)) as server:
        monkeypatch.setattr(gcs, "TOKEN_URL", f"{server.url}/token")
        with pytest.raises(AccessDenied, match=r"iat and exp values.* this machine's clock"):
            source_of(server, credentials={"service_account_json": account(key)}).check()


def test_refused_credentials_are_denied(key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(lambda _asked: Answer(400, b'{"error": "invalid_grant"}')) as server:
        monkeypatch.setattr(gcs, "TOKEN_URL", f"{server.url}/token")
        with pytest.raises(AccessDenied, match="invalid_grant"):
            source_of(server, credentials={"type": "service_account", "service_account_json": account(key)}).check()


def test_broken_credentials_are_invalid_and_not_shown() -> None:
    for credentials in ({"service_account_json": "PRIVATE"}, {"service_account_json": {"private_key": "PRIVATE"}}, {}):
        with pytest.raises(Invalid) as raised:
            open_source("gcs", {"bucket": "b", "credentials": credentials}, source_path="", settings=allow())
        assert "PRIVATE" not in str(raised.value)
    with pytest.raises(Invalid, match="MIXPEEK_AMBIENT_CREDENTIALS"):
        open_source("gcs", {"bucket": "b"}, source_path="", settings=allow())


def test_requests_to_a_bucket_whose_requesters_pay_name_the_project_that_pays() -> None:
    def answer(asked: Asked) -> Answer:
        if asked.query.get("userProject") != "payer":
            return Answer(400, b'{"error": {"message": "Bucket is a requester pays bucket but no user project provided."}}')
        item = {"name": "k", "size": "1", "generation": "1"}
        if asked.query.get("alt") == "media":
            return Answer(body=b"x")
        return Answer(body=json.dumps({"items": [item]} if asked.path.endswith("/o") else item).encode())

    with scripted(answer) as server:
        for config in ({}, {"project_id": "payer"}):
            with pytest.raises(WrongConnection, match="requester_pays"):
                source_of(server, **config).check()
        source = source_of(server, project_id="payer", requester_pays=True)
        source.check()
        assert source.head(b"k") is not None
    with pytest.raises(Invalid, match="project_id"):
        open_source("gcs", {"bucket": "b", "requester_pays": True}, source_path="", settings=allow())


LIES = [
    b"",
    b"<html>",
    b"[]",
    b'{"items": [{"size": "1"}]}',
    b'{"items": [{"name": "a", "size": "x"}]}',
    b'{"items": [{"name": "a"}',
    b'{"items": [{"name": "a", "size": 1e999}]}',
    b"[" * 200_000,
]


@pytest.mark.parametrize("body", LIES)
def test_an_answer_that_cannot_be_true_is_a_bad_listing(body: bytes) -> None:
    with scripted(lambda _asked: Answer(body=body)) as server, pytest.raises(BadListing):
        source_of(server).list_page()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"name": "k", "size": "x"}', b'{"name": "other"}', b"[" * 200_000]
)
def test_an_answer_that_is_no_file_is_down_and_says_so(body: bytes) -> None:
    with scripted(lambda _asked: Answer(body=body)) as server, pytest.raises(ProviderDown, match="endpoint_url"):
        source_of(server).head(b"k")


def test_a_token_that_leads_to_itself_is_a_bad_listing() -> None:
    with scripted(lambda _asked: Answer(body=b'{"nextPageToken": "same"}')) as server, pytest.raises(BadListing, match="circle"):
        listing(source_of(server))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, b'{"error": {"message": "denied"}}', AccessDenied),
        (404, b"<html>proxy</html>", ProviderDown),
        (503, b"", ProviderDown),
        (429, b"", ProviderDown),
        (412, b"{}", Changed),
        (500, b"[" * 60_000, ProviderDown),
    ],
)
def test_errors_are_mapped(status: int, body: bytes, kind: type[Exception]) -> None:
    with scripted(lambda _asked: Answer(status, body)) as server:
        source = source_of(server)
        for ask in (lambda: source.head(b"k"), lambda: source.open(b"k").__enter__()):
            with pytest.raises(kind):
                ask()


def test_the_machines_own_account_may_be_a_key_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    settings = allow(ambient_credentials=True, google_credentials=file)
    for text in (None, "{}", "not json"):
        if text is not None:
            file.write_text(text)
        with pytest.raises(Invalid, match="GOOGLE_APPLICATION_CREDENTIALS"):
            open_source("gcs", {"bucket": "b"}, source_path="", settings=settings)
    file.write_text(json.dumps(account_file()))
    with scripted(lambda _asked: Answer(body=b'{"access_token": "of the file", "expires_in": 3600}')) as server:
        monkeypatch.setattr(gcs, "TOKEN_URL", f"{server.url}/token")
        source = open_source(
            "gcs", {"bucket": "b"}, source_path="", settings=replace(settings, allowed_hosts=frozenset({server.host}))
        )
        assert isinstance(source, GCSSource)
        assert source._token is not None
        assert source._token.value() == "of the file"
    with pytest.raises(Invalid, match="MIXPEEK_AMBIENT_CREDENTIALS"):
        open_source("gcs", {"bucket": "b"}, source_path="", settings=allow(google_credentials=file))


def test_the_machines_own_account_is_the_operators_to_lend(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(asked: Asked) -> Answer:
        assert asked.headers["Metadata-Flavor"] == "Google"
        return Answer(body=b'{"access_token": "own", "expires_in": 3600}')

    with scripted(answer) as server:
        monkeypatch.setattr(gcs, "METADATA_HOST", server.host)
        source = open_source("gcs", {"bucket": "b"}, source_path="", settings=allow(ambient_credentials=True))
        assert isinstance(source, GCSSource)
        assert source._token is not None
        assert source._token.value() == source._token.value() == "own"
        assert len(server.asked) == 1
