"""A file that changes between being listed and being read is looked at again at once, and never for ever."""

from collections.abc import Callable

import pytest

from mixpeek_dagster.errors import ProviderDown
from mixpeek_dagster.models.batches import BatchStatus
from mixpeek_dagster.models.objects import ObjectStatus
from mixpeek_dagster.pipeline import second_looks
from mixpeek_dagster.pipeline.batches import fail_part
from mixpeek_dagster.pipeline.extraction import run_step
from tests.pipeline.worlds import Library, windows_of


def run_all(library: Library, *, most: int = 10) -> int:
    """Run batches until none is queued; how many rounds it took."""
    for number in range(most):
        if not library.run():
            return number
    raise AssertionError("batches make batches for ever")


def once(library: Library, method: str, happens: Callable[[], object]) -> None:
    """Let something happen when the source is next called so."""

    def before(name: str) -> None:
        if name == method:
            library.world.before = lambda _: None
            happens()

    library.world.before = before


@pytest.fixture
def listed(library: Library) -> Library:
    """Six files that are listed and not read yet."""
    for name in "abcdef":
        library.world.put(f"{name}.txt", name.encode())
    library.poll()
    return library


def test_changed_files_are_read_as_they_are_without_another_pass(listed: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    windows_of(monkeypatch, 4)
    listings = listed.world.calls["list"]
    listed.world.put("a.txt", b"changed")
    listed.world.put("c.txt", b"changed too")
    (report,) = listed.run()
    assert (report.step.skipped, report.step.documents, report.step.failed) == (2, 4, 0)
    assert listed.world.calls["head"] == 2
    assert run_all(listed) == 1, "one window, one batch"
    assert listed.texts() == [1, 1, 1, 1, 7, 11]
    assert listed.world.calls["list"] == listings
    assert listed.statuses() == {BatchStatus.COMPLETED}
    assert listed.object_statuses() == {ObjectStatus.COMPLETED}
    listed.assert_follows_source()
    listed.assert_exact()
    assert listed.poll().counters.changed == 0


def test_a_file_that_went_loses_its_object_and_one_that_is_back_does_not(listed: Library) -> None:
    listed.world.delete("a.txt")

    def comes_back(name: str) -> None:
        if name == "head":
            listed.world.put("b.txt", b"back")

    listed.world.delete("b.txt")
    listed.world.before = comes_back
    run_all(listed)
    listed.world.before = lambda _: None
    assert listed.texts() == [1, 1, 1, 1, 4]
    listed.assert_follows_source()


def test_a_file_that_was_away_for_a_moment_is_read_after_all(listed: Library) -> None:
    """It is back as it was listed, so no pass would see anything new in it."""
    kept = listed.world.files.pop(b"a.txt")

    def comes_back(name: str) -> None:
        if name == "head":
            listed.world.files[b"a.txt"] = kept

    listed.world.before = comes_back
    (report,) = listed.run()
    assert (report.step.skipped, report.step.failed) == (1, 0)
    assert run_all(listed) == 1
    assert listed.texts() == [1] * 6
    listed.assert_exact()


def test_a_file_that_is_away_during_a_pass_is_read_at_its_end(listed: Library) -> None:
    listed.world.page_size = 1
    listed.advance(budget_s=0)
    kept = listed.world.files.pop(b"a.txt")
    listed.run()
    listed.world.files[b"a.txt"] = kept
    listed.poll()
    run_all(listed)
    assert listed.texts() == [1] * 6
    listed.assert_exact()


def test_a_file_that_a_pass_took_away_before_it_was_looked_at_is_no_failure(listed: Library) -> None:
    def goes() -> None:
        listed.world.delete("a.txt")
        listed.poll()

    once(listed, "open", goes)
    (report,) = listed.run()
    assert (report.step.skipped, report.step.failed, report.step.documents) == (1, 0, 5)
    listed.assert_follows_source()
    listed.assert_exact()


def test_files_of_a_source_that_was_away_while_they_were_read_are_read_when_it_is_back(listed: Library) -> None:
    kept = dict(listed.world.files)
    listed.world.files.clear()
    (report,) = listed.run()
    assert (report.step.documents, report.step.failed) == (0, 6)
    assert "not believed to be gone" in str(listed.objects()["a.txt"].error)
    for _ in range(5):
        assert listed.poll().counters.held == 6
        assert listed.run() == [], "of a source that names nothing no file is tried again"
    listed.world.files.update(kept)
    listed.cycle()
    assert listed.texts() == [1] * 6
    listed.assert_exact()


def test_a_file_that_a_later_batch_has_is_not_put_into_a_third(listed: Library) -> None:
    (claimed,) = listed.claim()
    listed.world.put("a.txt", b"changed")
    listed.poll()
    run_step(listed.warehouse, claimed.part.partition_key, listed.passages, run_id="first")
    assert len(listed.batches()) == 2
    run_all(listed)
    assert listed.texts() == [1, 1, 1, 1, 1, 7]
    listed.assert_exact()


def test_what_a_pass_records_while_a_file_is_read_is_not_put_into_a_third_batch(listed: Library) -> None:
    def changes() -> None:
        listed.world.put("a.txt", b"changed")
        listed.poll()

    once(listed, "open", changes)
    (report,) = listed.run()
    assert (report.step.skipped, report.step.failed) == (1, 0)
    assert len(listed.batches()) == 2
    run_all(listed)
    assert listed.texts() == [1, 1, 1, 1, 1, 7]
    listed.assert_exact()


def test_a_file_that_is_not_taken_any_more_when_it_is_read_loses_its_object(listed: Library) -> None:
    listed.configure(file_filters={"max_size_bytes": 5})
    listed.poll()
    once(listed, "open", lambda: listed.world.put("a.txt", b"large by now"))
    listed.run()
    assert len(listed.batches()) == 1
    assert sorted(listed.objects()) == [f"{name}.txt" for name in "bcdef"]
    listed.assert_exact()


def test_a_file_that_may_not_be_asked_for_keeps_no_other_from_being_looked_at(
    listed: Library, refuse: Callable[[str], None]
) -> None:
    refuse("a")
    listed.world.put("a.txt", b"changed")
    listed.world.put("b.txt", b"changed, too")
    (report,) = listed.run()
    assert (report.step.skipped, report.step.failed, report.step.documents) == (1, 1, 4)
    run_all(listed)
    assert listed.texts() == [1, 1, 1, 1, 12]


def test_of_an_emptied_source_nothing_is_deleted_until_somebody_confirms(listed: Library) -> None:
    listed.world.files.clear()
    run_all(listed)
    assert len(listed.objects()) == 6
    assert listed.poll().counters.held == 6


@pytest.mark.parametrize(("part", "deleted"), [(10_000, 40 + 40), (85, 40 + 40 + 5)], ids=["one run", "several runs"])
def test_between_two_passes_no_more_is_deleted_than_one_believes_without_asking(
    library: Library, monkeypatch: pytest.MonkeyPatch, part: int, deleted: int
) -> None:
    windows_of(monkeypatch, 40)
    library.with_settings(max_objects_per_run=part)
    for number in range(170):
        library.world.put(f"{number:03}.txt", b"x")
    library.poll()
    for number in range(160):
        library.world.delete(f"{number:03}.txt")
    run_all(library)
    assert len(library.objects()) == 170 - deleted, "another window would have been more than a hundred"


@pytest.mark.parametrize("config", [{}, {"sync_mode": "initial_only"}], ids=["continuous", "initial only"])
def test_a_file_that_changes_at_every_read_ends_as_a_failure(listed: Library, config: dict[str, str]) -> None:
    listed.configure(**config)
    listed.cycle()
    listed.world.put("a.txt", b"changed")
    if config:
        listed.set_sync(triggered_at=listed.warehouse.now())
    listed.poll()

    def changes(name: str) -> None:
        if name == "open":
            listed.world.put("a.txt", b"changed again, and again")

    listed.world.before = changes
    assert run_all(listed) <= second_looks.MOST + 1
    assert "3 times in a row" in str(listed.objects()["a.txt"].error)
    listed.world.before = lambda _: None
    if config:
        listed.set_sync(triggered_at=listed.warehouse.now())
    listed.cycle()
    run_all(listed)
    assert 24 in listed.texts()
    listed.assert_follows_source()
    listed.assert_exact()


def test_while_a_pass_is_under_way_it_or_the_next_takes_the_file(listed: Library) -> None:
    listed.world.page_size = 1
    listed.advance(budget_s=0)
    listed.world.put("a.txt", b"changed")
    (report,) = listed.run()
    assert report.step.failed == 1
    assert listed.world.calls["head"] == 0
    listed.poll()
    listed.cycle()
    assert listed.texts() == [1, 1, 1, 1, 1, 7]
    listed.assert_follows_source()


def test_a_file_that_changes_during_the_only_pass_is_tried_again_at_its_end(library: Library) -> None:
    library.configure(sync_mode="initial_only", batch_chunk_size=1)
    library.world.page_size = 1
    library.world.put("a.txt", b"a")
    library.world.put("b.txt", b"b")
    library.advance(budget_s=0)
    library.world.put("a.txt", b"changed")
    library.run()
    assert "Passes try it again" in str(library.objects()["a.txt"].error)
    library.poll()
    run_all(library)
    assert library.texts() == [1, 7]
    library.assert_follows_source()


def test_a_source_that_is_down_when_it_is_asked_again_is_a_failure_that_is_tried_again(listed: Library) -> None:
    def down(name: str) -> None:
        if name == "head":
            raise ProviderDown("The provider is down.")

    listed.with_settings(max_failed_ratio=1.0)
    listed.world.put("a.txt", b"changed")
    listed.world.before = down
    run_all(listed)
    assert "down" in str(listed.objects()["a.txt"].error)
    listed.world.before = lambda _: None
    listed.cycle()
    assert listed.texts() == [1, 1, 1, 1, 1, 7]
    listed.assert_exact()


def test_a_crash_between_looking_and_recording_repeats_nothing(listed: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    listed.world.put("a.txt", b"changed")
    (claimed,) = listed.claim()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mixpeek_dagster.pipeline.extraction.advance_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run_step(listed.warehouse, claimed.part.partition_key, listed.passages, run_id="run-1")
    assert len(listed.batches()) == 2
    with listed.warehouse.catalog.transaction() as records:
        part = records.batches.parts(claimed.part.batch_id)[0]
        fail_part(records, part, "killed", settings=listed.warehouse.settings, now=listed.warehouse.now(), retry=True)
    run_all(listed)
    assert len(listed.batches()) == 2
    assert listed.texts() == [1, 1, 1, 1, 1, 7]
    assert listed.inferred() == 6, "each file once"
    listed.assert_follows_source()
    listed.assert_exact()
