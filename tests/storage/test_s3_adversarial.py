"""S3 sources against servers that lie, break off, storm and stall: never a short listing taken for a whole one."""

import itertools
import re
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from mixpeek_dagster.errors import (
    AccessDenied,
    Archived,
    BadListing,
    MixpeekError,
    ProviderDown,
    ProviderError,
    WrongConnection,
)
from mixpeek_dagster.storage.connect import open_source
from mixpeek_dagster.storage.http import Backoff
from mixpeek_dagster.storage.provider import Page
from mixpeek_dagster.storage.s3 import S3Source
from mixpeek_dagster.storage.s3_config import Endpoint
from mixpeek_dagster.storage.s3_listing import parse_page
from mixpeek_dagster.storage.s3_requests import is_aws
from tests.storage.contract import listing
from tests.storage.scripted import Answer, Asked, Scripted, scripted
from tests.storage.worlds import allow

KEYS = {"access_key_id": "AKIATEST", "secret_access_key": "do-not-show"}


def page_xml(keys: Sequence[str], *, token: str | None = None, truncated: bool | None = None, encoding: str = "url") -> bytes:
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-21T10:00:00.000Z</LastModified><ETag>&quot;e1&quot;</ETag>"
        "<Size>3</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key in keys
    )
    more = truncated if truncated is not None else token is not None
    next_token = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
        f"<EncodingType>{encoding}</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>{next_token}{rows}</ListBucketResult>"
    ).encode()


def error_xml(code: str, extra: str = "") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>private detail</Message>{extra}</Error>".encode()


def source_of(server: Scripted, waits: list[float] | None = None, path: str = "b") -> S3Source:
    config = {"endpoint_url": server.url, "credentials": KEYS}
    source = open_source("s3", config, source_path=path, settings=allow(server.host))
    assert isinstance(source, S3Source)
    source._http.backoff = Backoff(sleep=(waits if waits is not None else []).append)
    return source


def at_aws(server: Scripted, monkeypatch: pytest.MonkeyPatch, **more: object) -> S3Source:
    """A source that takes the server for AWS."""
    monkeypatch.setattr("mixpeek_dagster.storage.egress.resolve", lambda *_, **__: ["127.0.0.1"])
    host = f"s3.us-east-1.amazonaws.com:{server.host.partition(':')[2]}"
    config = {"endpoint_url": f"http://{host}", "path_style": True, "credentials": KEYS, **more}
    source = open_source("s3", config, source_path="b", settings=allow(host))
    assert isinstance(source, S3Source)
    return source


GOOD = page_xml(["a", "b"])


def test_a_key_outside_of_the_source_is_none_of_its_files_and_not_asked_for() -> None:
    with scripted(lambda _: Answer(200, b"it is there", {"ETag": '"e"'})) as server:
        source = source_of(server, path="b/inside")
        assert source.head(b"outside/a.txt") is None
        assert source.head(b"inside-out.txt") is None
        assert server.asked == []
        assert source.head(b"inside/a.txt") is not None


def bomb_in(encoding: str) -> bytes:
    """A listing whose token is an entity, in an encoding in which a document type reads otherwise than in ASCII."""
    declared = f"<?xml version='1.0' encoding='{encoding}'?>"
    page = GOOD.decode().partition("?>")[2].replace("<Name>b", "<Name>" + "&a;" * 3)
    if encoding == "utf-16":
        return f'{declared}<!DOCTYPE x [<!ENTITY a "aaaa">]>{page}'.encode(encoding)
    return declared.encode() + f'<!DOCTYPE x [<!ENTITY a "aaaa">]>{page}'.encode(encoding)


