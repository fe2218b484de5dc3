"""Box, against a stub of the calls that we make, which Box's own SDK takes for Box."""

import base64
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mixpeek_dagster.errors import AccessDenied, BadListing, CatalogError, Changed, Invalid, ProviderDown, WrongConnection
from mixpeek_dagster.storage.box import BoxConfig, BoxSource
from mixpeek_dagster.storage.connect import open_source
from mixpeek_dagster.storage.http import Backoff
from mixpeek_dagster.storage.tokens import Grant
from tests.storage.box_stub import APP, TOP, BoxStub, answered
from tests.storage.contract import ProviderContract, World, listing
from tests.storage.scripted import Answer, Asked, Scripted, scripted
from tests.storage.worlds import allow

CCG = {**APP, "enterprise_id": "1"}


def source_of(server: Scripted, credentials: dict[str, str] | None = None, waits: list[float] | None = None) -> BoxSource:
    config = {"endpoint_url": server.url, "credentials": credentials or CCG}
    source = open_source("box", config, source_path=TOP, settings=allow(server.host, server.other_host))
    assert isinstance(source, BoxSource)
    source._http.backoff = Backoff(sleep=(waits if waits is not None else []).append)
    return source


@pytest.fixture
def stub() -> BoxStub:
    return BoxStub()


@pytest.fixture
def server(stub: BoxStub) -> Iterator[Scripted]:
    with scripted(stub.answer) as running:
        yield running


class TestBox(ProviderContract):
    impossible = frozenset({"not utf-8", "double slash", "parent", "self", "leading slash", "folder marker", "backslash"})

    @pytest.fixture
    def world(self, stub: BoxStub, server: Scripted) -> World:
        def key_of(name: bytes) -> bytes:
            return (stub.find(name) or "999999").encode() + b"/" + name

        return World(source=source_of(server), put=stub.put, delete=stub.delete, key_of=key_of)

    def test_a_deleted_file_is_gone_everywhere(self, world: World) -> None:
        world.put(b"a.txt", b"x")
        world.put(b"b.txt", b"x")
        old = world.key(b"a.txt")
        world.delete(b"a.txt")
        assert [entry.key for entry in listing(world.source)] == [world.key(b"b.txt")]
        assert world.source.head(old) is None
        with pytest.raises(FileNotFoundError), world.source.open(old):
            pass


def test_a_listing_keeps_its_place_in_deep_and_wide_trees(stub: BoxStub, server: Scripted) -> None:
    wanted = {f"d{a}/e{b}/f{c}.txt" for a in range(4) for b in range(4) for c in range(3)}
    for path in wanted:
        stub.put(path.encode(), b"x")
    found: list[str] = []
    token = None
    while True:
        page = source_of(server).list_page(token=token, limit=2)  # a new source each time: nothing but the token is kept
        found += [source_of(server).relative(entry.key) for entry in page.entries]
        token = page.token
        if token is None:
            break
    assert sorted(found) == sorted(wanted)


def test_a_renamed_file_is_gone_under_its_old_name_and_keeps_its_location(stub: BoxStub, server: Scripted) -> None:
    stub.put(b"old.txt", b"x")
    source = source_of(server)
    (old,) = listing(source)
    (file_id,) = stub.files
    stub.files[file_id] = (TOP, "new.txt", b"x")
    (new,) = listing(source)
    assert source.head(old.key) is None
    assert source.location(old.key) == source.location(new.key) == f"box://{file_id}"
    stub.files[file_id] = ("0", "new.txt", b"x")
    assert source.head(new.key) is None  # moved out of the folder


def test_the_server_is_waited_for_as_long_as_it_asks(stub: BoxStub, server: Scripted) -> None:
    stub.put(b"a.txt", b"x")
    waits: list[float] = []
    source = source_of(server, waits=waits)
    stub.busy = 2
    assert len(listing(source)) == 1
    assert waits == [3, 3]


def test_client_credentials_name_their_subject_and_renew_themselves(stub: BoxStub, server: Scripted) -> None:
    source = source_of(server)
    source.check()
    stub.expired.add("token-0")
    source.check()
    assert [grant["grant_type"] for grant in stub.grants] == ["client_credentials"] * 2
    assert (stub.grants[0]["box_subject_type"], stub.grants[0]["box_subject_id"]) == ("enterprise", "1")


