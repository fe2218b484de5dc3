"""URLs of Google Cloud Storage from machines without a key file: IAM signs, and the signatures are held against its public key."""

import base64
import json
from datetime import UTC, datetime
from functools import partialmethod
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from mixpeek_dagster.errors import AccessDenied, ProviderDown, ProviderError, WrongConnection
from mixpeek_dagster.storage import gcs, gcs_iam
from mixpeek_dagster.storage.gcs import own_account
from mixpeek_dagster.storage.gcs_iam import KeptAccount
from mixpeek_dagster.storage.http import Backoff
from mixpeek_dagster.storage.stores import open_store
from mixpeek_dagster.storage.tokens import BearerToken, Grant
from tests.storage.google_stub import EMAIL, TOKEN, GoogleStub, google_machine, refusal
from tests.storage.scripted import Answer, scripted
from tests.storage.test_managed_gcs import gcs_blobs, send, strict
from tests.storage.worlds import allow

OTHER = "signer@project.iam.gserviceaccount.com"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without waiting."""
    monkeypatch.setattr(Backoff, "__init__", partialmethod(Backoff.__init__, sleep=lambda _s: None))


def kept(email: str | None = None) -> KeptAccount:
    return KeptAccount(BearerToken(own_account()), email=email)


def test_the_urls_hold_a_client_to_what_a_keys_urls_hold_it_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with google_machine(monkeypatch, GoogleStub()) as google, strict() as storage:
        blobs = gcs_blobs(storage.url, "b", account=kept())
        signed = blobs.presign_put("up/x.png", expires_s=60, content_type="image/png", size=5)
        needed = {"Content-Type": "image/png", "x-goog-content-length-range": "5,5", "x-goog-if-generation-match": "0"}
        assert signed.headers == needed
        assert dict(parse_qsl(urlsplit(signed.url).query))["X-Goog-Credential"].startswith(f"{EMAIL}/")
        for name in needed:
            assert send(signed.url, b"12345", "PUT", {other: needed[other] for other in needed if other != name}) == 403, name
        assert send(signed.url, b"123456", "PUT", needed) == 400
        assert send(signed.url.replace("x.png", "y.png"), b"12345", "PUT", needed) == 403
        assert send(signed.url, b"12345", "PUT", needed) == 200
        assert send(signed.url, b"54321", "PUT", needed) == 412
        assert send(blobs.presign_get("up/x.png", expires_s=60, filename="x.png").url, None, "GET") == 200
        paths = [one.path.rpartition("/")[2] for one in google.asked]
        assert paths == ["email", "token", f"{EMAIL}:signBlob", f"{EMAIL}:signBlob"], "who we are is asked once"


def test_googles_own_client_makes_the_same_url(monkeypatch: pytest.MonkeyPatch) -> None:
    signing = pytest.importorskip("google.cloud.storage._signing")
    request = signing.requests.Request
    headers = {"Content-Type": "image/png", "x-goog-content-length-range": "5,5", "x-goog-if-generation-match": "0"}
    now = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    with google_machine(monkeypatch, GoogleStub()) as google:

        class ToTheStub(request):  # type: ignore[misc, valid-type]  # the SDK is not typed
            def __call__(self, url: str, **given: Any) -> Any:
                return super().__call__(url=url.replace("https://iamcredentials.googleapis.com", google.url), **given)

        monkeypatch.setattr(signing.requests, "Request", ToTheStub)
        theirs = signing.generate_signed_url_v4(
            None,
            "/b/managed/up/x.png",
            60,
            method="PUT",
            headers=dict(headers),
            service_account_email=EMAIL,
            access_token=TOKEN,
            universe_domain="googleapis.com",
            _request_timestamp=now.strftime("%Y%m%dT%H%M%SZ"),
        )
        blobs = gcs_blobs("https://storage.googleapis.com", "b", account=kept(), clock=lambda: now)
        ours = blobs.presign_put("up/x.png", expires_s=60, content_type="image/png", size=5)
        by_them, by_us = (one for one in google.asked if one.path.endswith(":signBlob"))
    assert ours.url == theirs
    assert (by_us.method, by_us.path, json.loads(by_us.body)) == (by_them.method, by_them.path, json.loads(by_them.body))


def test_a_store_without_a_key_file_is_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = GoogleStub()
    with google_machine(monkeypatch, stub), strict() as storage:
        url = f"gs://b/warehouse?endpoint_url={storage.url}"
        signed = open_store(url, settings=allow()).presign_put("x", expires_s=60)
        assert send(signed.url, b"1", "PUT", signed.headers) == 200
        other = open_store(f"{url}&service_account={OTHER}", settings=allow())
        with pytest.raises(AccessDenied, match=f"roles/iam.serviceAccountTokenCreator on {OTHER}"):
            other.presign_put("y", expires_s=60)
        stub.may_sign_for.add(OTHER)
        stub.email = "project.svc.id.goog"
        signed = other.presign_put("y", expires_s=60)
        assert f"X-Goog-Credential={OTHER.replace('@', '%40')}" in signed.url
        assert send(signed.url, b"1", "PUT", signed.headers) == 200
        with pytest.raises(
            WrongConnection, match=r"no service account \(project.svc.id.goog\).*service_account=.*GOOGLE_APPLICATION_CRED"
        ):
            open_store(url, settings=allow()).presign_put("z", expires_s=60)


def test_a_token_that_is_refused_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = GoogleStub()
    stub.tokens = ["worn out", TOKEN]
    with google_machine(monkeypatch, stub):
        assert kept().sign(b"text")


def test_who_may_not_sign_is_told_what_to_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    disabled = (
        "IAM Service Account Credentials API has not been used in project 1 before or it is disabled. Enable it by visiting …"
    )
    wrong: list[tuple[Answer, type[ProviderError], str]] = [
        (
            refusal(403, "IAM_PERMISSION_DENIED", "denied"),
            AccessDenied,
            f"403 denied: grant .* the role .*TokenCreator on {EMAIL}",
        ),
        (refusal(403, "SERVICE_DISABLED", disabled), AccessDenied, "enable the API iamcredentials.googleapis.com"),
        (refusal(403, "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "scopes"), AccessDenied, "access scope cloud-platform"),
        (refusal(404, "NOT_FOUND", "Unknown service account"), WrongConnection, "Unknown service account: check"),
        (refusal(400, "INVALID_ARGUMENT", "bad"), ProviderError, "400 bad"),
        (Answer(200, b"<html>"), ProviderDown, "without a signature"),
        (Answer(200, b'{"signedBlob": ""}'), ProviderDown, "without a signature"),
        (Answer(200, b'{"signedBlob": "*"}'), ProviderDown, "without a signature"),
    ]
    stub = GoogleStub()
    with google_machine(monkeypatch, stub) as google:
        for said, kind, message in wrong:
            google.asked.clear()
            stub.instead = [said]
            with pytest.raises(kind, match=message) as raised:
                kept().sign(b"text")
            assert TOKEN not in str(raised.value)
            assert [one.path.endswith(":signBlob") for one in google.asked].count(True) == 1, "it is not asked in vain again"


def test_an_iam_that_is_busy_is_asked_again_and_one_that_is_down_is_the_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = GoogleStub()
    with google_machine(monkeypatch, stub) as google:
        account = kept()
        stub.instead = [refusal(503, "UNAVAILABLE", "busy"), refusal(429, "RESOURCE_EXHAUSTED", "quota")]
        assert account.sign(b"text")
        stub.instead = [refusal(503, "UNAVAILABLE", "busy")] * 4
        google.asked.clear()
        with pytest.raises(ProviderDown, match=f"does not sign for {EMAIL}: 503 busy"):
            account.sign(b"text")
        assert len(google.asked) == 4
        stub.instead = [Answer(429, refusal(429, "", "quota").body, {"Retry-After": "3600"})]
        with pytest.raises(ProviderDown, match="asked again in 3600 s") as raised:
            account.sign(b"text")
        assert raised.value.retry_after_s == 3600
    monkeypatch.setattr(gcs_iam, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ProviderDown, match="refused the connection"):
        KeptAccount(BearerToken(lambda: Grant(TOKEN, 60)), email=EMAIL).sign(b"text")


def test_elsewhere_than_at_google_the_error_tells_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "METADATA_HOST", "127.0.0.1:9")
    both = "Check that this machine is Google's, or name a service account's key file in GOOGLE_APPLICATION_CREDENTIALS"
    store = open_store("gs://b", settings=allow())
    with pytest.raises(ProviderDown, match=both):
        store.presign_put("x", expires_s=60)
    with pytest.raises(ProviderDown, match=both):
        store.head("x")


def test_a_machine_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(lambda _asked: Answer(404)) as server:
        monkeypatch.setattr(gcs, "METADATA_HOST", server.host)
        store = open_store("gs://b", settings=allow())
        with pytest.raises(WrongConnection, match=r"no service account \(404\)"):
            store.presign_put("x", expires_s=60)
        with pytest.raises(AccessDenied, match="give the machine a service account"):
            store.head("x")
    with scripted(lambda _asked: Answer(503)) as server:
        monkeypatch.setattr(gcs, "METADATA_HOST", server.host)
        with pytest.raises(ProviderDown, match=r"does not name this machine's account \(503\)"):
            kept().email()


def test_what_is_signed_reaches_iam_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with google_machine(monkeypatch, GoogleStub()) as google:
        kept(EMAIL).sign(b"\0\xff text")
        assert base64.b64decode(json.loads(google.asked[-1].body)["payload"]) == b"\0\xff text"