LIES = {
    "cut in the middle of an entry": GOOD[:-120],
    "cut before the end": GOOD[: -len("</ListBucketResult>")],
    "nothing at all": b"",
    "a login page": b"<html><body>Please log in</body></html>",
    "broken html": b"<html><br>Please log in",
    "json": b'{"ok": true}',
    "another element": b"<ListAllMyBucketsResult><IsTruncated>false</IsTruncated></ListAllMyBucketsResult>",
    "an error as a success": error_xml("InternalError"),
    "no word on the last page": GOOD.replace(b"<IsTruncated>false</IsTruncated>", b""),
    "a strange word on the last page": GOOD.replace(b"false", b"maybe"),
    "more to come but no token": page_xml(["a"], truncated=True),
    "an entry without key": GOOD.replace(b"<Key>a</Key>", b""),
    "an empty key": GOOD.replace(b"<Key>a</Key>", b"<Key></Key>"),
    "an entry without size": GOOD.replace(b"<Size>3</Size>", b"", 1),
    "a size that is no number": GOOD.replace(b"<Size>3</Size>", b"<Size>big</Size>", 1),
    "a time that is none": GOOD.replace(b"2026-11-21", b"yesterday", 1),
    "a document type in UTF-16": bomb_in("utf-16"),
    "a document type in EBCDIC": bomb_in("cp500"),
    "another encoding": GOOD.replace(b'"UTF-8"', b'"windows-1252"'),
    "a document type": b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + GOOD.partition(b"?>")[2],
}


@pytest.mark.parametrize("body", LIES.values(), ids=LIES.keys())
def test_an_answer_that_cannot_be_true_is_a_bad_listing(body: bytes) -> None:
    with scripted(lambda _asked: Answer(body=body)) as server, pytest.raises(BadListing, match="s3://b/"):
        source_of(server).list_page()


def test_a_body_shorter_than_announced_is_a_bad_listing() -> None:
    with scripted(lambda _asked: Answer(body=GOOD, length=len(GOOD) + 10)) as server, pytest.raises(BadListing):
        source_of(server).list_page()


def test_a_listing_that_breaks_off_once_is_asked_for_again() -> None:
    answers = iter([Answer(body=GOOD[:-50]), Answer(body=GOOD, cut=40), Answer(body=GOOD)])
    with scripted(lambda _asked: next(answers)) as server:
        assert [entry.key for entry in source_of(server).list_page().entries] == [b"a", b"b"]


def test_a_token_that_leads_to_itself_is_a_bad_listing() -> None:
    with scripted(lambda _asked: Answer(body=page_xml(["a"], token="same"))) as server, pytest.raises(BadListing, match="circle"):
        listing(source_of(server))


def test_a_server_that_ignores_start_after_is_passed_on_for_the_caller_to_see() -> None:
    with scripted(lambda _asked: Answer(body=GOOD)) as server:
        page = source_of(server).list_page(after=b"a")
        assert server.asked[0].query["start-after"] == "a"
    assert page.entries[0].key == b"a"


def test_keys_outside_of_the_prefix_are_a_bad_listing() -> None:
    with scripted(lambda _asked: Answer(body=GOOD)) as server, pytest.raises(BadListing, match="outside"):
        source_of(server, path="b/videos").list_page()


@pytest.mark.parametrize(("encoding", "key"), [("url", b"a b%+"), ("", b"a+b%25%2B")])
def test_keys_are_decoded_only_when_the_server_encoded_them(encoding: str, key: bytes) -> None:
    with scripted(lambda _asked: Answer(body=page_xml(["a+b%25%2B"], encoding=encoding))) as server:
        assert source_of(server).list_page().entries[0].key == key


def test_an_empty_page_with_a_token_goes_on() -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(body=page_xml(["z"]) if "continuation-token" in asked.query else page_xml([], token="next"))

    with scripted(answer) as server:
        assert [entry.key for entry in listing(source_of(server))] == [b"z"]


def test_a_storm_is_waited_out_as_long_as_the_server_asks() -> None:
    answers = iter([Answer(503, error_xml("SlowDown"), {"Retry-After": "7"}), Answer(500), Answer(body=GOOD)])
    waits: list[float] = []
    with scripted(lambda _asked: next(answers)) as server:
        assert len(source_of(server, waits).list_page().entries) == 2
    assert waits[0] == 7
    assert 0 < waits[1] < 2


