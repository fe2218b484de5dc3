"""Doing work again that was done: a full sync, and inferring what is known already."""

from mixpeek_dagster.models.batches import BatchStatus
from mixpeek_dagster.pipeline.sync_control import trigger as trigger_sync
from mixpeek_dagster.pipeline.triggers import Reembed, TriggerRequest, trigger
from tests.pipeline.worlds import Library


def ask(library: Library, *, full: bool) -> None:
    with library.warehouse.catalog.transaction() as records:
        trigger_sync(records, library.now(), full=full, now=library.warehouse.now())


def test_a_full_sync_takes_every_file_again_and_infers_none(library: Library) -> None:
    for name in "abc":
        library.world.put(f"{name}.txt", name.encode())
    library.cycle()
    before = {one.document_id for one in library.documents()}
    ask(library, full=False)
    assert library.cycle().counters.changed == 0
    ask(library, full=True)
    assert library.now().pending_full
    counters = library.cycle().counters
    assert (counters.listed, counters.changed, counters.new) == (3, 3, 0)
    assert not library.now().pending_full
    assert library.statuses() == {BatchStatus.COMPLETED}
    assert {one.document_id for one in library.documents()} == before
    assert library.inferred() == 3, "the contents are the same"
    assert library.cycle().counters.changed == 0, "the next pass is an ordinary one"
    library.assert_exact()


def test_a_full_sync_asked_for_during_a_pass_follows_it(library: Library) -> None:
    library.world.page_size = 1
    for name in "abc":
        library.world.put(f"{name}.txt", name.encode())
    assert not library.advance(budget_s=0).finished  # type: ignore[union-attr]
    ask(library, full=True)
    assert library.poll().counters.changed == 0
    assert library.poll().counters.changed == 3


def test_reembed_infers_again(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.cycle()
    assert library.inferred() == 1
    trigger(library.warehouse, library.passages, TriggerRequest(dedup_strategy="replace"))
    library.run()
    assert library.inferred() == 1
    for asked in (True, Reembed(only_missing=False)):
        trigger(library.warehouse, library.passages, TriggerRequest(dedup_strategy="replace", reembed=asked))
        library.run()
    assert library.inferred() == 3
    assert len(library.documents()) == 1
    library.assert_exact()
