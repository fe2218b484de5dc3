"""The warehouse's own files at Google Cloud Storage: fake-gcs-server, published signatures, and a server that checks what it does not."""

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
import urllib3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mixpeek_dagster.errors import AccessDenied, AlreadyExists, Changed, Invalid, ProviderDown, WrongConnection
from mixpeek_dagster.storage.blobs import BlobStore
from mixpeek_dagster.storage.gcs_signing import Account, AccountKey, UrlSigner, to_sign
from mixpeek_dagster.storage.http import Backoff, Http
from mixpeek_dagster.storage.managed_gcs import GCSBlobs
from mixpeek_dagster.storage.stores import open_store
from mixpeek_dagster.storage.tokens import BearerToken, Grant
from tests.storage.scripted import Answer, Asked, Scripted, scripted
from tests.storage.test_gcs import call
from tests.storage.test_managed import BlobContract
from tests.storage.worlds import account_file, allow, new_name

# Google's own test account and its published signatures (googleapis/python-storage, tests/unit/url_signer_v4_test_*.json): its public key …
MODULUS = (
    "ac3f3322ac8a2db5f436af28d098f5a871211e1a8edfed0e3fb4c4171e55c5ce8f77006814dadf9c9448fd2f99683612d5abebe4faa9a7c83cf9434e32f23556"
    "c8c633cc634dac6456ff2698aa7aa52990b2d4eddb9a736357b1036c2fe313564b058d14dc76921df9fa4bd343f0c5dd803d3fba54535b0ababd4f3fc3a8b9b5"
    "8b14ee7d8b2e54139757d0eff7a63bd9d87021497b31d955ad0799e5ac747c16b28934b24c10610348ccfdc917d0694798094f680d81ee8aa290deb0978ba0bc"
    "da5fb7149c39fe0809e72ee2c3c304ac2152b257184116c1573e9960a5a411c261b3c046dffd7a6df6aa36eb0d943209f7d23b0e68a9527805fc712e95885fad"
)
EMAIL = "test-iam-credentials@dummy-project-id.iam.gserviceaccount.com"
SIGNED: list[tuple[str, dict[str, str], str]] = [
    # … and, per method and headers, the signature.
    (
        "PUT",
        {},
        "8adff1d4285739e31aa68e73767a46bc5511fde377497dbe08481bf5ceb34e29cc9a59921748d8ec3dd4085b7e9b7772a952afedfcdaecb3ae8352275b8b7c86"
        "7f204e3db85076220a3127a8a9589302fc1181eae13b9b7fe41109ec8cdc93c1e8bac2d7a0cc32a109ca02d06957211326563ab3d3e678a0ba296e298b5fc5e1"
        "4593c99d444c94724cc4be97015dbff1dca377b508fa0cb7169195de98d0e4ac96c42b918d28c8d92d33e1bd125ce0fb3cd7ad2c45dae65c22628378f6584971"
        "b8bf3945b26f2611eb651e9b6a8648970c1ecf386bb71327b082e7296c4e1ee2fc0bdd8983da80af375c817fb1ad491d0bc22c0f51dba0d66e2cffbc90803e47",
    ),
    (
        "POST",
        {"x-goog-resumable": "start"},
        "4a6d39b23343cedf4c30782aed4b384001828c79ffa3a080a481ea01a640dea0a0ceb58d67a12cef3b243c3f036bb3799c6ee88e8db3eaf7d0bdd4b70a228d07"
        "36e07eaa1ee076aff5c6ce09dff1f1f03a0d8ead0d2893408dd3604fdabff553aa6d7af2da67cdba6790006a70240f96717b98f1a6ccb24f00940749599be7ef"
        "72aaa5358db63ddd54b2de9e2d6d6a586eac4fe25f36d86fc6ab150418e9c6fa01b732cded226c6d62fc95b72473a4cc55a8257482583fe66d9ab6ede909eb41"
        "516a8690946c3e87b0f2052eb0e97e012a14b2f721c42e6e19b8a1cd5658ea36264f10b9b1ada66b8ed5bf7ed7d1708377ac6e5fe608ae361fb594d2e5b24c54",
    ),
    (
        "GET",
        {"leading": "    xyz", "trailing": "abc    ", "collapsed": "abc    def"},
        "1839511d6238d9ac2bbcbba8b23515b3757db35dfa7b8f9bc4b8b4aa270224df747c812526f1a3bcf294d67ed84cd14e074c36bc090e0a542782934a7c925af4"
        "a5ea68123e97533704ce8b08ccdf5fe6b412f89c9fc4de243e29abdb098382c5672188ee3f6fef7131413e252c78e7a35658825ad842a50609e9cc463731e172"
        "84ff7a14824c989f87cef22fb99dfec20cfeed69d8b3a08f00b43b8284eecd535e50e982b05cd74c5750cd5f986cfc21a2a05f7f3ab7fc31bd684ed1b823b64d"
        "29281e923fc6580c49005552ca19c253de087d9d2df881144e44eda40965cfdb4889bf3a35553c9809f4ed20b8355be481b92b9618952b6a04f3017b36053e15",
    ),
]


