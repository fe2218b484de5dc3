"""The warehouse's own files, in a folder and in a bucket."""

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import botocore.session
import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_dagster.errors import AccessDenied, AlreadyExists, Changed, Forbidden, Invalid, ProviderDown
from mixpeek_dagster.storage import managed_s3
from mixpeek_dagster.storage.blobs import BlobStore, StoreUrl, check_key, safe_name
from mixpeek_dagster.storage.managed import LocalBlobs, Permission, sign, verify
from mixpeek_dagster.storage.managed_s3 import S3Blobs
from mixpeek_dagster.storage.s3_config import Endpoint
from tests.servers import S3Server, s3_client
from tests.storage.contract import PARTS
from tests.storage.worlds import new_name

SECRET = b"0123456789abcdef"
BASE = "http://api.test/v1/blobs"


def local_blobs(folder: Path, **options: Any) -> LocalBlobs:
    return LocalBlobs(folder, base_url=BASE, secret=SECRET, **options)


def s3_blobs(server: S3Server) -> S3Blobs:
    bucket = new_name("blobs")
    client: Any = s3_client(server)
    client.create_bucket(Bucket=bucket)
    return S3Blobs(
        bucket,
        prefix="managed/",
        endpoint=Endpoint(server.url, server.region, path_style=True),
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
    )


class BlobContract:
    @pytest.fixture
    def blobs(self) -> BlobStore:
        raise NotImplementedError

    def test_a_file_is_stored_and_read_back(self, blobs: BlobStore) -> None:
        body = os.urandom(3_000_000)
        stored = blobs.put("ns/a/b.jpg", io.BytesIO(body), content_type="image/jpeg")
        assert (stored.size, stored.sha256) == (len(body), hashlib.sha256(body).hexdigest())
        with blobs.open("ns/a/b.jpg") as stream:
            assert stream.read() == body
        found = blobs.head("ns/a/b.jpg")
        assert found is not None
        assert (found.key, found.size, found.etag, found.content_type) == ("ns/a/b.jpg", len(body), stored.etag, "image/jpeg")

    def test_a_file_that_does_not_fit_into_memory_is_sent_from_disk(self, blobs: BlobStore) -> None:
        body = b"0123456789" * 1_000_000
        assert blobs.put("large.bin", io.BytesIO(body)).sha256 == hashlib.sha256(body).hexdigest()
        with blobs.open("large.bin") as stream:
            assert stream.read() == body

    def test_an_empty_file_is_stored(self, blobs: BlobStore) -> None:
        assert blobs.put("empty.bin", io.BytesIO()).size == 0
        with blobs.open("empty.bin") as stream:
            assert stream.read() == b""

    def test_a_part_of_a_file_is_read_as_a_slice_is(self, blobs: BlobStore) -> None:
        for body in (bytes(range(250)) * 4, b""):
            blobs.put("a.bin", io.BytesIO(body), replace=True)
            for start, length in PARTS:
                with blobs.open("a.bin", start=start, length=length) as stream:
                    assert stream.read() == body[start:][:length], (start, length)

    def test_a_missing_file(self, blobs: BlobStore) -> None:
        assert blobs.head("none.bin") is None
        with pytest.raises(FileNotFoundError), blobs.open("none.bin"):
            pass
        blobs.delete("none.bin")

    def test_a_file_is_replaced_only_when_asked(self, blobs: BlobStore) -> None:
        blobs.put("a.bin", io.BytesIO(b"one"))
        with pytest.raises(AlreadyExists):
            blobs.put("a.bin", io.BytesIO(b"two"))
        blobs.put("a.bin", io.BytesIO(b"three"), replace=True)
        with blobs.open("a.bin") as stream:
            assert stream.read() == b"three"

    def test_a_deleted_file_is_gone(self, blobs: BlobStore) -> None:
        blobs.put("a.bin", io.BytesIO(b"one"))
        blobs.delete("a.bin")
        assert blobs.head("a.bin") is None
        blobs.put("a.bin", io.BytesIO(b"two"))

    def test_a_copy_is_a_file_of_its_own(self, blobs: BlobStore) -> None:
        stored = blobs.put("a/a.bin", io.BytesIO(b"one"), content_type="image/png")
        blobs.put("b/b.bin", io.BytesIO(b"replaced"))
        blobs.copy("a/a.bin", "b/b.bin", etag=stored.etag)
        blobs.put("a/a.bin", io.BytesIO(b"other"), replace=True)
        with pytest.raises(Changed):
            blobs.copy("a/a.bin", "c.bin", etag=stored.etag)
        assert blobs.head("c.bin") is None
        blobs.delete("a/a.bin")
        with blobs.open("b/b.bin") as stream:
            assert stream.read() == b"one"
        with pytest.raises(FileNotFoundError):
            blobs.copy("a/a.bin", "c.bin", etag=stored.etag)

    def test_a_file_that_is_too_long_is_not_stored(self, blobs: BlobStore) -> None:
        with pytest.raises(Invalid):
            blobs.put("a.bin", io.BytesIO(b"12345"), max_bytes=4)
        assert blobs.head("a.bin") is None

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a b", "a\nb", "a\0", "\u00e4", "x" * 901]
    )
    def test_keys_are_ours(self, blobs: BlobStore, key: str) -> None:
        with pytest.raises(Invalid):
            blobs.put(key, io.BytesIO(b"x"))
        with pytest.raises(Invalid):
            blobs.presign_put(key, expires_s=60)


