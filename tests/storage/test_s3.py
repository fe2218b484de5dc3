"""S3 sources against real servers: SeaweedFS (signatures) and moto (byte order, STS, archive classes)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import botocore.session
import pytest

from mixpeek_dagster.errors import (
    AccessDenied,
    Archived,
    Changed,
    Invalid,
    ProviderDown,
    ProviderError,
    UrlRefused,
    WrongConnection,
)
from mixpeek_dagster.storage import s3_credentials
from mixpeek_dagster.storage.connect import open_source
from tests.servers import S3Server, s3_client
from tests.storage.contract import ProviderContract, World, listing
from tests.storage.scripted import Answer, scripted
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


class Relative(ProviderContract):
    """One of the presets, at moto instead of its own endpoint."""

    impossible = frozenset({"not utf-8", "newline"})  # moto cannot route a newline
    provider: ClassVar[str]
    values: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def world(self, moto: S3Server) -> World:
        return s3_world(moto, provider=self.provider, **self.values)


class TestWasabi(Relative):
    provider = "wasabi"


class TestR2(Relative):
    provider, values = "r2", {"account_id": "acc1", "region": "auto"}


class TestBackblaze(Relative):
    provider = "backblaze"


class TestTigris(Relative):
    provider, values = "tigris", {"region": "auto"}


class TestSupabase(Relative):
    provider, values = "supabase", {"project_ref": "ref1"}


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


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8333", "http://169.254.169.254", "http://[::1]", "ftp://example.com", "http://u:p@x.org"]
)
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


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This machine's own credentials are looked for anew, and there are none."""
    monkeypatch.setattr(s3_credentials, "aws_session", botocore.session.Session)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_profile_that_is_not_there_is_denied_with_its_name(own: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = open_source("s3", {}, source_path="any", settings=allow(ambient_credentials=True))
    with pytest.raises(AccessDenied, match="no AWS credentials of its own"):
        source.check()
    own.setenv("AWS_PROFILE", "nope")
    with pytest.raises(AccessDenied, match=r"This machine's own AWS credentials .* \(nope\)"):
        source.check()
    config = tmp_path / "config"
    config.write_text("[profile nope]\ncredential_process = false\n")
    own.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(AccessDenied, match="This machine's own AWS credentials"):
        source.check()


STS_ANSWERS: list[tuple[int, str, type[Exception], str]] = [
    (403, "AccessDenied", AccessDenied, "its trust policy must name this server"),
    (403, "InvalidClientTokenId", AccessDenied, "check access_key_id"),
    (403, "ExpiredToken", AccessDenied, "the session token has expired"),
    (403, "SignatureDoesNotMatch", AccessDenied, "check secret_access_key"),
    (403, "RegionDisabledException", WrongConnection, "STS is not active in the region"),
    (400, "Throttling", ProviderDown, "fewer requests"),
    (500, "InternalFailure", ProviderDown, "it failed inside"),
    (503, "", ProviderDown, "it failed inside"),
    (400, "ValidationError", ProviderError, "400 ValidationError"),
]


@pytest.mark.parametrize(("status", "code", "kind", "words"), STS_ANSWERS)
def test_a_role_that_is_not_given_says_why(
    own: pytest.MonkeyPatch, status: int, code: str, kind: type[Exception], words: str
) -> None:
    body = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>private</Message></Error></ErrorResponse>"
    keys = {"access_key_id": "AKIATEST", "secret_access_key": "do-not-show"}
    config = {"credentials": {**keys, "role_arn": "arn:aws:iam::123456789012:role/mixpeek"}}
    with scripted(lambda _: Answer(status, body.encode() if code else b"")) as server:
        own.setenv("AWS_ENDPOINT_URL_STS", server.url)
        source = open_source("s3", config, source_path="any", settings=allow())
        with pytest.raises(kind, match=words) as raised:
            source.check()
    assert type(raised.value) is kind
    assert "role/mixpeek" in str(raised.value)
    assert "do-not-show" not in str(raised.value)


def test_an_sts_that_does_not_answer_is_down(own: pytest.MonkeyPatch) -> None:
    own.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    keys = {"access_key_id": "AKIATEST", "secret_access_key": "do-not-show"}
    config = {"credentials": {**keys, "role_arn": "arn:aws:iam::123456789012:role/mixpeek"}}
    with pytest.raises(ProviderDown, match="did not answer"):
        open_source("s3", config, source_path="any", settings=allow()).check()


def test_a_listing_after_a_key_that_s3_cannot_hold_starts_at_its_valid_part(moto: S3Server) -> None:
    bucket = new_name("invalid")
    client: Any = s3_client(moto)
    client.create_bucket(Bucket=bucket)
    for key in ("a", "b", "c"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    source = open_source("s3", s3_settings(moto), source_path=bucket, settings=allow(moto.host))
    assert [entry.key for entry in listing(source, after=b"b\xff")] == [b"c"]
    assert source.head(b"b\xff") is None
