"""S3 sources against real servers: SeaweedFS (signatures) and moto (byte order, STS, archive classes)."""

from typing import Any

import botocore.session
import pytest

from mixpeek_dagster.errors import AccessDenied, Archived, Changed, Invalid, ProviderDown, UrlRefused, WrongConnection
from mixpeek_dagster.storage import s3_credentials
from mixpeek_dagster.storage.connect import open_source
from tests.servers import S3Server, s3_client
from tests.storage.contract import ProviderContract, World, listing
from tests.storage.worlds import allow, new_name, s3_settings, s3_world


class TestSeaweedFS(ProviderContract):
    keeps_its_order = False  # it lists in tree order
    impossible = frozenset(
        {"not utf-8", "double slash", "parent", "self", "leading slash", "folder marker", "backslash"}  # it folds paths
    )

    @pytest.fixture
    def world(self, seaweedfs: S3Server) -> World:
        return s3_world(seaweedfs)


class TestMoto(ProviderContract):
    impossible = frozenset({"not utf-8", "newline"})  # moto cannot route a newline

    @pytest.fixture
    def world(self, moto: S3Server) -> World:
        return s3_world(moto)


class TestMotoBelowAPrefix(ProviderContract):
    impossible = frozenset({"not utf-8", "newline"})  # moto cannot route a newline

    @pytest.fixture
    def world(self, moto: S3Server) -> World:
        return s3_world(moto, prefix="vid eos/2026/")


@pytest.fixture
def bucket(seaweedfs: S3Server) -> str:
    name = new_name("plain")
    client: Any = s3_client(seaweedfs)
    client.create_bucket(Bucket=name)
    for key in ("top.txt", "videos/a.mp4", "videos/sub/b.mp4", "videos-old/c.mp4"):
        client.put_object(Bucket=name, Key=key, Body=key.encode())
    return name


@pytest.mark.parametrize(
    ("connection", "path"),
    [
        ({"bucket_name": "BUCKET"}, "/videos/"),
        ({"bucket_name": "BUCKET"}, "videos"),
        ({"bucket": "BUCKET", "prefix": "videos/"}, ""),
        ({"bucket": "BUCKET", "prefix": "videos/"}, "/"),
        ({"bucket": "BUCKET"}, "s3://BUCKET/videos/"),
        ({}, "BUCKET/videos"),
        ({}, "s3://BUCKET/videos"),
        ({}, "/BUCKET/videos/"),
    ],
    ids=str,
)
def test_both_forms_of_a_connection_name_the_same_folder(
    seaweedfs: S3Server, bucket: str, connection: dict[str, str], path: str
) -> None:
    given = {name: value.replace("BUCKET", bucket) for name, value in connection.items()}
    source = open_source(
        "s3", s3_settings(seaweedfs, **given), source_path=path.replace("BUCKET", bucket), settings=allow(seaweedfs.host)
    )
    assert source.uri == f"s3://{bucket}/videos/"
    assert sorted(source.relative(entry.key) for entry in listing(source)) == ["a.mp4", "sub/b.mp4"]
    source.check()


def test_a_star_at_the_end_makes_a_plain_prefix(seaweedfs: S3Server, bucket: str) -> None:
    source = open_source("s3", s3_settings(seaweedfs), source_path=f"{bucket}/vid*", settings=allow(seaweedfs.host))
    found = sorted(source.relative(entry.key) for entry in listing(source))
    assert found == ["videos-old/c.mp4", "videos/a.mp4", "videos/sub/b.mp4"]


def refused(server: S3Server, bucket: str, **changes: Any) -> Any:
    config = s3_settings(server, bucket=bucket, **changes)
    return open_source("s3", config, source_path="", settings=allow(server.host, "127.0.0.1", "no-such-host.invalid"))