class Kept:
    """A keeper in memory, shared by what stands for several processes."""

    def __init__(self) -> None:
        self.saved: list[Grant] = []
        self.fails: Exception | None = None
        self.on_load: Callable[[], None] = lambda: None

    def load(self) -> Grant | None:
        self.on_load()
        return self.saved[-1] if self.saved else None

    def save(self, grant: Grant) -> None:
        if self.fails:
            raise self.fails
        self.saved.append(grant)


def oauth_source(server: Scripted, tokens: Kept) -> BoxSource:
    config = BoxConfig.model_validate(
        {
            "endpoint_url": server.url,
            "credentials": {**APP, "access_token": "given", "refresh_token": "once"},
        }
    )
    return BoxSource.connect(config, source_path=TOP, settings=allow(server.host, server.other_host), tokens=tokens)


def test_oauth_tokens_are_refreshed_and_the_new_pair_is_kept_before_it_is_used(stub: BoxStub, server: Scripted) -> None:
    kept = Kept()
    source = oauth_source(server, kept)
    source.check()
    assert stub.grants == []
    stub.expired |= {"given"}
    source.check()
    stub.expired |= {"token-0"}
    source.check()
    assert [grant["refresh_token"] for grant in stub.grants] == ["once", "refresh-1"]
    assert [grant.refresh_token for grant in kept.saved] == ["refresh-1", "refresh-2"]
    kept.fails = CatalogError("disk full")
    stub.expired |= {"token-1"}
    asked = len(server.asked)
    with pytest.raises(CatalogError):
        source.check()
    used = [one for one in server.asked[asked:] if one.headers.get("Authorization") == "Bearer token-2"]
    assert used == [], "a pair that is not kept is not used"
    kept.fails = None
    source.check()
    assert [grant.refresh_token for grant in kept.saved] == ["refresh-1", "refresh-2", "refresh-3"]
    assert len(stub.grants) == 3, "the pair that could not be kept at once was not lost"


def test_another_process_goes_on_with_the_pair_that_was_kept(stub: BoxStub, server: Scripted) -> None:
    kept = Kept()
    first, second = oauth_source(server, kept), oauth_source(server, kept)
    first.check()
    second.check()
    stub.expired |= {"given"}
    first.check()
    second.check()
    assert len(stub.grants) == 1, "the second took over what the first was given"
    oauth_source(server, kept).check()
    assert len(stub.grants) == 1


def test_two_processes_that_refresh_at_once_do_not_lock_each_other_out(stub: BoxStub, server: Scripted) -> None:
    """The second is refused, as the token works once, and then finds the first one's pair."""
    kept = Kept()
    source = oauth_source(server, kept)
    source._http.backoff = Backoff(sleep=lambda _: kept.saved.append(Grant("token-other", 3600, "refresh-other")))
    source.check()
    stub.expired |= {"given"}
    stub.used |= {"once"}
    source.check()
    assert kept.saved[-1].refresh_token == "refresh-other"


def test_a_refresh_token_that_nobody_has_the_next_of_says_to_log_in_again(stub: BoxStub, server: Scripted) -> None:
    kept = Kept()
    source = oauth_source(server, kept)
    source._http.backoff = Backoff(sleep=lambda _: None)
    stub.expired |= {"given"}
    stub.used |= {"once"}
    with pytest.raises(AccessDenied, match="log in again"):
        source.check()


def test_an_expired_oauth_token_without_refresh_is_denied(stub: BoxStub, server: Scripted) -> None:
    stub.expired.add("given")
    with pytest.raises(AccessDenied, match="refresh_token"):
        source_of(server, {**APP, "access_token": "given"}).check()