@pytest.mark.parametrize(("method", "headers", "signature"), SIGNED)
def test_what_is_signed_is_what_google_signs(method: str, headers: dict[str, str], signature: str) -> None:
    url, now = "https://storage.googleapis.com/test-bucket/test-object", datetime(2019, 2, 1, 9, tzinfo=UTC)
    query, text = to_sign(method, url, email=EMAIL, expires_s=10, now=now, headers=headers)
    names = "%3B".join(sorted([*headers, "host"]))
    assert query == (
        "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=test-iam-credentials%40dummy-project-id.iam.gserviceaccount.com"
        "%2F20190201%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=20190201T090000Z&X-Goog-Expires=10"
        f"&X-Goog-SignedHeaders={names}"
    )
    public = rsa.RSAPublicNumbers(65537, int(MODULUS, 16)).public_key()
    public.verify(bytes.fromhex(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(InvalidSignature):
        public.verify(bytes.fromhex(signature), text.encode() + b" ", padding.PKCS1v15(), hashes.SHA256())


def gcs_blobs(url: str, bucket: str, *, account: Account | None = None, **options: Any) -> GCSBlobs:
    given = {"http": Http(allowed_hosts={"127.0.0.1"}, backoff=Backoff(sleep=lambda _s: None)), "token": None, **options}
    signer = UrlSigner(account or AccountKey("a@b", account_file()["private_key"]))
    return GCSBlobs(bucket, prefix="managed/", signer=signer, base_url=url, **given)


class TestFakeGCS(BlobContract):
    @pytest.fixture
    def blobs(self, fake_gcs: str) -> BlobStore:
        bucket = new_name("blobs")
        call(f"{fake_gcs}/storage/v1/b?project=test", "POST", json.dumps({"name": bucket}).encode(), "application/json")
        return gcs_blobs(fake_gcs, bucket)

    def test_a_file_is_replaced_only_when_asked(self, blobs: BlobStore) -> None:
        pytest.skip("fake-gcs-server passes over the conditions of simple uploads; `strict` does not")


class Strict:
    """The rules of Cloud Storage that fake-gcs-server passes over: signatures of URLs, and conditions. Holds one file a name."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def answer(self, asked: Asked) -> Answer:
        if asked.path.startswith("/upload/"):
            name, condition = asked.query["name"], asked.query.get("ifGenerationMatch")
        elif problem := self._refusal(asked):
            return Answer(403, f"<Error><Code>{problem}</Code></Error>".encode())
        else:
            name, condition = asked.path.removeprefix("/b/"), asked.headers.get("x-goog-if-generation-match")
        if condition == "0" and name in self.files:
            return Answer(412, b'{"error": {"message": "conditionNotMet"}}')
        if asked.method == "PUT" and "x-goog-content-length-range" in asked.headers:
            least, most = map(int, asked.headers["x-goog-content-length-range"].split(","))
            if not least <= len(asked.body) <= most:
                return Answer(400, b"<Error><Code>EntityTooLarge</Code></Error>")
        if asked.method == "GET":
            return Answer(200, self.files[name])
        self.files[name] = asked.body
        return Answer(200, json.dumps({"size": str(len(asked.body)), "generation": "7"}).encode())

    def _refusal(self, asked: Asked) -> str | None:
        query, headers = dict(asked.query), {name.lower(): value for name, value in asked.headers.items()}
        signature, names = query.pop("X-Goog-Signature"), query["X-Goog-SignedHeaders"].split(";")
        if any(name.startswith("x-goog-") and name not in names for name in headers):
            return "MalformedSecurityHeader"
        made = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if datetime.now(UTC) > made + timedelta(seconds=int(query["X-Goog-Expires"])):
            return "ExpiredToken"
        fields = "&".join(f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query))
        sent = "".join(f"{name}:{headers.get(name, '')}\n" for name in names)
        request = f"{asked.method}\n{asked.path}\n{fields}\n{sent}\n{';'.join(names)}\nUNSIGNED-PAYLOAD"
        scope = query["X-Goog-Credential"].partition("/")[2]
        text = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = serialization.load_pem_private_key(account_file()["private_key"].encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        try:
            key.public_key().verify(bytes.fromhex(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return "SignatureDoesNotMatch"
        return None


@contextmanager
def strict() -> Iterator[Scripted]:
    with scripted(Strict().answer) as server:
        yield server


def send(url: str, body: bytes | None, method: str, headers: dict[str, str] | None = None) -> int:
    return urllib3.request(method, url, body=body, headers=headers, retries=False).status


def test_an_announced_file_is_put_once_and_just_as_announced() -> None:
    with strict() as server:
        blobs = gcs_blobs(server.url, "b")
        signed = blobs.presign_put("up/x.png", expires_s=60, content_type="image/png", size=5)
        needed = {"Content-Type": "image/png", "x-goog-content-length-range": "5,5", "x-goog-if-generation-match": "0"}
        assert signed.headers == needed
        assert signed.expires_at > datetime.now(UTC)
        assert send(signed.url, b"123456", "PUT", needed) == 400
        for name in needed:
            assert send(signed.url, b"12345", "PUT", {other: needed[other] for other in needed if other != name}) == 403, name
        assert send(signed.url, b"12345", "PUT", {**needed, "Content-Type": "text/html"}) == 403
        assert send(signed.url.replace("x.png", "y.png"), b"12345", "PUT", needed) == 403
        assert send(signed.url, None, "GET", needed) == 403
        assert send(signed.url, b"12345", "PUT", needed) == 200
        assert send(signed.url, b"54321", "PUT", needed) == 412
        reading = blobs.presign_get("up/x.png", expires_s=60, filename='a"b.png', content_type="image/png")
        answered = dict(parse_qsl(urlsplit(reading.url).query))
        assert answered["response-content-disposition"] == "attachment; filename*=UTF-8''a%22b.png"
        assert send(reading.url, None, "GET") == 200
        with pytest.raises(Invalid, match="too large"):
            blobs.presign_put("up/y.png", expires_s=60, size=10, max_bytes=9)


def test_a_file_of_unknown_size_is_put_with_its_type_alone() -> None:
    with strict() as server:
        blobs = gcs_blobs(server.url, "b")
        signed = blobs.presign_put("photo.jpg", expires_s=60, content_type="image/jpeg", max_bytes=10)
        assert signed.headers == {"Content-Type": "image/jpeg"}
        assert send(signed.url, b"1", "PUT", {"Content-Type": "text/html"}) == 403
        assert send(signed.url, b"1", "PUT", {"Content-Type": "image/jpeg", "x-goog-acl": "public-read"}) == 403
        assert send(signed.url, b"1", "PUT", {"Content-Type": "image/jpeg"}) == 200
        late = gcs_blobs(server.url, "b", clock=lambda: datetime.now(UTC) - timedelta(seconds=61))
        assert send(late.presign_put("a.jpg", expires_s=60).url, b"1", "PUT") == 403


def test_a_file_is_replaced_only_when_asked() -> None:
    with strict() as server:
        blobs = gcs_blobs(server.url, "b")
        blobs.put("a.bin", io.BytesIO(b"one"))
        with pytest.raises(AlreadyExists):
            blobs.put("a.bin", io.BytesIO(b"two"))
        blobs.put("a.bin", io.BytesIO(b"three"), replace=True)


def test_a_file_that_is_replaced_before_it_is_copied_is_not_copied() -> None:
    """The copy is of the very generation that was looked at; a service that wants to be asked again is asked again."""
    item = {"size": "1", "md5Hash": "zMF1Yw==", "generation": "7"}

    def answer(asked: Asked) -> Answer:
        if "/rewriteTo/" not in asked.path:
            return Answer(200, json.dumps(item).encode())
        if "held" not in asked.path and asked.query["ifSourceGenerationMatch"] == "7":
            return Answer(412, b'{"error": {"message": "conditionNotMet"}}')
        done = asked.query.get("rewriteToken") == "more"
        return Answer(200, json.dumps({"done": done, "rewriteToken": "more"}).encode())

    with scripted(answer) as server:
        blobs = gcs_blobs(server.url, "b")
        with pytest.raises(Changed):
            blobs.copy("a.bin", "b.bin", etag="ccc17563")
        with pytest.raises(Changed):
            blobs.copy("a.bin", "b.bin", etag="another")
        blobs.copy("a.bin", "held.bin", etag="ccc17563")
        path = "/storage/v1/b/b/o/managed%2Fa.bin/rewriteTo/b/b/o/managed%2Fheld.bin"
        assert [one.path for one in server.asked[-2:]] == [path] * 2


def test_a_large_file_goes_again_from_its_start_when_the_service_is_busy() -> None:
    body, statuses = b"0123456789" * 1_000_000, iter([503, 200])
    answer = json.dumps({"size": str(len(body)), "generation": "1"}).encode()
    with scripted(lambda _asked: Answer(next(statuses), answer)) as server:
        stored = gcs_blobs(server.url, "b").put("a.bin", io.BytesIO(body))
        assert [len(one.body) for one in server.asked] == [len(body)] * 2
        assert server.asked[1].body == body
        assert stored.sha256 == hashlib.sha256(body).hexdigest()


def test_tokens_go_along_and_what_is_refused_says_what_to_grant() -> None:
    with scripted(lambda _asked: Answer(403, b'{"error": {"message": "denied"}}')) as server:
        blobs = gcs_blobs(server.url, "b", token=BearerToken(lambda: Grant("secret", 60)))
        with pytest.raises(AccessDenied, match=r"storage\.objects\.create"):
            blobs.put("a.bin", io.BytesIO(b"x"))
        assert server.asked[0].headers["Authorization"] == "Bearer secret"


def test_a_missing_bucket_and_a_service_that_is_off() -> None:
    missing = Answer(404, b'{"error": {"message": "The specified bucket does not exist."}}')
    with scripted(lambda _asked: missing) as server, pytest.raises(WrongConnection, match="does not exist"):
        gcs_blobs(server.url, "none").head("a.bin")
    with pytest.raises(ProviderDown):
        gcs_blobs("http://127.0.0.1:9", "b").put("a.bin", io.BytesIO(b"x"))


def test_a_key_file_that_cannot_sign_makes_no_store(tmp_path: Path) -> None:
    file = tmp_path / "key.json"
    with pytest.raises(Invalid, match="cannot be read"):
        open_store("gs://b", settings=allow(google_credentials=file))
    for text in ("PRIVATE", '{"type": "authorized_user", "refresh_token": "PRIVATE"}'):
        file.write_text(text)
        with pytest.raises(Invalid, match=r"not the key file of a service account.* make a key .* or leave it unset") as raised:
            open_store("gs://b", settings=allow(google_credentials=file))
        assert "PRIVATE" not in str(raised.value)
    file.write_text(json.dumps({**account_file(), "private_key": "PRIVATE"}))
    with pytest.raises(Invalid, match="private key cannot be read"):
        open_store("gs://b", settings=allow(google_credentials=file))
    file.write_text(json.dumps(account_file()))
    with pytest.raises(Invalid, match="for machines without a key file"):
        open_store("gs://b?service_account=a@b", settings=allow(google_credentials=file))
    with pytest.raises(Invalid, match="not the e-mail address"):
        open_store("gs://b?service_account=somebody", settings=allow())
    store = open_store("gs://b/a/b/", settings=allow(google_credentials=file))
    assert store.presign_put("x", expires_s=60).url.startswith("https://storage.googleapis.com/b/a/b/x?X-Goog-Algorithm=")
