"""Mux, against a stub of the calls that we make, which Mux's own SDK takes for Mux."""

from collections.abc import Iterator

import pytest

from mixpeek_dagster.errors import AccessDenied, BadListing, Changed, Invalid, ProviderDown, WrongConnection
from mixpeek_dagster.storage.connect import open_source
from mixpeek_dagster.storage.http import Backoff
from mixpeek_dagster.storage.mux import MuxSource
from tests.storage.contract import ProviderContract, World, listing
from tests.storage.mux_stub import CREDENTIALS, MuxStub, answered, asset, rendition
from tests.storage.scripted import Answer, Scripted, scripted
from tests.storage.worlds import allow


def source_of(server: Scripted, path: str = "mux://", **credentials: str) -> MuxSource:
    config = {"endpoint_url": server.url, "stream_url": server.url, "credentials": {**CREDENTIALS, **credentials}}
    source = open_source("mux", config, source_path=path, settings=allow(server.host))
    assert isinstance(source, MuxSource)
    source._http.backoff = Backoff(sleep=lambda _s: None)
    return source


@pytest.fixture
def stub() -> MuxStub:
    return MuxStub()


@pytest.fixture
def server(stub: MuxStub) -> Iterator[Scripted]:
    with scripted(stub.answer) as running:
        yield running


class TestMux(ProviderContract):
    """An asset is made, not named: a file's name is what we call the asset, and a file that changes is another rendition of it."""

    @pytest.fixture
    def world(self, stub: MuxStub, server: Scripted) -> World:
        def put(name: bytes, body: bytes) -> None:
            stub.bodies[name.hex()] = body
            made = len(stub.assets.get(name.hex(), {}).get("static_renditions", {}).get("files", []))
            files = [rendition(f"{number}.mp4", body, height=360 + number) for number in range(made + 1)]
            stub.add(asset(name.hex(), *files))

        def key_of(name: bytes) -> bytes:
            return name.hex().encode() + b".mp4"

        return World(source=source_of(server), put=put, delete=lambda name: stub.assets.pop(name.hex()), key_of=key_of)

    def test_entries_carry_time_and_content_type(self, world: World) -> None:
        world.put(b"photo.jpg", b"x")
        (entry,) = listing(world.source)
        assert (entry.modified_at, entry.content_type) == (1795000000, "video/mp4")

    def test_names_below_the_source_path_are_given_as_text(self, world: World) -> None:
        world.put(b"x", b"x")
        assert [world.source.relative(entry.key) for entry in listing(world.source)] == ["78.mp4"]


def test_ready_assets_with_an_mp4_are_listed_and_others_are_not(stub: MuxStub, server: Scripted) -> None:
    stub.add(
        asset("good", rendition("low.mp4", height=360), rendition("high.mp4", height=1080), rendition("audio.m4a", height=9999)),
        asset("preparing", rendition("high.mp4"), status="preparing"),
        asset("bare"),
        asset("nothing", static_renditions=None),
        asset("unfinished", rendition("high.mp4", status="preparing")),
        asset("legacy", {"name": "high.mp4", "filesize": "5"}),
    )
    source = source_of(server)
    source.check()
    entries = {entry.key: entry for entry in listing(source)}
    assert sorted(entries) == [b"good.mp4", b"legacy.mp4"]
    assert entries[b"good.mp4"].etag == "high.mp4-5"
    assert entries[b"good.mp4"].modified_at == 1795000000
    assert entries[b"good.mp4"].content_type == "video/mp4"
    assert source.head(b"good.mp4") == entries[b"good.mp4"]
    assert source.head(b"bare.mp4") is None
    with source.open(b"good.mp4", if_match=entries[b"good.mp4"]) as stream:
        assert stream.read() == b"movie"
    assert server.asked[-1].path == "/playgood/high.mp4"
    assert "Authorization" not in server.asked[-1].headers


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
def test_any_page_size_lists_the_same(stub: MuxStub, server: Scripted, limit: int) -> None:
    stub.add(*(asset(f"a{number}", *([rendition("high.mp4")] if number % 2 else [])) for number in range(250)))
    source = source_of(server)
    assert len({entry.key for entry in listing(source, limit=limit)}) == 125
    assert len(source.list_page(limit=limit).entries) <= limit