def test_a_storm_without_end_is_down_after_a_few_tries() -> None:
    waits: list[float] = []
    with scripted(lambda _asked: Answer(503, error_xml("SlowDown"))) as server:
        with pytest.raises(ProviderDown, match="SlowDown"):
            source_of(server, waits).list_page()
        assert len(server.asked) == 4
    assert len(waits) == 3


def test_a_wait_longer_than_a_tick_is_left_to_the_caller() -> None:
    waits: list[float] = []
    with scripted(lambda _asked: Answer(429, b"", {"Retry-After": "3600"})) as server:
        with pytest.raises(ProviderDown, match="3600 s"):
            source_of(server, waits).list_page()
        assert len(server.asked) == 1
    assert waits == []


@pytest.mark.parametrize("answer", [Answer(body=GOOD, drip_s=0.05), Answer(403, error_xml("AccessDenied"), drip_s=0.05)])
def test_an_answer_that_drips_is_given_up(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixpeek_dagster.storage.http.ANSWER_S", 0.4)
    with scripted(lambda _asked: answer) as server:
        with pytest.raises(ProviderDown, match="has not ended"):
            source_of(server).list_page()
        assert server.dripped < len(answer.body)
        assert len(server.asked) == 1, "another try would take as long"


@pytest.mark.parametrize("status", [100, 200, 403])
def test_an_answer_whose_headers_drip_is_given_up(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixpeek_dagster.storage.egress.HEADERS_S", 0.3)
    with scripted(lambda _asked: Answer(status, GOOD, drip_head_s=0.02)) as server:
        source = source_of(server)
        source._http.backoff = Backoff(sleep=lambda _: None, tries=2)
        with pytest.raises(ProviderDown, match="did not answer in time"):
            source.list_page()
        assert len(server.asked) == 2


def test_headers_that_come_byte_by_byte_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time that they may take; a body may take longer."""
    now = [0.0]
    monkeypatch.setattr("mixpeek_dagster.storage.egress.time", SimpleNamespace(monotonic=lambda: now[0]))
    with scripted(lambda _asked: Answer(body=b"x" * 3_000_000, drip_head_s=0.001)) as server:
        source = source_of(server)
        for _ in range(2):
            with source.open(b"k") as stream:
                now[0] += 3600
                assert len(stream.read()) == 3_000_000
        assert len(server.connections) == 1


@pytest.mark.parametrize("headers_first", [False, True])
def test_a_server_that_says_nothing_is_not_waited_for_four_times(headers_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixpeek_dagster.storage.egress.READ_S", 0.3)
    over = threading.Event()

    def answer(_: Asked) -> Answer:
        if not headers_first:
            over.wait(30)
        return Answer(body=GOOD, drip_s=30)

    with scripted(answer) as server:
        source = source_of(server)
        source._http.backoff = Backoff(sleep=lambda _: None, first_s=0.0, most_s=0.4)
        with pytest.raises(ProviderDown, match="did not answer in time"):
            source.list_page()
        assert len(server.asked) == (1 if headers_first else 2)
        over.set()


@pytest.mark.parametrize(
    ("restore", "told"), [('ongoing-request="true"', "GLACIER"), ('ongoing-request="false", expiry-date="x"', "STANDARD")]
)
def test_a_file_that_is_restored_from_the_archive_for_a_while_can_be_read(restore: str, told: str) -> None:
    headers = {"ETag": '"1"', "x-amz-storage-class": "GLACIER", "x-amz-restore": restore}
    with scripted(lambda _asked: Answer(headers=headers)) as server:
        entry = source_of(server).head(b"a")
    assert entry is not None and entry.storage_class == told


RESTORED = (
    "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress><RestoreExpiryDate>2026-12-01T00:00:00.000Z</RestoreExpiryDate>"
    "</RestoreStatus>"
)
RESTORING = "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>"


def cold_xml(*statuses: str) -> bytes:
    """A page of archived files with these restore statuses."""
    page = page_xml([f"k{number}" for number in range(len(statuses))]).replace(b"STANDARD", b"GLACIER")
    for number, status in enumerate(statuses):
        page = re.sub(b"(<Key>k%d<.*?</StorageClass>)" % number, rb"\1" + status.encode(), page)
    return page


@pytest.mark.parametrize("statuses", list(itertools.permutations(["", RESTORING, RESTORED])))
def test_a_listing_tells_which_archived_files_can_be_read(statuses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(lambda _asked: Answer(body=cold_xml(*statuses))) as server:
        source = at_aws(server, monkeypatch)
        told = [entry.storage_class for entry in source.list_page().entries]
    assert told == ["STANDARD" if status == RESTORED else "GLACIER" for status in statuses]


def test_only_aws_is_asked_which_archived_files_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It alone says that it knows the header; others may refuse what they do not know, or sign it differently."""
    name = "x-amz-optional-object-attributes"
    with scripted(lambda _asked: Answer(body=GOOD)) as server:
        source_of(server).list_page()
        aws = at_aws(server, monkeypatch)
        aws.list_page()
        aws.head(b"a")
        assert [asked.headers.get(name) for asked in server.asked] == [None, "RestoreStatus", None]
        assert name in server.asked[1].headers["Authorization"]
        assert (aws.capabilities.shows_restored, source_of(server).capabilities.shows_restored) == (True, False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, True),
        ("https://s3.eu-west-3.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn", True),
        ("https://bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com:443/", True),
        ("https://S3.US-EAST-1.AMAZONAWS.COM", True),
        ("https://amazonaws.com.example.org", False),
        ("https://notamazonaws.com", False),
        ("https://s3.wasabisys.com/amazonaws.com", False),
        ("http://127.0.0.1:9000", False),
    ],
)
def test_aws_is_known_by_its_host(url: str | None, expected: bool) -> None:
    assert is_aws(Endpoint(url, "us-east-1", path_style=False)) is expected


