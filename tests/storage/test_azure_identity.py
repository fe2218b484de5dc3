"""URLs of Azure Blob Storage from machines without the account's key. That azurite takes them is shown in `test_managed_azure`."""

import io
import json
import threading
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import urllib3

from mixpeek_dagster.errors import AccessDenied, Invalid, ProviderDown, ProviderError
from mixpeek_dagster.settings import AzureIdentity, Settings
from mixpeek_dagster.storage import azure_login
from mixpeek_dagster.storage.azure import API_VERSION
from mixpeek_dagster.storage.azure_sas import OwnIdentity
from mixpeek_dagster.storage.http import Backoff, Http
from mixpeek_dagster.storage.managed_azure import AzureBlobs
from mixpeek_dagster.storage.stores import open_store
from mixpeek_dagster.storage.tokens import BearerToken, Grant
from tests.servers import TlsServer
from tests.storage.azure_machine import OBJECT, TENANT, entra_token
from tests.storage.scripted import Answer, Asked, Scripted, scripted
from tests.storage.test_azure import ACCOUNT, Account
from tests.storage.test_vendor_sdks import said_by
from tests.storage.worlds import allow, new_name

SDK = "azure-storage-blob==12.15.0"
"""The last one that signs as of our `API_VERSION`; later ones sign more fields."""

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without waiting."""
    monkeypatch.setattr(Backoff, "__init__", partialmethod(Backoff.__init__, sleep=lambda _s: None))


def sas_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def test_azures_own_sdk_asks_for_the_same_key_and_signs_the_same(trusted_azurite: TlsServer) -> None:
    token, url = entra_token(), trusted_azurite.url
    identity = OwnIdentity(BearerToken(lambda: token), http=Http(allowed_hosts={"127.0.0.1"}), base_url=url)
    blobs = AzureBlobs("c", prefix="managed/", account=ACCOUNT, login=identity, base_url=url)
    putting = sas_of(blobs.presign_put("up/x.png", expires_s=3600, content_type="image/png", size=5).url)
    reading = sas_of(blobs.presign_get("up/x.png", expires_s=60, content_type="image/png", filename='a"b ü.png').url)
    assert (putting["sp"], putting["sr"], putting["spr"], reading["sp"]) == ("c", "b", "https", "r")
    signed = [
        {
            "blob_name": "managed/up/x.png",
            "permission": ours["sp"],
            "expiry": ours["se"],
            "protocol": "https",
            "content_disposition": ours.get("rscd"),
            "content_type": ours.get("rsct"),
        }
        for ours in (putting, reading)
    ]
    asked: dict[str, Any] = {
        "url": url,
        "authority": str(trusted_azurite.authority),
        "token": token.access_token,
        "account": ACCOUNT,
        "container": "c",
        "start": putting["skt"],
        "end": putting["ske"],
        "signed": signed,
    }
    said = said_by(SDK, "sdk_azure.py", json.dumps(asked))
    assert said["version"] == API_VERSION
    assert [dict(parse_qsl(sas)) for sas in said["sas"]] == [putting, reading]


class Azure:
    """An account whose service makes user delegation keys, and the machine's identity, whose token it wants."""

    def __init__(self) -> None:
        self.instead: list[Answer] = []
        self.lasts: timedelta | None = None
        self.keys: list[dict[str, str]] = []

    def answer(self, asked: Asked) -> Answer:
        if self.instead:
            return self.instead.pop(0)
        assert (asked.method, asked.path, dict(asked.query)) == ("POST", "/", {"restype": "service", "comp": "userdelegationkey"})
        assert asked.headers["Authorization"] == "Bearer own"
        assert asked.headers["x-ms-version"] == API_VERSION
        start, end = asked.body.decode().partition("<Start>")[2].partition("</Start><Expiry>")[::2]
        key = {"SignedOid": OBJECT, "SignedTid": TENANT, "SignedStart": start, "SignedExpiry": end.partition("</Expiry>")[0]}
        key |= {"SignedService": "b", "SignedVersion": API_VERSION, "Value": "c2VjcmV0"}
        if self.lasts is not None:
            key["SignedExpiry"] = f"{datetime.fromisoformat(start) + self.lasts:%Y-%m-%dT%H:%M:%SZ}"
        self.keys.append(key)
        return key_answer(key)


