"""What every provider must do.

A vendor's test subclasses `ProviderContract` and supplies a `world`: an empty source, and a way to put and delete files behind
its back.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import pytest

from mixpeek_dagster.errors import Changed
from mixpeek_dagster.storage.provider import Entry, ObjectSource

AWKWARD = {
    "plain": b"a.txt",
    "spaces": b"a b  c.txt",
    "percent": b"100%25 %zz %.txt",
    "plus": b"a+b&c=d?e#f.txt",
    "star": b"*[x]{y}.txt",
    "quotes": b'it\'s "quoted" <&>.txt',
    "unicode composed": "caf\u00e9.txt".encode(),
    "unicode decomposed": "cafe\u0301.txt".encode(),
    "emoji": "\U0001f389 party/\U0001f600.txt".encode(),
    "nested": b"a/b/c/d/e/f.txt",
    "dots in names": b"..a/.hidden/...txt",
    "tab": b"tab\there.txt",
    "newline": b"new\nline.txt",
    "control": b"control\x01.txt",
    "backslash": b"back\\slash.txt",
    "double slash": b"x//y.txt",
    "parent": b"a/../b.txt",
    "self": b"a/./b.txt",
    "leading slash": b"/lead.txt",
    "long": b"l" * 200 + b"/" + b"m" * 200 + b".txt",
    "folder marker": b"marker/",
    "not utf-8": b"\xff\xfe.txt",
}
"""Keys that have broken clients. A provider that cannot hold one names it in `impossible`."""

ORDER_TRAP = [b"a-b", b"a.b", b"a/b", b"a/c", b"a0", "\uff5e".encode(), "\U0001f600".encode()]
"""In byte order. Tree order puts `a/b` before `a-b`, UTF-16 order puts the emoji before U+FF5E."""


PARTS = [(0, 10), (7, 300), (990, 10), (990, 11), (990, None), (0, None), (0, 5000), (1000, 5), (4000, None)]
"""Starts and lengths within, across and behind the end of 1000 bytes."""


@dataclass(frozen=True)
class World:
    """An empty source, and the other side of it. `put` and `delete` take names: paths below the source path.

    `prefix` is what the source's keys start with; `key_of`, where that is not all, is the key of a name.
    """

    source: ObjectSource
    put: Callable[[bytes, bytes], None]
    delete: Callable[[bytes], None]
    prefix: bytes = b""
    key_of: Callable[[bytes], bytes] | None = None

    def key(self, name: bytes) -> bytes:
        return self.key_of(name) if self.key_of else self.prefix + name


def listing(source: ObjectSource, *, after: bytes | None = None, limit: int = 1000) -> list[Entry]:
    """Every entry, page by page along the tokens."""
    page = source.list_page(after=after, limit=limit)
    entries = list(page.entries)
    while page.token is not None:
        page = source.list_page(token=page.token, limit=limit)
        entries.extend(page.entries)
    return entries


class ProviderContract:
    """The tests. `impossible` names `AWKWARD` keys that the provider cannot hold; `keeps_its_order` is off for a server that
    promises byte order and does not list in it."""

    impossible: ClassVar[frozenset[str]] = frozenset()
    order_trap: ClassVar[list[bytes]] = ORDER_TRAP
    keeps_its_order: ClassVar[bool] = True

    @pytest.fixture
    def world(self) -> World:
        raise NotImplementedError

    def awkward(self) -> Mapping[str, bytes]:
        return {name: key for name, key in AWKWARD.items() if name not in self.impossible}

    def test_an_empty_source_lists_nothing_and_passes_its_check(self, world: World) -> None:
        assert listing(world.source) == []
        assert world.source.check() is False

    def test_awkward_keys_are_listed_looked_at_and_opened_byte_for_byte(self, world: World) -> None:
        for name, path in self.awkward().items():
            world.put(path, name.encode())
        wanted = {world.key(path): name.encode() for name, path in self.awkward().items()}

        entries = {entry.key: entry for entry in listing(world.source)}
        assert sorted(entries) == sorted(wanted)
        for key, body in wanted.items():
            assert entries[key].size == len(body)
            with world.source.open(key, if_match=entries[key]) as stream:
                assert stream.read() == body, key
            found = world.source.head(key)
            assert found is not None, key
            assert (found.key, found.size, found.etag, found.version) == (
                key,
                len(body),
                entries[key].etag,
                entries[key].version,
            )

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
    def test_any_page_size_lists_the_same(self, world: World, limit: int) -> None:
        for number in range(7):
            world.put(b"d%d/f%d.txt" % (number % 3, number), b"x")
        found = [entry.key for entry in listing(world.source, limit=limit)]
        assert sorted(found) == sorted(world.key(b"d%d/f%d.txt" % (number % 3, number)) for number in range(7))
        assert len(set(found)) == len(found)

    def test_a_page_holds_at_most_its_limit(self, world: World) -> None:
        for number in range(5):
            world.put(b"f%d.txt" % number, b"x")
        assert len(world.source.list_page(limit=2).entries) <= 2

    def test_the_promised_order_is_kept(self, world: World) -> None:
        if world.source.capabilities.order != "bytes" or not self.keeps_its_order:
            pytest.skip("promises no order, or is known to break its promise")
        for name in self.order_trap:
            world.put(name, b"x")
        assert [entry.key for entry in listing(world.source, limit=2)] == [world.key(name) for name in self.order_trap]

    def test_a_listing_is_resumed_after_any_key_also_one_that_is_gone(self, world: World) -> None:
        if not world.source.capabilities.start_after or not self.keeps_its_order:
            pytest.skip("cannot be resumed after a key")
        for name in self.order_trap:
            world.put(name, b"x")
        world.delete(b"a/b")
        left = [name for name in self.order_trap if name != b"a/b"]
        for name in [*self.order_trap, b"a", b"a/", b"a/bb", b"a/zzz", b"zzz"]:
            found = [entry.key for entry in listing(world.source, after=world.key(name), limit=2)]
            assert found == [world.key(other) for other in left if other > name], name

    def test_a_missing_file_is_none_to_head_and_an_error_to_open(self, world: World) -> None:
        world.put(b"there.txt", b"x")
        for name in (b"missing.txt", b"there.txt/below", b"no/such/folder.txt"):
            assert world.source.head(world.key(name)) is None
            with pytest.raises(FileNotFoundError), world.source.open(world.key(name)):
                pass

    def test_a_file_outside_of_the_source_is_none_to_head(self, world: World) -> None:
        """Also when it is there: after a change of path a pass must find out that what it had registered is none of its own."""
        assert world.source.head(b"elsewhere/" + world.key(b"a.txt")) is None

    def test_a_deleted_file_is_gone_everywhere(self, world: World) -> None:
        world.put(b"a.txt", b"x")
        world.put(b"b.txt", b"x")
        (first, _) = listing(world.source)
        world.delete(b"a.txt")
        assert [entry.key for entry in listing(world.source)] == [world.key(b"b.txt")]
        assert world.source.head(world.key(b"a.txt")) is None
        with pytest.raises(FileNotFoundError), world.source.open(world.key(b"a.txt"), if_match=first):
            pass

    def test_a_changed_file_is_not_opened_as_the_revision_that_was_listed(self, world: World) -> None:
        world.put(b"a.txt", b"one")
        (old,) = listing(world.source)
        world.put(b"a.txt", b"two")
        (new,) = listing(world.source)
        assert (old.etag, old.version) != (new.etag, new.version)
        with pytest.raises(Changed), world.source.open(old.key, if_match=old):
            pass
        with world.source.open(new.key, if_match=new) as stream:
            assert stream.read() == b"two"

    def test_an_empty_file_is_read_as_empty(self, world: World) -> None:
        world.put(b"empty.bin", b"")
        (entry,) = listing(world.source)
        assert entry.size == 0
        with world.source.open(entry.key, if_match=entry) as stream:
            assert stream.read() == b""

    def test_five_megabytes_are_streamed_in_pieces(self, world: World) -> None:
        body = bytes(range(256)) * (5 * 4096)
        world.put(b"five.bin", body)
        (entry,) = listing(world.source)
        assert entry.size == len(body)
        with world.source.open(entry.key, if_match=entry) as stream:
            pieces = list(iter(lambda: stream.read(100_000), b""))
        assert len(pieces) > 10
        assert b"".join(pieces) == body

    def test_a_reader_may_stop_early(self, world: World) -> None:
        world.put(b"big.bin", b"x" * 5_000_000)
        for _ in range(3):
            with world.source.open(world.key(b"big.bin")) as stream:
                assert stream.read(10) == b"x" * 10
        assert world.source.head(world.key(b"big.bin")) is not None

    def test_a_part_of_a_file_is_read_as_a_slice_is(self, world: World) -> None:
        for body in (bytes(range(250)) * 4, b""):
            world.put(b"a.bin", body)
            (entry,) = listing(world.source)
            for start, length in PARTS:
                with world.source.open(entry.key, if_match=entry, start=start, length=length) as stream:
                    assert stream.read() == body[start:][:length], (start, length)

    def test_a_part_of_another_revision_or_of_no_file_is_not_read(self, world: World) -> None:
        world.put(b"a.bin", b"one")
        (old,) = listing(world.source)
        world.put(b"a.bin", b"two and more")
        with pytest.raises(Changed), world.source.open(old.key, if_match=old, start=1, length=1):
            pass
        world.delete(b"a.bin")
        with pytest.raises(FileNotFoundError), world.source.open(old.key, start=1, length=1):
            pass

    def test_entries_carry_time_and_content_type(self, world: World) -> None:
        world.put(b"photo.jpg", b"x")
        (entry,) = listing(world.source)
        assert entry.modified_at > 1.6e9
        assert entry.content_type == "image/jpeg"

    def test_names_below_the_source_path_are_given_as_text(self, world: World) -> None:
        assert world.source.relative(world.key("x/caf\u00e9.txt".encode())) == "x/caf\u00e9.txt"
        world.put(b"x/a.txt", b"x")
        world.put(b"x/b.txt", b"x")
        assert sorted(world.source.relative(entry.key) for entry in listing(world.source)) == ["x/a.txt", "x/b.txt"]
        assert len({world.source.location(entry.key) for entry in listing(world.source)}) == 2

    def test_a_source_is_shared_between_threads(self, world: World) -> None:
        for number in range(12):
            world.put(b"f%02d.txt" % number, b"%02d" % number)

        def read_all(limit: int) -> list[bytes]:
            found = []
            for entry in listing(world.source, limit=limit):
                with world.source.open(entry.key, if_match=entry) as stream:
                    found.append(stream.read())
            return sorted(found)

        with ThreadPoolExecutor(4) as threads:
            for found in threads.map(read_all, [2, 3, 5, 12]):
                assert found == [b"%02d" % number for number in range(12)]

    def test_check_reads_a_file(self, world: World) -> None:
        world.put(b"a.txt", b"x")
        assert world.source.check() is True