ERRORS: list[tuple[int, str, type[Exception], str]] = [
    (403, "InvalidAccessKeyId", AccessDenied, "access_key_id"),
    (403, "SignatureDoesNotMatch", AccessDenied, "secret_access_key"),
    (403, "RequestTimeTooSkewed", AccessDenied, "clock"),
    (400, "ExpiredToken", AccessDenied, "expired"),
    (403, "AccessDenied", AccessDenied, "s3:ListBucket"),
    (403, "", AccessDenied, "403"),
    (404, "NoSuchBucket", WrongConnection, "does not exist"),
    (301, "PermanentRedirect", WrongConnection, "eu-west-3"),
    (400, "AuthorizationHeaderMalformed", WrongConnection, "eu-west-3"),
    (404, "", ProviderDown, "endpoint_url"),
    (400, "Strange", ProviderError, "400 Strange"),
    (403, "InvalidObjectState", Archived, "restore"),
]


@pytest.mark.parametrize(("status", "code", "kind", "words"), ERRORS, ids=lambda value: str(value))
def test_errors_tell_cause_and_remedy_and_no_secret(status: int, code: str, kind: type[MixpeekError], words: str) -> None:
    body = error_xml(code, "<Region>eu-west-3</Region>") if code else b""
    with scripted(lambda _asked: Answer(status, body)) as server:
        source = source_of(server)
        calls: list[Callable[[], object]] = [
            source.list_page,
            lambda: source.head(b"k"),
            lambda: source.open(b"k").__enter__(),
        ]
        for call in calls:
            with pytest.raises(kind, match=words) as raised:
                call()
            assert type(raised.value) is kind
            assert "do-not-show" not in str(raised.value)
            assert "private detail" not in str(raised.value)