def test_a_key_pair_signs_its_assertion(stub: BoxStub, server: Scripted) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encryption = serialization.BestAvailableEncryption(b"pass")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()
    jwt = {**CCG, "jwt_key_id": "kid", "private_key": pem, "private_key_passphrase": "pass"}
    source_of(server, jwt).check()
    signed, _, signature = stub.grants[0]["assertion"].rpartition(".")
    padded = signature + "=" * (-len(signature) % 4)
    key.public_key().verify(base64.urlsafe_b64decode(padded), signed.encode(), padding.PKCS1v15(), hashes.SHA512())
    with pytest.raises(Invalid, match="private key"):
        source_of(server, {**jwt, "private_key_passphrase": "wrong"}).check()


@pytest.mark.parametrize(
    "credentials",
    [
        {"client_id": "a", "client_secret": "PRIVATE"},
        {"type": "oauth", "client_id": "a", "client_secret": "PRIVATE"},
        {"type": "jwt", "client_id": "a", "client_secret": "PRIVATE", "enterprise_id": "1"},
        {"client_secret": "PRIVATE"},
    ],
)
def test_incomplete_credentials_are_invalid(credentials: dict[str, str]) -> None:
    with pytest.raises(Invalid) as raised:
        open_source("box", {"credentials": credentials}, source_path="", settings=allow())
    assert "PRIVATE" not in str(raised.value)


@pytest.mark.parametrize("path", ["/Videos", "12a", "../1"])
def test_a_source_path_is_a_folder_id(path: str) -> None:
    with pytest.raises(Invalid, match="folder id"):
        open_source("box", {"credentials": CCG}, source_path=path, settings=allow())


def test_a_missing_folder_is_a_wrong_connection(server: Scripted) -> None:
    source = open_source(
        "box", {"endpoint_url": server.url, "credentials": CCG}, source_path="77", settings=allow(server.host, server.other_host)
    )
    with pytest.raises(WrongConnection):
        source.check()


def test_a_proxy_that_finds_nothing_is_no_missing_folder() -> None:
    with scripted(saying(Answer(404, b"<html>not found</html>"))) as server, pytest.raises(ProviderDown, match="404"):
        source_of(server).check()


def test_a_folder_that_a_proxy_does_not_find_is_not_empty(stub: BoxStub) -> None:
    stub.put(b"a/b.txt", b"x")
    inner = stub.folder(b"a/b.txt")

    def answer(asked: Asked) -> Answer:
        return Answer(404, b"<html>") if f"/folders/{inner}/" in asked.path else stub.answer(asked)

    with scripted(answer) as server, pytest.raises(ProviderDown, match="404"):
        listing(source_of(server))


def test_what_box_says_of_a_refused_login_is_told(server: Scripted) -> None:
    with pytest.raises(AccessDenied, match="invalid_client: The client credentials are invalid"):
        source_of(server, {**CCG, "client_secret": "wrong-PRIVATE"}).check()


Say = Callable[[Asked], Answer]


def saying(answer: Answer) -> Say:
    def say(asked: Asked) -> Answer:
        return answered({"access_token": "t", "expires_in": 60}) if asked.path == "/oauth2/token" else answer

    return say


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"entries": [{"type": "file"}]}', b"[]", b"[" * 200_000])
def test_an_answer_that_cannot_be_true_is_a_bad_listing(body: bytes) -> None:
    with scripted(saying(Answer(body=body))) as server, pytest.raises(BadListing):
        source_of(server).list_page()


LISTED = b'{"entries": [{"type": "file", "id": "1", "name": "a", "size": "x"}]}'


def test_a_listed_file_of_another_shape_is_a_bad_listing() -> None:
    with scripted(saying(Answer(body=LISTED))) as server, pytest.raises(BadListing):
        source_of(server).list_page()


OTHERS = [
    b"",
    b"<html>",
    b"[]",
    b"{}",
    b'{"id": "1", "name": "a.txt", "path_collection": []}',
    b'{"id": "2", "name": "a.txt", "path_collection": {"entries": [{"id": "100"}]}}',
    b"[" * 200_000,
]


@pytest.mark.parametrize("body", OTHERS)
def test_an_answer_that_is_no_file_is_down_and_says_so(body: bytes) -> None:
    with scripted(saying(Answer(body=body))) as server:
        source = source_of(server)
        with pytest.raises(ProviderDown, match="endpoint_url"):
            source.head(b"1/a.txt")
    with scripted(
        lambda asked: answered(EVENTS) if asked.path.endswith("/events") else saying(Answer(body=body))(asked)
    ) as server:
        with pytest.raises(ProviderDown, match="endpoint_url"):
            source_of(server).news("0")