def keys(server: S3Server, **changes: str) -> dict[str, Any]:
    given = {"access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key, **changes}
    return {"credentials": given}


def test_a_wrong_secret_is_denied_with_its_cause(seaweedfs: S3Server, bucket: str) -> None:
    source = refused(seaweedfs, bucket, **keys(seaweedfs, secret_access_key="wrong-and-private"))
    for call in (source.list_page, source.check, lambda: source.head(b"top.txt"), lambda: source.open(b"top.txt").__enter__()):
        with pytest.raises(AccessDenied, match="secret_access_key") as raised:
            call()
        assert "wrong-and-private" not in str(raised.value)


def test_an_unknown_key_is_denied_with_its_cause(seaweedfs: S3Server, bucket: str) -> None:
    with pytest.raises(AccessDenied, match="access_key_id"):
        refused(seaweedfs, bucket, **keys(seaweedfs, access_key_id="AKIANOBODY")).check()


def test_a_missing_bucket_is_a_wrong_connection_also_for_a_single_file(seaweedfs: S3Server, moto: S3Server) -> None:
    for server in (seaweedfs, moto):
        source = refused(server, "no-such-bucket-here")
        for call in (source.check, lambda source=source: source.head(b"a.txt")):
            with pytest.raises(WrongConnection, match="does not exist"):
                call()


def test_a_server_that_is_off_is_down(seaweedfs: S3Server) -> None:
    for url in ("http://127.0.0.1:9", "http://no-such-host.invalid"):
        source = refused(seaweedfs, "b", endpoint_url=url)
        source._http.backoff = type(source._http.backoff)(sleep=lambda _s: None)
        with pytest.raises(ProviderDown):
            source.check()


def test_tls_with_a_plain_server_is_a_wrong_connection(seaweedfs: S3Server) -> None:
    with pytest.raises(WrongConnection, match="TLS"):
        refused(seaweedfs, "b", endpoint_url=seaweedfs.url.replace("http:", "https:")).check()


@pytest.mark.parametrize("url", ["http://127.0.0.1:8333", "http://169.254.169.254", "http://[::1]", "ftp://example.com"])
def test_an_endpoint_that_is_not_public_is_refused(seaweedfs: S3Server, url: str) -> None:
    with pytest.raises(UrlRefused):
        open_source("s3", s3_settings(seaweedfs, endpoint_url=url), source_path="b/", settings=allow())


def test_credentials_are_needed_unless_the_operator_lends_the_machines_own(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"endpoint_url": moto.url, "bucket": "b"}
    with pytest.raises(Invalid, match="MIXPEEK_AMBIENT_CREDENTIALS"):
        open_source("s3", config, source_path="", settings=allow(moto.host))
    open_source("s3", config, source_path="", settings=allow(moto.host, ambient_credentials=True))


def test_a_role_is_taken_on_through_sts(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = new_name("role")
    client: Any = s3_client(moto)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a.txt", Body=b"a")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    role = {"role_arn": "arn:aws:iam::123456789012:role/mixpeek", "external_id": "tenant-12345"}
    given = {"access_key_id": moto.access_key_id, "secret_access_key": moto.secret_access_key, **role}
    source = open_source("s3", s3_settings(moto, credentials=given), source_path=bucket, settings=allow(moto.host))
    assert [entry.key for entry in listing(source)] == [b"a.txt"]
    assert source._credentials.get_frozen_credentials().token  # type: ignore[attr-defined]  # what STS gave
    with pytest.raises(Invalid, match="take it on"):
        open_source("s3", s3_settings(moto, credentials=role), source_path=bucket, settings=allow(moto.host))


def test_an_archived_file_says_so(moto: S3Server) -> None:
    bucket = new_name("cold")
    client: Any = s3_client(moto)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="cold.bin", Body=b"x", StorageClass="GLACIER")
    source = open_source("s3", s3_settings(moto), source_path=bucket, settings=allow(moto.host))
    (entry,) = listing(source)
    assert entry.storage_class == "GLACIER"
    with pytest.raises(Archived, match="restore"), source.open(entry.key, if_match=entry):
        pass
    source.check()


def test_a_known_version_is_opened_though_it_is_not_the_newest(moto: S3Server) -> None:
    bucket = new_name("versions")
    client: Any = s3_client(moto)
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    old = client.put_object(Bucket=bucket, Key="a.txt", Body=b"one")["VersionId"]
    client.put_object(Bucket=bucket, Key="a.txt", Body=b"two")
    source = open_source("s3", s3_settings(moto), source_path=bucket, settings=allow(moto.host))
    found = source.head(b"a.txt")
    assert found is not None
    with source.open(b"a.txt", if_match=found._replace(version=old, etag="")) as stream:
        assert stream.read() == b"one"
    client.delete_object(Bucket=bucket, Key="a.txt")
    assert source.head(b"a.txt") is None
    assert listing(source) == []


def test_a_file_that_changes_between_listing_and_reading_is_changed(seaweedfs: S3Server, bucket: str) -> None:
    source = open_source("s3", s3_settings(seaweedfs), source_path=bucket, settings=allow(seaweedfs.host))
    old = source.head(b"top.txt")
    client: Any = s3_client(seaweedfs)
    client.put_object(Bucket=bucket, Key="top.txt", Body=b"new")
    with pytest.raises(Changed), source.open(b"top.txt", if_match=old):
        pass


def test_the_machines_own_credentials_are_used_when_lent(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = new_name("ambient")
    client: Any = s3_client(moto)
    client.create_bucket(Bucket=bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret_access_key)
    monkeypatch.setattr(s3_credentials, "aws_session", botocore.session.Session)  # the process's own may have looked already
    source = open_source(
        "s3", {"endpoint_url": moto.url}, source_path=bucket, settings=allow(moto.host, ambient_credentials=True)
    )
    source.check()


def test_a_listing_after_a_key_that_s3_cannot_hold_starts_at_its_valid_part(moto: S3Server) -> None:
    bucket = new_name("invalid")
    client: Any = s3_client(moto)
    client.create_bucket(Bucket=bucket)
    for key in ("a", "b", "c"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    source = open_source("s3", s3_settings(moto), source_path=bucket, settings=allow(moto.host))
    assert [entry.key for entry in listing(source, after=b"b\xff")] == [b"c"]
    assert source.head(b"b\xff") is None
