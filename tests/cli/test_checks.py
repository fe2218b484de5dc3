"""`mixpeek-dagster check` says what is wrong, and how to mend it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from mixpeek_dagster.cli import app, checks
from mixpeek_dagster.errors import AccessDenied
from mixpeek_dagster.pipeline.creation import create_sync
from mixpeek_dagster.storage.connect import open_source
from tests.pipeline.worlds import NOW, Library
from tests.servers import S3Server, s3_client
from tests.storage.scripted import Answer, Asked, scripted
from tests.storage.test_azure import ACCOUNT, KEY, Account
from tests.storage.test_s3_adversarial import error_xml, page_xml
from tests.storage.worlds import allow, new_name

Say = Callable[..., Any]


@pytest.fixture
def say(library: Library, monkeypatch: pytest.MonkeyPatch) -> Say:
    monkeypatch.setenv("MIXPEEK_HOME", str(library.warehouse.settings.home))
    monkeypatch.setenv("MIXPEEK_ALLOWED_HOSTS", "127.0.0.1")
    monkeypatch.delenv("MIXPEEK_CATALOG_URL", raising=False)
    monkeypatch.setattr(checks.console, "_width", 300)
    monkeypatch.setattr("mixpeek_dagster.storage.http.Backoff.first_s", 0.0)

    def run(*, exits: int) -> list[dict[str, Any]]:
        result = CliRunner().invoke(app, ["check", "--json"], catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return list(json.loads(result.output))

    return run


def follow_s3(library: Library, server: S3Server, **changes: Any) -> None:
    credentials = {"access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key}
    connection = {"endpoint_url": server.url, "region": server.region, "credentials": credentials, "bucket": "b", **changes}
    with library.warehouse.catalog.transaction() as records:
        library.with_settings(allowed_hosts=frozenset({"127.0.0.1"}))
        records.syncs.remove(library.sync.sync_id)
        records.syncs.remove_unnamed_connection(library.sync.connection_id)
        body = {"provider": "s3", "connection": connection, "sync_config": {"source_path": "/"}}
        library.sync = create_sync(records, body, warehouse=library.warehouse, bucket=library.bucket, now=NOW)


def wrong(found: list[dict[str, Any]]) -> dict[str, Any]:
    (one,) = [each for each in found if not each["ok"]]
    return one


def test_a_warehouse_that_works_passes_and_says_what_was_asked(library: Library, say: Say) -> None:
    library.world.put("a.txt", b"a")
    found = say(exits=0)
    assert [one["kind"] for one in found] == ["catalog", "vector index", "blob store", "model pack", "sync"]
    assert all(one["ok"] and one["detail"] for one in found)


def test_a_place_without_files_says_so(library: Library, say: Say) -> None:
    (found,) = [one for one in say(exits=0) if one["kind"] == "sync"]
    assert found["detail"].endswith("can be listed; there is no file yet")
    library.world.put("a.txt", b"a")
    (found,) = [one for one in say(exits=0) if one["kind"] == "sync"]
    assert found["detail"].endswith("can be listed and read")


def test_a_source_is_listed_once_and_a_byte_of_it_read(library: Library, say: Say) -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(body=page_xml(["a.txt"]) if "list-type" in asked.query else b"a", headers={"ETag": '"e1"'})

    with scripted(answer) as server:
        follow_s3(library, S3Server(url=server.url))
        (found,) = [one for one in say(exits=0) if one["kind"] == "sync"]
        asked = [(one.query.get("max-keys"), one.headers.get("Range")) for one in server.asked]
    assert found["detail"] == "s3://b/ can be listed and read"
    assert asked == [("1", None), (None, "bytes=0-0")]


def test_a_source_that_refuses_fails_the_check_and_the_table_says_so(library: Library, say: Say) -> None:
    def refuse(_: str) -> None:
        raise AccessDenied("the key may not list")

    library.world.before = refuse
    one = wrong(say(exits=1))
    assert (one["kind"], one["problem"], one["code"]) == ("sync", "the key may not list", "access_denied")
    assert "credentials" in one["remedy"]
    table = CliRunner().invoke(app, ["check"], catch_exceptions=False)
    assert table.exit_code == 1
    assert "the key may not list" in table.output


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (403, error_xml("InvalidAccessKeyId"), "access_denied", "access_key_id"),
        (403, error_xml("SignatureDoesNotMatch"), "access_denied", "secret_access_key"),
        (400, error_xml("ExpiredToken"), "access_denied", "expired"),
        (403, error_xml("RequestTimeTooSkewed"), "access_denied", "clock"),
        (403, error_xml("AccessDenied"), "access_denied", "s3:ListBucket"),
        (404, error_xml("NoSuchBucket"), "wrong_connection", "does not exist"),
        (301, error_xml("PermanentRedirect", "<Region>eu-central-1</Region>"), "wrong_connection", "eu-central-1"),
        (503, error_xml("SlowDown"), "provider_down", "fewer requests"),
        (200, b"<html>Please log in</html>", "bad_listing", "not a <ListBucketResult>"),
        (200, page_xml(["a"])[:-40], "bad_listing", "listing"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_every_ill_of_a_connection_has_its_cause_and_its_remedy(
    library: Library, say: Say, status: int, body: bytes, code: str, words: str
) -> None:
    def answer(_: Asked) -> Answer:
        return Answer(status, body)

    with scripted(answer) as server:
        follow_s3(library, S3Server(url=server.url))
        one = wrong(say(exits=1))
    assert one["code"] == code
    assert words in one["problem"]
    assert one["remedy"]


def test_nobody_there_and_no_tls_are_told_apart(library: Library, say: Say) -> None:
    with scripted(lambda _: Answer(200, page_xml([]))) as server:
        follow_s3(library, S3Server(url=server.url.replace("http://", "https://")))
        assert "TLS" in wrong(say(exits=1))["problem"]
        follow_s3(library, S3Server(url=server.url))
        say(exits=0)
    assert "reached" in wrong(say(exits=1))["problem"]


def test_a_real_server_with_a_wrong_secret_and_a_missing_bucket(library: Library, say: Say, seaweedfs: S3Server) -> None:
    client = s3_client(seaweedfs)
    client.create_bucket(Bucket="checked")
    client.put_object(Bucket="checked", Key="a.txt", Body=b"a")
    follow_s3(library, seaweedfs, bucket="checked")
    say(exits=0)
    follow_s3(library, seaweedfs, bucket="no-such-bucket")
    assert "does not exist" in wrong(say(exits=1))["problem"]
    bad = {"access_key_id": seaweedfs.access_key_id, "secret_access_key": "wrong"}
    follow_s3(library, seaweedfs, bucket="checked", credentials=bad)
    assert wrong(say(exits=1))["code"] == "access_denied"


BLOB_STORES: list[tuple[str, dict[str, str], str, str, str]] = [
    ("gs://b", {}, "provider_down", "name a service account's key file in GOOGLE_APPLICATION_CREDENTIALS", "reached"),
    ("gs://b", {"GOOGLE_APPLICATION_CREDENTIALS": "/none/key.json"}, "invalid", "/none/key.json cannot be read", "environment"),
    ("az://c", {}, "invalid", "AZURE_STORAGE_ACCOUNT", "environment"),
    ("az://c?account_name=abc", {}, "provider_down", "give the account's key in AZURE_STORAGE_KEY", "reached"),
    ("ftp://b", {}, "invalid", "MIXPEEK_BLOBS must be", "environment"),
    ("az://no-such-container", {"AZURE_STORAGE_KEY": KEY}, "wrong_connection", "container does not exist", "MIXPEEK_BLOBS"),
    ("az://con", {"AZURE_STORAGE_KEY": "d3Jvbmc="}, "access_denied", "Azure answered 403", "this server's own credentials"),
]


@pytest.mark.parametrize(("url", "environment", "code", "problem", "remedy"), BLOB_STORES)
def test_a_blob_store_that_cannot_be_used_is_wrong_and_the_table_says_what_to_do(
    library: Library,
    say: Say,
    azurite: str,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    environment: dict[str, str],
    code: str,
    problem: str,
    remedy: str,
) -> None:
    if "AZURE_STORAGE_KEY" in environment:
        url, environment = f"{url}?endpoint_url={azurite}", {"AZURE_STORAGE_ACCOUNT": ACCOUNT, **environment}
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mixpeek_dagster.storage.gcs.METADATA_HOST", "127.0.0.1:9")  # this machine is nobody's
    monkeypatch.setattr("mixpeek_dagster.storage.azure_login.IDENTITY_HOST", "127.0.0.1:9")
    for name, value in {"MIXPEEK_BLOBS": url, **environment}.items():
        monkeypatch.setenv(name, value)
    found = wrong(say(exits=1))
    assert (found["kind"], found["name"], found["code"]) == ("blob store", url, code)
    assert problem in found["problem"]
    assert remedy in found["remedy"]


def test_a_blob_store_whose_urls_clients_cannot_use_is_wrong(library: Library, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that signs for another region than the bucket's: AWS corrects the region of its own requests, not of URLs."""

    def answer(asked: Asked) -> Answer:
        if "X-Amz-Signature" in asked.query:
            return Answer(400, error_xml("AuthorizationQueryParametersError", "<Region>eu-central-1</Region>"))
        return Answer(204 if asked.method == "DELETE" else 200, b"check" if asked.method == "GET" else b"", {"ETag": '"e"'})

    with scripted(answer) as server:
        settings = {"MIXPEEK_BLOBS": f"s3://b?endpoint_url={server.url}", "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "S"}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        found = wrong(say(exits=1))
    assert (found["kind"], found["code"]) == ("blob store", "wrong_connection")
    assert "presigned URL" in found["problem"] and "set region to 'eu-central-1'" in found["problem"]
    assert "X-Amz" not in found["problem"]


def test_a_blob_store_that_works_is_left_as_it_was(
    library: Library, say: Say, azurite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    container, account = new_name("checked"), Account(azurite)
    account.call("PUT", f"/{container}?restype=container")
    url = f"az://{container}/warehouse?endpoint_url={azurite}"
    for name, value in {"MIXPEEK_BLOBS": url, "AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    (found,) = [one for one in say(exits=0) if one["kind"] == "blob store"]
    assert found["detail"] == "can be written, read and deleted from; clients put files there themselves"
    config = {"container": container, "endpoint_url": azurite, "credentials": {"account_name": ACCOUNT, "account_key": KEY}}
    assert not open_source("azure", config, source_path="", settings=allow("127.0.0.1")).list_page().entries