def key_answer(key: dict[str, str]) -> Answer:
    fields = "".join(f"<{name}>{value}</{name}>" for name, value in key.items())
    return Answer(body=f'\ufeff<?xml version="1.0" encoding="utf-8"?><UserDelegationKey>{fields}</UserDelegationKey>'.encode())


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def blobs_of(server: Scripted, clock: Clock, *, token: BearerToken | None = None) -> AzureBlobs:
    http = Http(allowed_hosts={server.host})
    login = OwnIdentity(token or BearerToken(lambda: Grant("own", 3600)), http=http, base_url=server.url, clock=clock)
    return AzureBlobs("c", account="account", login=login, base_url=server.url, clock=clock)


def test_a_key_signs_for_an_hour_and_outlives_every_url_that_it_signs() -> None:
    azure, clock = Azure(), Clock()
    with scripted(azure.answer) as server:
        blobs = blobs_of(server, clock)
        ends = []
        for minutes in range(0, 180, 10):
            clock.now = NOW + timedelta(minutes=minutes)
            signed = blobs.presign_put("x", expires_s=86400)
            sas = sas_of(signed.url)
            assert sas["se"] < sas["ske"]
            assert sas["skt"] < f"{clock.now:%Y-%m-%dT%H:%M:%SZ}"
            ends.append(sas["ske"])
        assert len(azure.keys) == len(set(ends)) == 3
        assert datetime.fromisoformat(azure.keys[0]["SignedExpiry"]) - NOW < timedelta(days=7)


def test_a_key_that_ends_before_the_url_is_not_used() -> None:
    azure, clock = Azure(), Clock()
    azure.lasts = timedelta(minutes=70)  # from ten minutes ago
    with scripted(azure.answer) as server:
        blobs = blobs_of(server, clock)
        blobs.presign_get("x", expires_s=3600)
        clock.now += timedelta(minutes=30)
        blobs.presign_get("x", expires_s=1800)
        assert len(azure.keys) == 1
        blobs.presign_get("x", expires_s=1801)
        assert len(azure.keys) == 2
        with pytest.raises(Invalid, match="ends with its key, at 2026-11-22T13:30:00Z"):
            blobs.presign_get("x", expires_s=3601)


