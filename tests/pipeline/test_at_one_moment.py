"""What two processes do at one moment, on the database that lets them."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.documents import DocumentRecords
from mixpeek_dagster.catalog.syncs import SyncRecords
from mixpeek_dagster.errors import CatalogError
from mixpeek_dagster.models.objects import ObjectStatus
from mixpeek_dagster.pipeline.syncs import advance
from mixpeek_dagster.settings import Settings
from tests.pipeline.worlds import NOW, Clock, Library, emptied, opened_library


@pytest.fixture
def library(settings: Settings, clock: Clock, postgres_url: str) -> Iterator[Library]:
    """As the usual one, on Postgres."""
    with opened_library(replace(settings, catalog_url=emptied(postgres_url)), clock) as library:
        yield library


def test_a_pass_goes_on_from_where_the_last_holder_of_its_lock_left_it(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process ends the pass after this one has looked at the sync, and before it has the lock."""
    library.world.page_size = 2
    for name in "abcdef":
        library.world.put(f"{name}.txt", name.encode())
    library.advance(budget_s=0)
    lock, others = SyncRecords.lock, list[threading.Thread]()

    def ends_the_pass() -> None:
        advance(library.warehouse, library.sync.sync_id, budget_s=20, force=True)

    def lock_later(self: SyncRecords, *arguments: Any, **named: Any) -> bool:
        if not others:
            others.append(threading.Thread(target=ends_the_pass))
            others[0].start()
            others[0].join(1)  # it may have to wait for us
        return lock(self, *arguments, **named)

    monkeypatch.setattr(SyncRecords, "lock", lock_later)
    library.advance(budget_s=0)
    others[0].join(20)
    assert not others[0].is_alive()
    library.poll()
    lists = library.world.calls["list"]
    assert (lists, library.now().passes) in {(3, 1), (6, 2)}, "no page is listed twice in a pass"
    library.assert_follows_source()


def somebody_waits(library: Library) -> bool:
    with library.warehouse.catalog.reading() as records:
        return bool(records.connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar())


def _set_status(records: Records, object_ids: list[str]) -> None:
    records.objects.set_status(object_ids, ObjectStatus.COMPLETED, now=NOW)


def _fail(records: Records, object_ids: list[str]) -> None:
    records.objects.fail(dict.fromkeys(object_ids, "it broke"), now=NOW)


@pytest.mark.parametrize("write", [_set_status, _fail])
def test_who_says_how_objects_are_takes_them_in_the_order_of_their_ids(
    library: Library, write: Callable[[Records, list[str]], None]
) -> None:
    """As a run does that holds a window's objects: else the two wait for each other, and one of them is killed."""
    library.add_objects({name: name for name in ("obj_b", "obj_a")})
    catalog, failed = library.warehouse.catalog, list[CatalogError]()

    def writes() -> None:
        try:
            with catalog.transaction() as records:
                write(records, ["obj_b", "obj_a"])
        except CatalogError as error:
            failed.append(error)

    thread = threading.Thread(target=writes)
    with catalog.transaction() as records:
        records.objects.hold_all(["obj_a"])
        thread.start()
        while not somebody_waits(library):
            time.sleep(0.01)
        records.objects.hold_all(["obj_b"])
    thread.join(20)
    assert failed == []


def test_a_file_that_goes_while_its_documents_are_written_takes_them_along(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.world.put("a.txt", b"a")
    library.world.put("b.txt", b"bb")
    library.poll()
    put, passes = DocumentRecords.put, list[threading.Thread]()

    def put_later(self: DocumentRecords, *arguments: Any) -> int:
        library.world.delete("a.txt")
        passes.append(threading.Thread(target=library.poll))
        passes[0].start()
        while passes[0].is_alive() and not somebody_waits(library):
            time.sleep(0.01)
        return put(self, *arguments)

    monkeypatch.setattr(DocumentRecords, "put", put_later)
    library.run()
    passes[0].join(20)
    assert library.texts() == [2]
    library.assert_follows_source()
    library.assert_exact()
