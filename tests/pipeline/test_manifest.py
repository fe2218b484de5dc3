"""A warehouse described in YAML: made once, and again without harm."""

import textwrap
from pathlib import Path

import pytest

from mixpeek_dagster.errors import Invalid, NotFound, UnknownName
from mixpeek_dagster.pipeline.manifest import apply, read_manifest
from mixpeek_dagster.pipeline.syncs import advance
from mixpeek_dagster.pipeline.warehouse import Warehouse

TEXT = """
namespace: library
buckets:
  files:
    description: Files.
    schema: {properties: {content: {type: text}}}
    syncs:
      disk: {provider: local, sync_config: {source_path: texts, sync_mode: continuous}}
collections:
  passages:
    source: {type: bucket, bucket_ids: [files]}
    feature_extractor: {feature_extractor_name: "mixpeek_dagster.testing:StubExtractor"}
  above:
    source: {type: collection, collection_ids: [passages]}
    feature_extractor:
      feature_extractor_name: "mixpeek_dagster.testing:StubExtractor"
      input_mappings: {text: content}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("one")
    written = tmp_path / "warehouse.yaml"
    written.write_text(TEXT)
    return written


def changed(file: Path, old: str, new: str) -> Path:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return file


def test_a_manifest_makes_everything_and_the_second_time_nothing(warehouse: Warehouse, file: Path) -> None:
    made = apply(warehouse, read_manifest(file)).made
    assert made == ["namespace library", "bucket files", "sync disk", "collection passages", "collection above"]
    assert apply(warehouse, read_manifest(file)).made == []
    with warehouse.catalog.reading() as records:
        assert [len(one) for one in (records.buckets.all(), records.syncs.all(), records.collections.all())] == [1, 1, 2]


def test_a_local_folder_is_meant_from_where_the_file_is(
    warehouse: Warehouse, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    apply(warehouse, read_manifest(file))
    with warehouse.catalog.reading() as records:
        (sync,) = records.syncs.all()
    progress = advance(warehouse, sync.sync_id, budget_s=20, force=True)
    assert progress is not None
    assert progress.counters.new == 1


def test_what_was_added_to_the_file_is_made_beside_what_exists(warehouse: Warehouse, file: Path) -> None:
    apply(warehouse, read_manifest(file))
    changed(file, "      disk:", "      second: {provider: local, sync_config: {source_path: texts}}\n      disk:")
    assert apply(warehouse, read_manifest(file)).made == ["sync second"]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("collection_ids: [passages]", "collection_ids: [nowhere]", NotFound),
        ("provider: local", "provider: floppy", UnknownName),
        ("type: text", "type: smell", Invalid),
        ("testing:StubExtractor", "testing:Nothing", UnknownName),
        ("{text: content}", "{sound: content}", Invalid),
        ("sync_mode: continuous", "sync_mode: sometimes", Invalid),
    ],
)
def test_a_mistake_makes_nothing_at_all(warehouse: Warehouse, file: Path, old: str, new: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        apply(warehouse, read_manifest(changed(file, old, new)))
    with warehouse.catalog.reading() as records:
        assert records.namespaces.all() == []


@pytest.mark.parametrize("text", ["namespace: [", "buckets: {}", "- a", "namespace: x\ncolour: blue", ""])
def test_a_file_that_is_no_manifest_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(textwrap.dedent(text))
    with pytest.raises(Invalid, match=r"bad\.yaml"):
        read_manifest(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"none\.yaml"):
        read_manifest(tmp_path / "none.yaml")
