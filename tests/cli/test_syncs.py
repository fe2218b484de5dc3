"""`mixpeek-dagster syncs`, as a person types it."""

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from mixpeek_dagster.cli import app, syncs
from mixpeek_dagster.errors import ProviderDown
from mixpeek_dagster.pipeline.sync_reports import report_of
from tests.pipeline.worlds import Library

Say = Callable[..., str]


@pytest.fixture
def say(library: Library, monkeypatch: pytest.MonkeyPatch) -> Say:
    monkeypatch.setenv("MIXPEEK_HOME", str(library.warehouse.settings.home))
    monkeypatch.delenv("MIXPEEK_CATALOG_URL", raising=False)
    monkeypatch.setattr(syncs.console, "_width", 250)

    def run(*arguments: str, exits: int = 0, keys: str = "") -> str:
        result = CliRunner().invoke(app, ["syncs", *arguments], catch_exceptions=False, input=keys)
        assert result.exit_code == exits, result.output
        return result.output

    return run


def fill(library: Library, count: int) -> list[str]:
    names = [f"f{number:03d}.txt" for number in range(count)]
    for name in names:
        library.world.put(name, b"12345")
    return names


def test_a_sync_says_what_a_person_asks(library: Library, say: Say) -> None:
    assert "never" in say()
    fill(library, 3)
    library.poll()
    output = say()
    assert library.sync.sync_id in output
    assert "3/0/0/0" in output
    assert "1 requests" in output
    assert library.now().last_pass_at is not None
    assert str(library.now().last_pass_at)[:19] in output
    (row,) = [line for line in output.splitlines() if library.sync.sync_id in line]
    assert row.split("│")[9].strip() == "3", "three objects wait for extraction"
    library.run()
    (row,) = [line for line in say().splitlines() if library.sync.sync_id in line]
    assert row.split("│")[9].strip() == "0"


def test_a_first_pass_of_several_runs_is_said_to_go_on(library: Library, say: Say) -> None:
    library.configure(max_objects_per_run=2)
    fill(library, 3)
    library.advance()
    assert ("the first goes on" in say(), "never" in say()) == (True, False)
    with library.warehouse.catalog.reading() as records:
        report = report_of(records, library.now())
    assert report.words.startswith("The first pass goes on (feeds are followed after it): 2 listed")
    library.poll()
    assert "the first goes on" not in say()


def test_a_plan_prints_counts_bytes_and_cost_and_changes_nothing(library: Library, say: Say) -> None:
    fill(library, 4)
    output = say("plan")
    assert "to extract: 4 objects, 20 B to read" in output
    assert "passages (stub_extractor_v1" in output or "4 inputs, unknown" in output
    assert library.objects() == {}
    made = json.loads(say("plan", library.sync.sync_id, "--json"))
    assert (made["counters"]["new"], made["to_extract"], made["bytes_to_read"]) == (4, 4, 20)


def test_more_deletes_than_the_guard_believes_are_said_and_confirmed(library: Library, say: Say) -> None:
    names = fill(library, 300)
    library.poll()
    for name in names[:200]:
        library.world.delete(name)
    assert "200 deletes are more than the guard believes" in say("plan")
    assert not library.now().confirmed_deletes, "nobody was asked, as there is no terminal"
    assert "200" in say("plan", "--yes")
    library.world.delete(names[200])
    assert library.poll().counters.held == 201, "one more than was confirmed"
    assert "201" in say("plan", "--yes")
    assert library.poll().counters.deleted == 201


def test_held_deletes_are_confirmed_by_name(library: Library, say: Say) -> None:
    names = fill(library, 300)
    library.poll()
    for name in names[:200]:
        library.world.delete(name)
    assert library.poll().counters.held == 200
    assert "200" in say("confirm", library.sync.sync_id)
    assert library.poll().counters.deleted == 200


def test_a_source_that_cannot_be_listed_is_an_exit_code(library: Library, say: Say) -> None:
    def down(_: str) -> None:
        raise ProviderDown("the provider is on fire")

    library.world.before = down
    assert "the provider is on fire" in say("plan", exits=1)