def test_a_404_that_is_not_s3s_own_deletes_nothing() -> None:
    with scripted(lambda _asked: Answer(404, b"<html>proxy says no</html>")) as server:
        source = source_of(server)
        with pytest.raises(ProviderDown):
            source.head(b"k")
        with pytest.raises(ProviderDown), source.open(b"k"):
            pass


def test_only_no_such_key_is_gone() -> None:
    with scripted(lambda _asked: Answer(404, error_xml("NoSuchKey"))) as server:
        source = source_of(server)
        assert source.head(b"k") is None
        with pytest.raises(FileNotFoundError), source.open(b"k"):
            pass


def test_a_download_that_breaks_off_is_down_and_not_short() -> None:
    with (
        scripted(lambda _asked: Answer(body=b"x" * 1000, cut=500)) as server,
        pytest.raises(ProviderDown, match="before its end"),
        source_of(server).open(b"k") as stream,
    ):
        stream.read()


@pytest.mark.parametrize("time", ["yesterday", "", "Sun, 22 Nov 99999 00:00:00 GMT", "Sun, 22 Nov 2026 00:00:00 +9999999"])
def test_a_file_whose_time_is_none_is_there_and_is_read(time: str) -> None:
    with scripted(lambda _: Answer(body=b"abc", headers={"ETag": '"e"', "Last-Modified": time})) as server:
        source = source_of(server)
        found = source.head(b"k")
        assert found is not None
        assert (found.size, found.etag, found.modified_at) == (3, "e", 0.0)
        with source.open(b"k", if_match=found) as stream:
            assert stream.read() == b"abc"


@pytest.mark.parametrize("size", ["many", "-3", "3, 3"])
def test_a_file_whose_size_is_none_is_an_answer_that_cannot_be_true(size: str) -> None:
    with scripted(lambda _: Answer(body=b"", headers={"ETag": '"e"', "Content-Length": size})) as server:
        with pytest.raises(BadListing, match="s3://b/k"):
            source_of(server).head(b"k")


def test_a_bucket_whose_requesters_pay_is_read_by_a_connection_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.headers.get("x-amz-request-payer") != "requester" or "x-amz-request-payer" not in asked.headers["Authorization"]:
            return Answer(403, error_xml("AccessDenied"))
        return Answer(body=GOOD if "list-type" in asked.query else b"abc", headers={"ETag": '"e1"'})

    with scripted(answer) as server:
        with pytest.raises(AccessDenied, match="requester_pays"):
            source_of(server).list_page()
        config = {"endpoint_url": server.url, "credentials": KEYS, "requester_pays": True}
        source = open_source("s3", config, source_path="b", settings=allow(server.host))
        entry = source.list_page().entries[0]
        assert source.head(entry.key) is not None
        with source.open(entry.key, if_match=entry) as stream:
            assert stream.read() == b"abc"
        source.check()
        aws = at_aws(server, monkeypatch, requester_pays=True)
        assert len(aws.list_page().entries) == 2, "both headers are sent"


def test_a_file_under_a_key_of_the_customers_own_says_so() -> None:
    words = (
        "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve it."
    )
    body = error_xml("InvalidRequest").replace(b"private detail", words.encode())
    with scripted(lambda _: Answer(400, body)) as server:
        with pytest.raises(AccessDenied, match=r"s3://b/k.*SSE-C"), source_of(server).open(b"k"):
            pass
        with pytest.raises(AccessDenied, match=r"s3://b/k.*SSE-C"):
            source_of(server).head(b"k")


def test_a_redirect_is_not_followed() -> None:
    with scripted(lambda _asked: Answer(307, b"", {"Location": "http://169.254.169.254/latest"})) as server:
        with pytest.raises(WrongConnection):
            source_of(server).list_page()
        assert len(server.asked) == 1