class TestLocal(BlobContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return local_blobs(tmp_path)


class TestS3(BlobContract):
    @pytest.fixture
    def blobs(self, seaweedfs: S3Server) -> BlobStore:
        return s3_blobs(seaweedfs)


# Signed URLs of the local store


def asked(url: str) -> tuple[str, dict[str, str]]:
    """Key and query of a request for one of our URLs, as a web framework hands them over."""
    parts = urlsplit(url)
    return unquote(parts.path).removeprefix("/v1/blobs/"), dict(parse_qsl(parts.query, keep_blank_values=True))


def test_an_upload_through_a_signed_url(tmp_path: Path) -> None:
    blobs = local_blobs(tmp_path)
    signed = blobs.presign_put("ns/x.jpg", expires_s=60, content_type="image/jpeg", size=5)
    assert (signed.method, signed.headers) == ("PUT", {"Content-Type": "image/jpeg"})
    assert signed.expires_at > datetime.now(UTC)
    permission = blobs.verify("PUT", *asked(signed.url))
    stored = blobs.receive(permission, iter([b"he", b"llo"]), content_type="image/jpeg; charset=utf-8")
    assert stored.sha256 == hashlib.sha256(b"hello").hexdigest()
    with pytest.raises(AlreadyExists):
        blobs.receive(permission, iter([b"hello"]), content_type="image/jpeg")
    reading = blobs.presign_get("ns/x.jpg", expires_s=60, filename="b\u00e4r.jpg")
    assert blobs.verify("GET", *asked(reading.url)).filename == "b\u00e4r.jpg"


@pytest.mark.parametrize(
    ("limits", "body", "content_type"),
    [
        ({"size": 5}, b"1234", "image/png"),
        ({"size": 5}, b"123456", "image/png"),
        ({"max_bytes": 5}, b"123456", "image/png"),
        ({}, b"12345", "text/html"),
        ({}, b"12345", ""),
    ],
)
def test_an_upload_that_is_not_what_was_signed_is_refused_whole(
    tmp_path: Path, limits: dict[str, int], body: bytes, content_type: str
) -> None:
    blobs = local_blobs(tmp_path)
    signed = blobs.presign_put("x.png", expires_s=60, content_type="image/png", **limits)
    with pytest.raises(Invalid):
        blobs.receive(blobs.verify("PUT", *asked(signed.url)), iter([body]), content_type=content_type)
    assert blobs.head("x.png") is None
    assert list((tmp_path / ".parts").glob("*")) == []


def test_a_url_is_good_for_its_time_method_and_key_only(tmp_path: Path) -> None:
    now = 1_000_000.0
    blobs = local_blobs(tmp_path, clock=lambda: now)
    key, query = asked(blobs.presign_put("ns/x.png", expires_s=60, size=5).url)
    blobs.verify("PUT", key, query)
    for method, other in (("GET", key), ("DELETE", key), ("PUT", "ns/y.png"), ("PUT", "ns")):
        with pytest.raises(Forbidden):
            blobs.verify(method, other, query)
    for name in query:
        with pytest.raises(Forbidden):
            blobs.verify("PUT", key, {**query, name: query[name] + "0"})
        with pytest.raises(Forbidden):
            blobs.verify("PUT", key, {other: value for other, value in query.items() if other != name})
    with pytest.raises(Forbidden):
        LocalBlobs(tmp_path, base_url=BASE, secret=b"another secret, also long").verify("PUT", key, query)
    now += 60
    with pytest.raises(Forbidden, match="expired"):
        blobs.verify("PUT", key, query)


def test_a_permission_to_read_does_not_write(tmp_path: Path) -> None:
    blobs = local_blobs(tmp_path)
    permission = blobs.verify("GET", *asked(blobs.presign_get("x.png", expires_s=60).url))
    with pytest.raises(Forbidden):
        blobs.receive(permission, iter([b"x"]))


@given(
    st.builds(
        Permission,
        method=st.sampled_from(["PUT", "GET"]),
        key=st.text(),
        expires=st.integers(2_000_000_000, 9_000_000_000),
        content_type=st.text(),
        size=st.integers(-1),
        max_bytes=st.integers(-1),
        filename=st.text(),
    )
)
def test_what_is_signed_is_what_is_verified(permission: Permission) -> None:
    query = dict(parse_qsl(sign(permission, secret=SECRET), keep_blank_values=True))
    assert verify(permission.method, permission.key, query, secret=SECRET, now=0) == permission


def test_of_writers_at_once_one_wins_and_the_file_is_whole(tmp_path: Path) -> None:
    blobs = local_blobs(tmp_path)
    outcomes: list[object] = []

    def write(letter: bytes) -> None:
        try:
            outcomes.append(blobs.put("x.bin", io.BytesIO(letter * 2_000_000)))
        except AlreadyExists as error:
            outcomes.append(error)

    threads = [threading.Thread(target=write, args=(bytes([65 + number]),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not isinstance(outcome, AlreadyExists) for outcome in outcomes) == 1
    with blobs.open("x.bin") as stream:
        body = stream.read()
    assert len(body) == 2_000_000
    assert len(set(body)) == 1


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    blobs = local_blobs(tmp_path)
    permission = blobs.verify("PUT", *asked(blobs.presign_put("x.png", expires_s=60).url))
    with pytest.raises(ConnectionError):
        blobs.receive(permission, chunks())
    assert blobs.head("x.png") is None
    assert list((tmp_path / ".parts").glob("*")) == []


def test_leftovers_of_killed_writers_are_removed_after_a_day(tmp_path: Path) -> None:
    now = 1_000_000.0
    blobs = local_blobs(tmp_path, clock=lambda: now)
    assert blobs.remove_leftovers() == 0
    (tmp_path / ".parts").mkdir()
    for name, age_s in (("old", 100_000), ("new", 10)):
        (tmp_path / ".parts" / name).write_bytes(b"x")
        os.utime(tmp_path / ".parts" / name, (now - age_s, now - age_s))
    assert blobs.remove_leftovers() == 1
    assert [part.name for part in (tmp_path / ".parts").iterdir()] == ["new"]


def test_a_link_in_the_folder_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a.txt").symlink_to(tmp_path / "secret.txt")
    blobs = local_blobs(tmp_path / "blobs")
    assert blobs.head("a.txt") is None
    with pytest.raises(FileNotFoundError), blobs.open("a.txt"):
        pass


# Presigned URLs of the bucket: SeaweedFS checks them


def send(url: str, body: bytes | None, method: str, **headers: str) -> urllib3.BaseHTTPResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return urllib3.request(method, url, body=body, headers=named, retries=False)


def test_a_presigned_put_takes_just_what_was_signed(seaweedfs: S3Server) -> None:
    blobs = s3_blobs(seaweedfs)
    signed = blobs.presign_put("up/x.png", expires_s=60, content_type="image/png", size=5)
    assert signed.headers == {"Content-Type": "image/png"}
    headers = signed.headers
    assert send(signed.url, b"123456", "PUT", **headers).status == 403
    assert send(signed.url, b"12345", "PUT", **{**headers, "Content-Type": "text/html"}).status == 403
    assert send(signed.url, b"12345", "PUT", **headers).status == 200
    assert send(signed.url, b"54321", "PUT", **headers, **{"If-None-Match": "*"}).status == 412, "who wants may ask for that"
    found = blobs.head("up/x.png")
    assert found is not None
    assert (found.size, found.content_type) == (5, "image/png")
    reading = blobs.presign_get("up/x.png", expires_s=60, filename='a"b.png')
    answer = send(reading.url, None, "GET")
    assert (answer.status, answer.data) == (200, b"12345")
    assert send(reading.url + "x", None, "GET").status == 403
    with pytest.raises(Invalid):
        blobs.presign_put("up/y.png", expires_s=60, size=10, max_bytes=9)


def test_own_credentials_that_cannot_be_used_are_denied_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed_s3, "aws_session", botocore.session.Session)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    blobs = S3Blobs.at(StoreUrl("any", "", {}))
    calls: list[Callable[[], object]] = [lambda: blobs.head("a"), lambda: blobs.presign_get("a", expires_s=60)]
    for call in calls:
        with pytest.raises(AccessDenied, match="credentials"):
            call()
    monkeypatch.setenv("AWS_PROFILE", "nope")
    with pytest.raises(AccessDenied, match=r"\(nope\)"):
        S3Blobs.at(StoreUrl("any", "", {}))


@pytest.mark.parametrize(
    ("options", "environment", "region"),
    [
        ({}, {}, "us-east-1"),
        ({}, {"AWS_REGION": "eu-west-1"}, "eu-west-1"),
        ({}, {"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        ({}, {"AWS_PROFILE": "ours"}, "eu-north-1"),
        ({"region": "eu-west-3"}, {"AWS_REGION": "eu-west-1"}, "eu-west-3"),
        ({"endpoint_url": "https://s3.eu-west-3.amazonaws.com"}, {"AWS_REGION": "eu-west-1"}, "eu-west-3"),
        ({"endpoint_url": "https://minio.example"}, {"AWS_REGION": "eu-west-1"}, "us-east-1"),
    ],
)
def test_urls_are_signed_for_the_region_that_is_set(
    options: dict[str, str], environment: dict[str, str], region: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[profile ours]\nregion = eu-north-1\n")
    monkeypatch.setattr(managed_s3, "aws_session", botocore.session.Session)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    keys = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_CONFIG_FILE": str(tmp_path / "config")}
    for name, value in {**keys, **environment}.items():
        monkeypatch.setenv(name, value)
    url = S3Blobs.at(StoreUrl("any", "", options)).presign_get("a", expires_s=60).url
    assert f"%2F{region}%2Fs3%2F" in url


def test_a_wrong_key_of_the_bucket_is_denied(seaweedfs: S3Server) -> None:
    endpoint = Endpoint(seaweedfs.url, seaweedfs.region, path_style=True)
    blobs = S3Blobs("any", endpoint=endpoint, access_key_id=seaweedfs.access_key_id, secret_access_key="wrong")
    with pytest.raises(AccessDenied):
        blobs.put("a.bin", io.BytesIO(b"x"))
    off = S3Blobs("any", endpoint=endpoint._replace(url="http://127.0.0.1:9"), access_key_id="a", secret_access_key="b")
    with pytest.raises(ProviderDown):
        off.put("a.bin", io.BytesIO(b"x"))


# Names


@pytest.mark.parametrize(
    ("given_name", "safe"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\files\\Mein Foto (1).JPG", "Mein_Foto_1_.JPG"),
        (".hidden", "hidden"),
        ("", "file"),
        ("...", "file"),
        ("\u65e5\u672c.png", "_.png"),
        ("a" * 300 + ".jpeg", "a" * 95 + ".jpeg"),
        ("x\0y\n.txt", "x_y_.txt"),
    ],
)
def test_a_file_name_keeps_only_what_is_harmless(given_name: str, safe: str) -> None:
    assert safe_name(given_name) == safe


@given(st.text())
def test_any_file_name_makes_a_valid_key(filename: str) -> None:
    assert check_key(f"uploads/{safe_name(filename)}")