EVENTS = {"entries": [{"event_type": "ITEM_UPLOAD", "source": {"type": "file", "id": "1"}}], "next_stream_position": 1}


def test_a_marker_that_leads_to_itself_and_a_broken_token_are_bad_listings() -> None:
    with scripted(saying(answered({"entries": [], "next_marker": "same"}))) as server, pytest.raises(BadListing):
        listing(source_of(server))
    with scripted(saying(Answer())) as server, pytest.raises(BadListing, match="start the pass again"):
        source_of(server).list_page(token="rubbish")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(403), AccessDenied),
        (Answer(404, b"<html>proxy</html>"), ProviderDown),
        (Answer(404, b"[" * 60_000), ProviderDown),
        (Answer(500), ProviderDown),
    ],
)
def test_errors_are_mapped(answer: Answer, kind: type[Exception]) -> None:
    with scripted(saying(answer)) as server:
        source = source_of(server)
        with pytest.raises(kind):
            source.head(b"1/a.txt")
        with pytest.raises(kind), source.open(b"1/a.txt"):
            pass


def test_a_file_replaced_since_the_listing_is_changed(stub: BoxStub, server: Scripted) -> None:
    stub.put(b"a.txt", b"one")
    source = source_of(server)
    (old,) = listing(source)
    stub.put(b"a.txt", b"two")
    with pytest.raises(Changed), source.open(old.key, if_match=old):
        pass


def test_a_file_that_was_just_uploaded_is_waited_for(stub: BoxStub) -> None:
    stub.put(b"a.txt", b"one")
    unready = [2]
    waits: list[float] = []

    def answer(asked: Asked) -> Answer:
        if asked.path.endswith("/content") and unready[0]:
            unready[0] -= 1
            return Answer(202, b"", {"Retry-After": "2"})
        return stub.answer(asked)

    with scripted(answer) as server:
        source = source_of(server, waits=waits)
        (entry,) = listing(source)
        with source.open(entry.key, if_match=entry) as stream:
            assert stream.read() == b"one"
        assert waits == [2, 2]
        unready[0] = 100
        with pytest.raises(ProviderDown, match="not ready"), source.open(entry.key):
            pass


# Events


def test_events_name_files_by_their_key_of_now_and_all_that_is_registered_of_them(stub: BoxStub, server: Scripted) -> None:
    stub.put(b"a/new name.txt", b"x")
    (file_id,) = stub.files
    stub.tell("ITEM_UPLOAD", {"type": "file", "id": "998"})
    config = {"endpoint_url": server.url, "credentials": CCG, "events": True}
    source = open_source("box", config, source_path=TOP, settings=allow(server.host, server.other_host))
    assert isinstance(source, BoxSource)
    assert source.capabilities.feed
    first = source.news(None)
    assert (first.messages, first.position) == (0, "1"), "the first pass has seen what happened before"
    stub.tell("ITEM_RENAME", {"type": "file", "id": file_id})
    stub.tell("ITEM_RENAME", {"type": "file", "id": file_id})
    stub.tell("ITEM_TRASH", {"type": "file", "id": "999"})
    stub.tell("ITEM_CREATE", {"type": "folder", "id": "5"})
    stub.tell("COMMENT_CREATE", {"type": "file", "id": "7"})
    stub.tell("ITEM_UPLOAD", {"type": "file", "id": "../users/me"})
    stub.tell("ITEM_UPLOAD", None)
    stub.events.append("malformed")
    news = source.news(first.position)
    assert (news.messages, news.position, news.everything) == (8, "9", False)
    assert list(news.keys) == [f"{file_id}/a/new name.txt".encode()]
    assert list(news.prefixes) == [f"{file_id}/".encode(), b"999/"]
    stub.tell("ITEM_MOVE", {"type": "folder", "id": "5"})
    assert source.news("9").everything
    lost = source.news("forgotten")
    assert (lost.everything, lost.position, lost.messages) == (True, "10", 1)
