"""A noted page goes with the first write to a key in its range, and with no other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mixpeek_dagster.catalog import Catalog
from mixpeek_dagster.catalog.listed_pages import ListedPage
from mixpeek_dagster.models.ids import SyncId

SYNC = SyncId("sync_pages")
RANGES = [(b"", b"c"), (b"c", b"f"), (b"f", b"k")]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    with opened.transaction() as records:
        for number, (after, last) in enumerate(RANGES):
            records.listed_pages.put(SYNC, page(after, last, is_last=number == 2))
        records.listed_pages.put(SyncId("another"), page(b"", b"z"))
    yield opened
    opened.close()


def page(after: bytes, last: bytes, *, is_last: bool = False) -> ListedPage:
    return ListedPage(after, last, is_last, b"digest", "config", 10, 1, 100)


def noted(catalog: Catalog) -> list[bytes]:
    with catalog.reading() as records:
        found = [after for after, _ in RANGES if records.listed_pages.find(SYNC, after, config_hash="config")]
        assert records.listed_pages.find(SyncId("another"), b"", config_hash="config") is not None
        return found


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        ([b"a"], [b"c", b"f"]),
        ([b"c"], [b"c", b"f"]),
        ([b"c\0"], [b"", b"f"]),
        ([b"f"], [b"", b"f"]),
        ([b"g"], [b"", b"c"]),
        ([b"k"], [b"", b"c"]),
        ([b"zz"], [b"", b"c"]),  # behind the last page's last key: it says that nothing is there
        ([b"b", b"g"], []),
        ([], [b"", b"c", b"f"]),
    ],
)
def test_the_pages_of_written_keys_are_forgotten(catalog: Catalog, keys: list[bytes], left: list[bytes]) -> None:
    with catalog.transaction() as records:
        records.listed_pages.forget(SYNC, keys)
    assert noted(catalog) == left


def test_a_page_takes_the_place_of_those_it_overlaps(catalog: Catalog) -> None:
    with catalog.transaction() as records:
        records.listed_pages.put(SYNC, page(b"b", b"d"))
    assert noted(catalog) == [b"f"]
    with catalog.transaction() as records:
        records.listed_pages.put(SYNC, page(b"a", b"b", is_last=True))
        assert records.listed_pages.find(SYNC, b"b", config_hash="config") is None
    assert noted(catalog) == []


def test_a_page_of_another_configuration_is_not_known(catalog: Catalog) -> None:
    with catalog.reading() as records:
        assert records.listed_pages.find(SYNC, b"", config_hash="other") is None
        assert records.listed_pages.find(SYNC, b"", config_hash="config") == page(b"", b"c")