def test_a_better_rendition_is_another_revision(stub: MuxStub, server: Scripted) -> None:
    stub.add(asset("a", rendition("low.mp4", height=360)))
    source = source_of(server)
    (old,) = listing(source)
    stub.add(asset("a", rendition("low.mp4", height=360), rendition("high.mp4", height=1080)))
    (new,) = listing(source)
    assert new.key == old.key
    assert new.etag != old.etag
    with pytest.raises(Changed), source.open(old.key, if_match=old):
        pass


def test_one_asset_can_be_named(stub: MuxStub, server: Scripted) -> None:
    stub.add(asset("a1", rendition("high.mp4")), asset("b2", rendition("high.mp4")), asset("bare"))
    assert [entry.key for entry in listing(source_of(server, "mux://b2"))] == [b"b2.mp4"]
    assert listing(source_of(server, "mux://bare")) == []
    with pytest.raises(WrongConnection):
        listing(source_of(server, "mux://none"))
    with pytest.raises(Invalid):
        source_of(server, "mux://a/b")


def test_missing_and_private_files(stub: MuxStub, server: Scripted) -> None:
    stub.add(asset("private", rendition("high.mp4"), playback_ids=[{"id": "x", "policy": "signed"}]))
    source = source_of(server)
    assert source.head(b"none.mp4") is None
    with pytest.raises(FileNotFoundError), source.open(b"none.mp4"):
        pass
    with pytest.raises(AccessDenied, match="public playback id"), source.open(b"private.mp4"):
        pass


def test_a_wrong_token_is_denied_and_not_shown(server: Scripted) -> None:
    with pytest.raises(AccessDenied) as raised:
        source_of(server, access_token_secret="very-wrong").check()
    assert "very-wrong" not in str(raised.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"data": [{}]}', b"[" * 200_000])
def test_an_answer_that_cannot_be_true_is_a_bad_listing(body: bytes) -> None:
    with scripted(lambda _asked: Answer(body=body)) as server, pytest.raises(BadListing):
        source_of(server).list_page()


UNLIKE = [
    {"id": "a", "status": "ready", "static_renditions": 7},
    {"id": "a", "status": "ready", "static_renditions": {"files": [7]}},
    {"id": "a", "status": "ready", "static_renditions": {"files": [rendition("a.mp4", filesize="x")]}},
    asset("a", rendition("a.mp4"), created_at="yesterday"),
    {"id": "other"},
]


@pytest.mark.parametrize("made", UNLIKE[:-1], ids=str)
def test_a_listed_asset_of_another_shape_is_a_bad_listing(made: dict[str, object]) -> None:
    with scripted(lambda _asked: answered({"data": [made]})) as server, pytest.raises(BadListing):
        source_of(server).list_page()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"data": [7]}', b"[" * 200_000, *(answered({"data": made}).body for made in UNLIKE)]
)
def test_an_answer_that_is_no_asset_is_down_and_says_so(body: bytes) -> None:
    with scripted(lambda _asked: Answer(body=body)) as server:
        with pytest.raises(ProviderDown, match="endpoint_url"):
            source_of(server).head(b"a.mp4")
        with pytest.raises(ProviderDown, match="endpoint_url"), source_of(server).open(b"a.mp4"):
            pass


def test_a_cursor_that_leads_to_itself_is_a_bad_listing() -> None:
    with scripted(lambda _asked: answered({"data": [], "next_cursor": "same"})) as server, pytest.raises(BadListing):
        listing(source_of(server))


def test_somebody_elses_404_deletes_nothing() -> None:
    with scripted(lambda _asked: Answer(404, b"<html>proxy</html>")) as server, pytest.raises(ProviderDown):
        source_of(server).head(b"a.mp4")
