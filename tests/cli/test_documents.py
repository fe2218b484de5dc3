"""`mixpeek-dagster documents`, as a person types it."""

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from mixpeek_dagster.cli import app
from mixpeek_dagster.cli.documents import console
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.pipeline.shelves import Shelves

Say = Callable[..., str]


@pytest.fixture
def say(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs the command on a namespace with three articles; what it prints."""
    shelves = Shelves(warehouse)
    shelves.put(shelves.articles, [{"title": "one", "kind": "a"}, {"title": "two", "kind": "b"}, {"title": "three", "kind": "a"}])
    monkeypatch.setenv("MIXPEEK_HOME", str(warehouse.settings.home))
    monkeypatch.delenv("MIXPEEK_CATALOG_URL", raising=False)
    monkeypatch.setattr(console, "_width", 200)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["documents", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_it_lists_the_newest_first_and_says_how_many_there_are(say: Say) -> None:
    output = say()
    assert [output.index(title) for title in ("three", "two", "one")] == sorted(map(output.index, ("three", "two", "one")))
    assert "3 in all" in output


def test_it_filters_sorts_selects_and_pages(say: Say) -> None:
    where = '{"field": "kind", "value": "a"}'
    answer = json.loads(
        say("--filter", where, "--sort", "title", "--select", "title", "--limit", "1", "--json", "-c", "articles")
    )
    assert [one["title"] for one in answer["results"]] == ["one"]
    assert "kind" not in answer["results"][0]
    cursor = answer["pagination"]["next_cursor"]
    assert "three" in say("--filter", where, "--sort", "title", "--limit", "1", "-c", "articles", "--cursor", cursor)


def test_it_groups(say: Say) -> None:
    output = say("--group-by", "kind")
    assert "a: 2 documents" in output
    assert "2 in all" in output
