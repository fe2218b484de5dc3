"""Azure Blob Storage, against azurite and scripted answers."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest

from mixpeek_dagster.errors import AccessDenied, Archived, BadListing, Changed, Invalid, ProviderDown, WrongConnection
from mixpeek_dagster.settings import Settings
from mixpeek_dagster.storage import azure_login
from mixpeek_dagster.storage.azure import API_VERSION, AzureSource, sign
from mixpeek_dagster.storage.connect import open_source
from mixpeek_dagster.storage.http import Backoff, Http, Request, read_all
from mixpeek_dagster.storage.provider import Entry
from tests.storage import contract
from tests.storage.contract import ProviderContract, World, listing
from tests.storage.scripted import Answer, Asked, Scripted, scripted
from tests.storage.worlds import allow, new_name

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that azurite documents for everybody."""

CREDENTIALS = {"account_name": ACCOUNT, "account_key": KEY}


class Account:
    """The other side of azurite: makes containers, puts and deletes blobs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._secret = base64.b64decode(KEY)
        self._http = Http(allowed_hosts={"127.0.0.1"})

    def call(self, method: str, target: str, body: bytes | None = None, **headers: str) -> None:
        sent = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": API_VERSION}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = sign(Request(method, self.url + target, sent, body), account=ACCOUNT, secret=self._secret)
        response = self._http.send(lambda: request)
        assert response.status < 300, (response.status, read_all(response))
        response.close()


def azure_world(url: str, prefix: str = "") -> World:
    container = new_name("azure")
    account = Account(url)
    account.call("PUT", f"/{container}?restype=container")

    def path(key: bytes) -> str:
        return f"/{container}/{quote(prefix.encode() + key, safe='/~')}"

    def put(key: bytes, body: bytes) -> None:
        account.call("PUT", path(key), body, x_ms_blob_type="BlockBlob", content_type="application/octet-stream")

    source = open_source(
        "azure",
        {"container": container, "endpoint_url": url, "credentials": CREDENTIALS},
        source_path="/" + prefix,
        settings=allow("127.0.0.1"),
    )
    return World(source=source, put=put, delete=lambda key: account.call("DELETE", path(key)), prefix=prefix.encode())


IMPOSSIBLE = frozenset(
    {"not utf-8", "double slash", "parent", "self", "leading slash", "folder marker", "control", "newline", "backslash"}
)
ORDER_TRAP = contract.ORDER_TRAP[:5]  # azurite orders by UTF-16; what the service does is not documented


class TestAzurite(ProviderContract):
    impossible = IMPOSSIBLE
    order_trap = ORDER_TRAP

    @pytest.fixture
    def world(self, azurite: str) -> World:
        return azure_world(azurite)


class TestAzuriteBelowAPrefix(ProviderContract):
    impossible = IMPOSSIBLE
    order_trap = ORDER_TRAP

    @pytest.fixture
    def world(self, azurite: str) -> World:
        return azure_world(azurite, "vid eos/2026/")


def test_a_wrong_key_and_a_missing_container_are_told_apart(azurite: str) -> None:
    wrong = {"account_name": ACCOUNT, "account_key": "d3Jvbmc="}
    for credentials, kind in ((wrong, AccessDenied), (CREDENTIALS, WrongConnection)):
        config = {"endpoint_url": azurite, "credentials": credentials}
        source = open_source("azure_blob", config, source_path="no-such-container", settings=allow("127.0.0.1"))
        for ask in (source.check, lambda source=source: source.head(b"a.txt")):
            with pytest.raises(kind):
                ask()


def source_of(server: Scripted, **config: Any) -> AzureSource:
    given = {"container": "con", "endpoint_url": server.url, "credentials": CREDENTIALS, **config}
    source = open_source("azure", given, source_path="", settings=allow(server.host))
    assert isinstance(source, AzureSource)
    source._http.backoff = Backoff(sleep=lambda _s: None)
    return source


def page_xml(names: str, marker: str = "") -> bytes:
    blobs = f"<Blobs>{names}</Blobs><NextMarker>{marker}</NextMarker>"
    return f"<?xml version='1.0'?><EnumerationResults>{blobs}</EnumerationResults>".encode()


BLOB = "<Blob><Name>{}</Name><Properties><Etag>0x1</Etag><Content-Length>1</Content-Length>{}</Properties></Blob>"


def test_encoded_names_are_decoded_and_directories_are_left_out() -> None:
    encoded = BLOB.format("a%EF%BF%BF%2Fb%25", "").replace("<Name>", '<Name Encoded="true">')
    folder = BLOB.format("dir", "<ResourceType>directory</ResourceType>")
    plain = BLOB.format("a%20b &amp; c", "")
    with scripted(lambda _asked: Answer(body=page_xml(encoded + folder + plain))) as server:
        assert [entry.key for entry in listing(source_of(server))] == ["a\uffff/b%".encode(), b"a%20b & c"]


LIES = [
    b"",
    b"<html/>",
    page_xml(BLOB.format("a", ""))[:-30],
    page_xml("").replace(b"<NextMarker></NextMarker>", b""),
    page_xml(BLOB.format("", "")),
    page_xml("<Blob><Name>a</Name></Blob>"),
    b"<Error><Code>x</Code></Error>",
    page_xml(BLOB.format("a", "<Last-Modified>yesterday</Last-Modified>")),
]


@pytest.mark.parametrize("body", LIES)
def test_an_answer_that_cannot_be_true_is_a_bad_listing(body: bytes) -> None:
    with scripted(lambda _asked: Answer(body=body)) as server, pytest.raises(BadListing):
        source_of(server).list_page()


@pytest.mark.parametrize("headers", [{}, {"ETag": '"0x1"', "Last-Modified": "yesterday"}], ids=["another server's", "no date"])
def test_an_answer_that_is_no_blob_is_down_and_says_so(headers: dict[str, str]) -> None:
    with scripted(lambda _asked: Answer(body=b"<html>", headers=headers)) as server:
        source = source_of(server)
        with pytest.raises(ProviderDown, match="endpoint_url"):
            source.head(b"k")
        with pytest.raises(Changed), source.open(b"k", if_match=Entry(b"k", 1, "0x2")):
            pass


def test_a_marker_that_leads_to_itself_is_a_bad_listing() -> None:
    with scripted(lambda _asked: Answer(body=page_xml("", "same"))) as server, pytest.raises(BadListing, match="circle"):
        listing(source_of(server))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AuthenticationFailed", AccessDenied),
        (403, "AuthorizationPermissionMismatch", AccessDenied),
        (403, "", AccessDenied),
        (404, "ContainerNotFound", WrongConnection),
        (404, "BlobNotFound", FileNotFoundError),
        (404, "", ProviderDown),
        (409, "BlobArchived", Archived),
        (412, "ConditionNotMet", Changed),
        (503, "ServerBusy", ProviderDown),
        (500, "", ProviderDown),
    ],
)
def test_errors_are_mapped(status: int, code: str, kind: type[Exception]) -> None:
    headers = {"x-ms-error-code": code} if code else {}
    with scripted(lambda _asked: Answer(status, b"", headers)) as server, pytest.raises(kind):
        source_of(server).open(b"k").__enter__()


def sas_of(container: str, permissions: str, *, expires: str = "2099-01-01T00:00:00Z") -> str:
    """A service SAS of a container, as of version 2020-12-06."""
    fields = {"sp": permissions, "se": expires, "sv": API_VERSION, "sr": "c"}
    signed = [permissions, "", expires, f"/blob/{ACCOUNT}/{container}", "", "", "", API_VERSION, "c", *[""] * 7]
    signature = hmac.new(base64.b64decode(KEY), "\n".join(signed).encode(), hashlib.sha256).digest()
    return urlencode({**fields, "sig": base64.b64encode(signature).decode()})


def test_a_container_can_be_read_with_a_sas_token(azurite: str) -> None:
    world = azure_world(azurite)
    assert isinstance(world.source, AzureSource)
    container = world.source.place.bucket
    world.put(b"a b?&.txt", b"x")

    def with_token(token: str) -> AzureSource:
        config = {"endpoint_url": azurite, "account_name": ACCOUNT, "credentials": {"sas_token": token}}
        source = open_source("azure", config, source_path=container, settings=allow("127.0.0.1"))
        assert isinstance(source, AzureSource)
        return source

    for token in (sas_of(container, "rl"), "?" + sas_of(container, "rl")):
        source = with_token(token)
        source.check()
        (entry,) = listing(source, limit=1)
        assert source.head(entry.key) == entry
        with source.open(entry.key, if_match=entry) as stream:
            assert stream.read() == b"x"
    for token, words in (
        (sas_of(container, "r"), "permissions r and l"),
        (sas_of(container, "rl", expires="2020-01-01T00:00:00Z"), "sas_token"),
        (sas_of("another", "rl"), "sas_token"),
    ):
        with pytest.raises(AccessDenied, match=words) as raised:
            with_token(token).check()
        assert "sig" not in str(raised.value)
        assert "sig" not in with_token(token).uri


def test_a_managed_identity_brings_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path == "/metadata/identity/oauth2/token":
            assert (asked.headers["Metadata"], asked.query["client_id"]) == ("true", "mine")
            return Answer(body=b'{"access_token": "secret", "expires_in": "86400"}')
        return Answer(body=page_xml("")) if asked.headers["Authorization"] == "Bearer secret" else Answer(403)

    with scripted(answer) as server:
        monkeypatch.setattr(azure_login, "IDENTITY_HOST", server.host)
        config = {
            "account_name": "account",
            "container": "con",
            "endpoint_url": server.url,
            "credentials": {"type": "managed_identity", "client_id": "mine"},
        }
        settings = allow(server.host, ambient_credentials=True)
        source = open_source("azure", config, source_path="", settings=settings)
        source.check()
        source.check()
        assert len(server.asked) == 3


def token_of(settings: Settings) -> str:
    config = {"account_name": "account", "container": "con"}
    source = open_source("azure", config, source_path="", settings=replace(settings, ambient_credentials=True))
    assert isinstance(source, AzureSource)
    return source._authorize(Request("GET", "https://host")).headers["Authorization"]


def test_the_identity_of_an_app_is_asked_for_where_the_app_is_told_to() -> None:
    def answer(asked: Asked) -> Answer:
        assert asked.headers["X-IDENTITY-HEADER"] == "hush"
        assert asked.query == {"api-version": "2019-08-01", "resource": "https://storage.azure.com/"}
        return Answer(body=json.dumps({"access_token": "of the app", "expires_on": str(int(time.time()) + 100)}).encode())

    with scripted(answer) as server:
        environ = {"IDENTITY_ENDPOINT": f"{server.url}/msi/token", "IDENTITY_HEADER": "hush"}
        settings = Settings.from_env(environ)
        assert "hush" not in repr(settings)
        assert token_of(settings) == "Bearer of the app"


def test_a_pod_hands_in_the_token_that_kubernetes_gave_it(tmp_path: Path) -> None:
    file = tmp_path / "token"

    def answer(asked: Asked) -> Answer:
        given = dict(parse_qsl(asked.body.decode()))
        assert (asked.path, given["client_id"], given["client_assertion"]) == (
            "/tenant/oauth2/v2.0/token",
            "client",
            "of the pod",
        )
        assert (given["scope"], given["grant_type"]) == ("https://storage.azure.com/.default", "client_credentials")
        return Answer(body=b'{"access_token": "of azure", "expires_in": 3600}')

    with scripted(answer) as server:
        environ = {"AZURE_FEDERATED_TOKEN_FILE": str(file), "AZURE_TENANT_ID": "tenant", "AZURE_AUTHORITY_HOST": f"{server.url}/"}
        with pytest.raises(Invalid, match="AZURE_CLIENT_ID"):
            token_of(Settings.from_env(environ))
        environ["AZURE_CLIENT_ID"] = "client"
        with pytest.raises(Invalid, match="AZURE_FEDERATED_TOKEN_FILE"):
            token_of(Settings.from_env(environ))
        file.write_text("of the pod")
        assert token_of(Settings.from_env(environ)) == "Bearer of azure"


def test_a_service_principal_hands_in_its_secret() -> None:
    def answer(asked: Asked) -> Answer:
        given = dict(parse_qsl(asked.body.decode()))
        if given != {
            "grant_type": "client_credentials",
            "client_id": "client",
            "client_secret": "hush",
            "scope": "https://storage.azure.com/.default",
        }:
            return Answer(
                401, b'{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}'
            )
        assert (asked.method, asked.path) == ("POST", "/tenant/oauth2/v2.0/token")
        return Answer(body=b'{"access_token": "of azure", "expires_in": 3600}')

    with scripted(answer) as server:
        environ = {"AZURE_CLIENT_SECRET": "hush", "AZURE_CLIENT_ID": "client", "AZURE_AUTHORITY_HOST": server.url}
        with pytest.raises(Invalid, match="AZURE_TENANT_ID"):
            token_of(Settings.from_env(environ))
        environ["AZURE_TENANT_ID"] = "tenant"
        settings = Settings.from_env(environ)
        assert "hush" not in repr(settings)
        assert token_of(settings) == "Bearer of azure"
        with pytest.raises(AccessDenied, match=r"AADSTS7000215.*AZURE_CLIENT_SECRET, which expires") as raised:
            token_of(Settings.from_env({**environ, "AZURE_CLIENT_SECRET": "worn"}))
        assert "worn" not in str(raised.value)


def test_a_managed_identity_is_the_operators_to_lend() -> None:
    config = {"account_name": "account", "container": "con", "credentials": {"type": "managed_identity"}}
    with pytest.raises(Invalid, match="MIXPEEK_AMBIENT_CREDENTIALS"):
        open_source("azure", config, source_path="", settings=allow())
    assert open_source("azure", config, source_path="", settings=allow(ambient_credentials=True)).uri.endswith("/con/")


@pytest.mark.parametrize(
    "config",
    [
        {"container": "con"},
        {"account_name": "a b"},
        {"account_name": "abc", "credentials": {"account_key": "%"}},
        {"account_name": "abc", "credentials": {"sas_token": "PRIVATE"}},
        {"account_name": "abc", "credentials": {"sas_token": "https://abc.example/?sv=1&sig=PRIVATE"}},
        {"account_name": "abc", "credentials": {"sas_token": "sv=1&sig=PRIVATE", "account_key": KEY}},
        {"account_name": "abc", "credentials": {"type": "sas_token", "account_key": KEY}},
        {"account_name": "abc", "credentials": {"type": "managed_identity", "account_key": KEY}},
        {"account_name": "abc", "credentials": {"account_key": ""}},
        {"account_name": "abc", "credentials": {"sas_token": ""}},
    ],
)
def test_settings_that_do_not_fit_are_invalid(config: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as raised:
        open_source("azure", config, source_path="con", settings=allow())
    assert "PRIVATE" not in str(raised.value)
