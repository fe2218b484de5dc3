"""The ordered walk, against sorting everything."""

from hypothesis import given
from hypothesis import strategies as st

from mixpeek_dagster.errors import BadListing
from mixpeek_dagster.storage.provider import Entry
from mixpeek_dagster.storage.walk import Pager, walk

NAME = st.binary(min_size=1, max_size=3).filter(lambda name: b"/" not in name)
TREE = st.lists(st.lists(NAME, min_size=1, max_size=4).map(b"/".join), max_size=30, unique=True)


def scan_of(keys: list[bytes]):  # type: ignore[no-untyped-def]  # a test's helper
    """A file system of these files; a name that is both file and folder is only a folder."""
    files = {key for key in keys if not any(other.startswith(key + b"/") for other in keys)}

    def scan(folder: bytes) -> list[tuple[bytes, None]]:
        names = set()
        for key in files:
            if key.startswith(folder):
                name, slash, _ = key[len(folder) :].partition(b"/")
                names.add(name + slash)
        return [(name, None) for name in sorted(names)]

    return scan, sorted(files)


@given(TREE)
def test_a_walk_is_the_sorted_list_of_keys(keys: list[bytes]) -> None:
    scan, wanted = scan_of(keys)
    assert [key for key, _ in walk(scan)] == wanted


@given(TREE, st.binary(max_size=8))
def test_a_walk_after_any_bytes_is_what_sorts_above_them(keys: list[bytes], after: bytes) -> None:
    scan, wanted = scan_of(keys)
    assert [key for key, _ in walk(scan, after=after)] == [key for key in wanted if key > after]


@given(TREE, st.integers(1, 5), st.booleans())
def test_pages_lose_and_repeat_nothing(keys: list[bytes], limit: int, keep: bool) -> None:
    scan, wanted = scan_of(keys)

    def pager() -> Pager:
        return Pager(lambda after: (Entry(key, 0, "") for key, _ in walk(scan, after=after)))

    same, found, token = pager(), [], None
    while True:
        page = (same if keep else pager()).page(after=None, token=token, limit=limit)
        assert len(page.entries) <= limit
        found += [entry.key for entry in page.entries]
        token = page.token
        if token is None:
            break
    assert found == wanted


def test_a_folder_wholly_below_the_key_is_not_opened() -> None:
    opened = []

    def scan(folder: bytes) -> list[tuple[bytes, None]]:
        opened.append(folder)
        return [(b"a/", None), (b"b/", None), (b"c/", None)] if not folder else [(b"x", None)]

    assert [key for key, _ in walk(scan, after=b"b/a")] == [b"b/x", b"c/x"]
    assert opened == [b"", b"b/", b"c/"]


def test_a_token_of_somebody_else_is_refused() -> None:
    try:
        Pager(lambda _after: iter(())).page(after=None, token="not hex", limit=1)
    except BadListing:
        return
    raise AssertionError