def test_many_threads_want_one_key() -> None:
    azure, clock = Azure(), Clock()
    with scripted(azure.answer) as server:
        blobs = blobs_of(server, clock)
        threads = [threading.Thread(target=blobs.presign_put, args=("x",), kwargs={"expires_s": 60}) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(azure.keys) == 1


def refusal(status: int, code: str) -> Answer:
    return Answer(status, b"<Error/>", {"x-ms-error-code": code} if code else {})


def test_an_identity_that_lacks_a_role_is_told_which() -> None:
    azure, lacks = Azure(), refusal(403, "AuthorizationPermissionMismatch")
    wrong: list[tuple[Answer, type[ProviderError], str]] = [
        (lacks, AccessDenied, "Storage Blob Delegator for the storage account, or set AZURE_STORAGE_KEY"),
        (refusal(403, "AuthenticationFailed"), AccessDenied, "token of this machine's identity"),
        (refusal(403, ""), AccessDenied, "token of this machine's identity"),
        (refusal(403, "AuthorizationFailure"), AccessDenied, "network rules"),
        (refusal(400, "InvalidXmlNodeValue"), ProviderError, "InvalidXmlNodeValue"),
        (Answer(200, b"<html>"), ProviderDown, "without a user delegation key"),
        (key_answer({"SignedOid": OBJECT, "Value": "c2VjcmV0"}), ProviderDown, "without a user delegation key"),
        (Answer(200, b"<a>", length=100), ProviderDown, "without a user delegation key"),
    ]
    with scripted(azure.answer) as server:
        blobs = blobs_of(server, Clock())
        for said, kind, message in wrong:
            azure.instead = [said]
            with pytest.raises(kind, match=message):
                blobs.presign_put("x", expires_s=60)
        azure.instead = [lacks]
        with pytest.raises(AccessDenied, match="Storage Blob Data Contributor for the container"):
            blobs.put("x", io.BytesIO(b"x"))
        azure.instead = [refusal(503, "ServerBusy")] * 4
        with pytest.raises(ProviderDown, match="503 ServerBusy"):
            blobs.presign_put("x", expires_s=60)
        azure.instead = [refusal(503, "ServerBusy")]
        assert blobs.presign_put("x", expires_s=60).url, "it is asked again, and nothing of a failure is kept"


def test_a_token_that_is_refused_is_fetched_again() -> None:
    tokens = iter(["worn out", "own"])
    azure = Azure()
    azure.instead = [refusal(401, "InvalidAuthenticationInfo")]
    with scripted(azure.answer) as server:
        token = BearerToken(lambda: Grant(next(tokens), 3600))
        assert blobs_of(server, Clock(), token=token).presign_put("x", expires_s=60)


def test_a_store_without_a_key_is_this_machines(trusted_azurite: TlsServer) -> None:
    def answer(asked: Asked) -> Answer:
        assert (asked.headers["X-IDENTITY-HEADER"], asked.query["client_id"]) == ("hush", "mine")
        return Answer(body=json.dumps({"access_token": entra_token().access_token, "expires_in": 3600}).encode())

    container = new_name("blobs")
    Account(trusted_azurite.url).call("PUT", f"/{container}?restype=container")
    with scripted(answer) as machine:
        identity = AzureIdentity(endpoint=f"{machine.url}/msi/token", header="hush", client="mine")
        settings = allow(azure_account=ACCOUNT, azure_identity=identity)
        store = open_store(f"az://{container}/warehouse?endpoint_url={trusted_azurite.url}", settings=settings)
        signed = store.presign_put("x.png", expires_s=60, content_type="image/png")
        assert sas_of(signed.url)["skoid"] == OBJECT
        for status in (201, 403):
            assert urllib3.request("PUT", signed.url, body=b"12345", headers=signed.headers, retries=False).status == status
        found = store.head("x.png")
        assert found is not None
        assert (found.size, found.content_type) == (5, "image/png")
        assert len(machine.asked) == 1


def test_without_a_key_and_an_identity_the_error_tells_both_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = allow(azure_account="account")
    monkeypatch.setattr(azure_login, "IDENTITY_HOST", "127.0.0.1:9")
    with pytest.raises(ProviderDown, match=r"an identity at Azure, name one in AZURE_CLIENT_ID, or give .* AZURE_STORAGE_KEY"):
        open_store("az://c", settings=settings).presign_put("x", expires_s=60)
    with scripted(
        lambda _asked: Answer(400, b'{"error": "invalid_request", "error_description": "Identity not found"}')
    ) as server:
        monkeypatch.setattr(azure_login, "IDENTITY_HOST", server.host)
        with pytest.raises(AccessDenied, match=r"Identity not found\): give it one, .* AZURE_STORAGE_KEY"):
            open_store("az://c", settings=settings).head("x")
        (tmp_path / "token").write_text("of the pod")
        pod = {"AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"), "AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c"}
        environ = {**pod, "AZURE_AUTHORITY_HOST": server.url, "AZURE_STORAGE_ACCOUNT": "account"}
        with pytest.raises(AccessDenied, match="federated credential"):
            open_store("az://c", settings=Settings.from_env(environ)).head("x")
    with pytest.raises(Invalid, match="https:// in endpoint_url, or give the account's key"):
        open_store("az://c?endpoint_url=http://127.0.0.1:9", settings=settings)