def test_keys_are_sent_byte_for_byte() -> None:
    with scripted(lambda _asked: Answer(body=b"x")) as server:
        source = source_of(server)
        for key in (b"a/../b", b"a/./b", b"x//y", b"/lead", b"a b+c%"):
            with source.open(key) as stream:
                stream.read()
        assert [asked.path for asked in server.asked] == ["/b/a/../b", "/b/a/./b", "/b/x//y", "/b//lead", "/b/a%20b%2Bc%25"]
        assert all(asked.headers["Authorization"].startswith("AWS4-HMAC-SHA256") for asked in server.asked)


def test_connections_are_reused_when_answers_are_read_to_their_end() -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(body=GOOD if "list-type" in asked.query else b"x" * 100_000)

    with scripted(answer) as server:
        source = source_of(server)
        for _ in range(5):
            source.list_page()
            source.head(b"a")
            with source.open(b"a") as stream:
                stream.read()
        assert len(server.connections) == 1


KEY_TEXTS = ["a", "a+b", "a%2Bb", "%26%3C%25", "x%0Ay", "caf%C3%A9/%F0%9F%8E%89", "%01", "..//.", "plain key"]


@pytest.mark.parametrize(
    "change",
    [
        lambda xml: xml,
        lambda xml: xml.replace(b"<Size>", b"<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><Size>", 1),
        lambda xml: xml.replace(b"<StorageClass>STANDARD</StorageClass>", b"", 2),
        lambda xml: xml.replace(b"</Size>", b"</Size><Owner><ID>i</ID><DisplayName>d</DisplayName></Owner>"),
        lambda xml: xml.replace(b"</StorageClass>", b"</StorageClass>" + RESTORED.encode()),
        lambda xml: xml.replace(b"</StorageClass>", b"</StorageClass>" + RESTORED.encode(), 2),
        lambda xml: xml.replace(b"<Size>3</Size><", RESTORED.encode().replace(b"false", b"&#102;alse") + b"<Size>3</Size><"),
        lambda xml: xml.replace(b"</Contents><Contents>", b"</Contents>\n <Contents>"),
        lambda xml: xml.replace(b"&quot;e1&quot;", b"W/&quot;a&amp;b&quot;"),
        lambda xml: xml.replace(b"<Key>a</Key>", b"<Key><![CDATA[a]]></Key>"),
        lambda xml: xml.replace(b"<Contents><Key>a</Key>", b"<Contents><!-- x --><Key>a</Key>"),
        lambda xml: xml.replace(b"<Key>a</Key>", b"<Key>&#97;</Key>"),
        lambda xml: xml.replace(b"</Contents><Contents>", b"</Contents><CommonPrefixes/><Contents>", 1),
        lambda xml: xml.replace(b"<Size>3</Size>", b"", 1).replace(b"</StorageClass>", b"</StorageClass><Size>3</Size>", 1),
    ],
)
def test_every_layout_of_a_page_is_read_as_the_xml_parser_reads_it(change: Callable[[bytes], bytes]) -> None:
    body = change(page_xml(KEY_TEXTS))
    read = parse_page([body], what="s3://b/")
    plain = parse_page([body.replace(b"<Contents>", b"<Contents >")], what="s3://b/")  # only XML parsers see through that
    assert list(read.entries) == list(plain.entries)
    assert [entry.key for entry in read.entries][:5] == [b"a", b"a b", b"a+b", b"&<%", b"x\ny"]


def test_a_page_that_is_known_is_given_back_without_its_entries() -> None:
    body = page_xml(["a", "b"], token="t1")
    first = parse_page([body], what="s3://b/")
    again = parse_page([body.replace(b"t1", b"t2")], what="s3://b/", known=first.digest)
    assert (len(first.entries), again) == (2, Page((), "t2", first.digest))
    for other in (page_xml(["a", "b"]), body.replace(b"e1", b"e2", 1), page_xml(["a", "b"], token="t1", encoding="")):
        assert len(parse_page([other], what="s3://b/", known=first.digest).entries) == 2
    with pytest.raises(BadListing):
        parse_page([body[: -len("</ListBucketResult>")]], what="s3://b/", known=first.digest)
