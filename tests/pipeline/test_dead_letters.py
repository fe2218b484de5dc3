"""A poison object never stops the others: it is tried again, then laid aside with its reason until somebody asks for it."""

from collections.abc import Callable

import pytest

from mixpeek_dagster.errors import AccessDenied, ProviderDown
from mixpeek_dagster.models.batches import BatchStatus
from mixpeek_dagster.models.objects import MAX_TRIES, ObjectStatus
from mixpeek_dagster.pipeline.plans import plan_sync
from mixpeek_dagster.pipeline.sync_control import give_up, requeue
from mixpeek_dagster.pipeline.sync_reports import DEAD, dead_letters
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.testing import FakeSource
from tests.pipeline.worlds import Clock, Library

Poison = Callable[[Exception | None], None]


@pytest.fixture
def poison(library: Library, monkeypatch: pytest.MonkeyPatch) -> Poison:
    """Make the file `bad.txt` unreadable, or readable again; every other file stays as it is."""
    original, error = FakeSource.open, list[Exception]()

    def opened(self: FakeSource, key: bytes, **kwargs: object) -> object:
        if error and key == b"bad.txt":
            raise error[0]
        return original(self, key, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeSource, "open", opened)
    monkeypatch.setattr("mixpeek_dagster.pipeline.reading.time.sleep", lambda _: None)
    library.with_settings(max_failed_ratio=0.5)
    for number in range(10):
        library.world.put(f"good{number}.txt", b"good %d" % number)
    library.world.put("bad.txt", b"bad")

    def set_error(new: Exception | None) -> None:
        error[:] = [new] if new else []

    return set_error


def letters(library: Library) -> list[tuple[str, int, str]]:
    with library.warehouse.catalog.reading() as records:
        found, total = dead_letters(records, library.sync.sync_id, limit=100)
    assert total == len(found)
    return [(str(one.blobs[0].key), one.tries, str(one.error)) for one in found]  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [AccessDenied("403 on this key"), ProviderDown("503"), RuntimeError("what is this?")], ids=repr)
def test_an_object_that_fails_is_tried_three_times_and_then_a_dead_letter(
    library: Library, poison: Poison, error: Exception
) -> None:
    poison(error)
    for number in range(1, MAX_TRIES + 1):
        assert letters(library) == []
        planned = plan_sync(library.warehouse, library.sync.sync_id)
        before = len(library.batches())
        library.cycle()
        assert len(library.batches()) == before + 1
        assert planned.to_extract == library.batches()[-1].item_count
        assert library.objects()["bad.txt"].tries == number
    assert len(library.documents()) == 10, "the others are well"
    ((path, tries, words),) = letters(library)
    assert (path, tries) == ("bad.txt", MAX_TRIES)
    assert str(error) in words
    batches = len(library.batches())
    library.cycle()
    assert len(library.batches()) == batches, "it is left alone"
    with library.warehouse.catalog.transaction() as records:
        assert requeue(records, library.now(), DEAD, now=library.warehouse.now()) == 1
    poison(None)
    library.cycle()
    assert letters(library) == []
    assert library.object_statuses() == {ObjectStatus.COMPLETED}
    assert library.objects()["bad.txt"].tries == 0
    library.assert_exact()


def test_what_failed_in_the_only_pass_of_a_sync_is_a_dead_letter_at_once_and_can_be_tried_again(
    library: Library, poison: Poison
) -> None:
    """No pass follows that would."""
    library.configure(sync_mode="initial_only")
    poison(ProviderDown("503"))
    library.cycle()
    ((path, tries, words),) = letters(library)
    assert (path, tries) == ("bad.txt", 1)
    assert "503" in words
    poison(None)
    with library.warehouse.catalog.transaction() as records:
        assert requeue(records, library.now(), DEAD, now=library.warehouse.now()) == 1
    library.cycle()
    assert letters(library) == []
    assert len(library.documents()) == 11
    library.assert_exact()
    with library.warehouse.catalog.transaction() as records:
        assert give_up(records, library.now(), DEAD, now=library.warehouse.now()) == 0


def test_one_that_recovers_is_counted_from_the_start(library: Library, poison: Poison) -> None:
    poison(ProviderDown("503"))
    library.cycle()
    poison(None)
    library.cycle()
    assert library.object_statuses() == {ObjectStatus.COMPLETED}
    library.assert_exact()
    assert library.batches()[-1].status is BatchStatus.COMPLETED


def test_a_new_revision_of_a_dead_letter_is_a_new_start(library: Library, poison: Poison) -> None:
    poison(ProviderDown("503"))
    for _ in range(MAX_TRIES):
        library.cycle()
    assert len(letters(library)) == 1
    poison(None)
    library.world.put("bad.txt", b"mended")
    library.cycle()
    assert letters(library) == []
    library.assert_exact()


def test_a_fault_of_the_file_itself_is_not_tried_again(warehouse: Warehouse, clock: Clock) -> None:
    FakeSource.worlds.clear()
    library = Library(warehouse, clock, fail_on="bad")
    library.world.put("a.txt", b"bad")
    library.world.put("b.txt", b"good")
    library.cycle()
    assert [(path, tries) for path, tries, _ in letters(library)] == [("a.txt", MAX_TRIES)]
    batches = len(library.batches())
    library.cycle()
    assert len(library.batches()) == batches
    with library.warehouse.catalog.transaction() as records:
        assert give_up(records, library.now(), DEAD, now=library.warehouse.now()) == 1
    assert letters(library) == []
    library.cycle()
    assert len(library.batches()) == batches
