"""What a sync takes, and the words in which it may be said."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from mixpeek_dagster.models.syncs import ConnectionSpec, FileFilters, SyncMode, SyncSpec


def takes(path: str, *, size: int = 10, modified_at: float = 1.7e9, content_type: str = "", **filters: Any) -> bool:
    return FileFilters(**filters).takes(path, size=size, modified_at=modified_at, content_type=content_type)


@pytest.mark.parametrize(
    ("pattern", "path", "taken"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "deep/er/a.txt", True),
        ("*.txt", "a.txt.bak", False),
        ("draft*", "drafts/final.txt", False),
        ("draft*", "notes/draft 1.txt", True),
        ("a?.txt", "x/a1.txt", True),
        ("a?.txt", "a/.txt", False),
        ("[ab].txt", "x/a.txt", True),
        ("[!ab].txt", "x/a.txt", False),
        ("docs/*.txt", "docs/a.txt", True),
        ("docs/*.txt", "docs/x/a.txt", False),
        ("docs/*.txt", "other/docs/a.txt", False),
        ("docs/[ab].txt", "docs/a.txt", True),
        ("docs/[ab].txt", "docs/c.txt", False),
        ("docs/**", "docs/x/y/a.txt", True),
        ("docs/**", "docs2/a.txt", False),
        ("docs/**/*.txt", "docs/a.txt", True),
        ("docs/**/*.txt", "docs/x/y/a.txt", True),
        ("**/docs/*.txt", "docs/a.txt", True),
        ("**/docs/*.txt", "x/y/docs/a.txt", True),
        ("/docs/*.txt", "docs/a.txt", True),
        ("/a.txt", "x/a.txt", False),
        ("docs/a+b (1).txt", "docs/a+b (1).txt", True),
        ("docs/?.txt", "docs//.txt", False),
        ("*", "line\nbreak.txt", True),
    ],
)
def test_globs_stay_inside_a_folder_unless_doubled(pattern: str, path: str, taken: bool) -> None:
    assert takes(path, include_patterns=[pattern]) is taken
    assert takes(path, exclude_patterns=[pattern]) is not taken


def test_a_pattern_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"'\[z-a\]' is not a pattern"):
        FileFilters(include_patterns=["[z-a]"])


@pytest.mark.parametrize(
    ("filters", "taken"),
    [
        ({}, True),
        ({"extensions": ["TXT"]}, True),
        ({"extensions": [".txt", "md"]}, True),
        ({"extensions": ["xt"]}, False),
        ({"min_size_bytes": 10, "max_size_bytes": 10}, True),
        ({"min_size_bytes": 11}, False),
        ({"max_size_bytes": 9}, False),
        ({"max_size_bytes": 0}, False),
        ({"modified_after": datetime.fromtimestamp(1.7e9 - 1, UTC)}, True),
        ({"modified_after": datetime.fromtimestamp(1.7e9, UTC)}, False),
        ({"modified_before": datetime.fromtimestamp(1.7e9 + 1, UTC)}, True),
        ({"modified_before": datetime.fromtimestamp(1.7e9, UTC)}, False),
        ({"mime_types": ["text/*"]}, True),
        ({"mime_types": ["image/*"]}, False),
        ({"include_patterns": ["*.txt"], "exclude_patterns": ["a.*"]}, False),
        ({"include": ["*.txt"]}, True),
        ({"exclude": ["*.txt"]}, False),
        ({"include_patterns": None, "extensions": None}, True),
    ],
    ids=str,
)
def test_all_conditions_must_hold(filters: dict[str, Any], taken: bool) -> None:
    assert takes("x/a.txt", **filters) is taken


def test_a_file_of_unknown_age_is_taken() -> None:
    assert takes("a.txt", modified_at=0.0, modified_after=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_time_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        naive = datetime.fromtimestamp(1.7e9, UTC).replace(tzinfo=None)
        assert not takes("a.txt", modified_at=1.7e9, modified_after=naive)
        assert takes("a.txt", modified_at=1.7e9 + 1, modified_after=naive)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_the_provider_says_about_the_type_counts_before_the_name() -> None:
    assert takes("a.bin", content_type="image/png", mime_types=["image/png"])
    assert takes("a.png", content_type="application/octet-stream", mime_types=["image/png"])


@pytest.mark.parametrize(
    ("word", "mode"),
    [
        ("continuous", SyncMode.CONTINUOUS),
        ("incremental", SyncMode.CONTINUOUS),
        ("scheduled", SyncMode.CONTINUOUS),
        ("initial_only", SyncMode.INITIAL_ONLY),
        ("one_time", SyncMode.INITIAL_ONLY),
        ("FULL", SyncMode.INITIAL_ONLY),
    ],
)
def test_modes_of_both_dialects_are_understood_and_the_word_is_kept(word: str, mode: SyncMode) -> None:
    spec = SyncSpec.model_validate({"sync_mode": word})
    assert (spec.sync_mode, spec.requested_sync_mode) == (mode, word)
    again = SyncSpec.model_validate(spec.model_dump(mode="json"))
    assert again.model_dump(mode="json") == spec.model_dump(mode="json")


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValidationError):
        SyncSpec.model_validate({"sync_mode": "sometimes"})


def test_the_interval_has_two_names_and_limits() -> None:
    assert SyncSpec.model_validate({"polling_interval": 60}).polling_interval_seconds == 60
    assert SyncSpec.model_validate({"polling_interval_seconds": 60}).polling_interval_seconds == 60
    for wrong in (0, 86401):
        with pytest.raises(ValidationError):
            SyncSpec.model_validate({"polling_interval_seconds": wrong})


def test_nulls_are_absent_and_unknown_words_are_passed_over() -> None:
    assert SyncSpec.model_validate({"file_filters": None, "schema_mapping": None, "colour": "blue"}) == SyncSpec()


def test_what_is_saved_is_read_back_the_same() -> None:
    spec = SyncSpec.model_validate(
        {"file_filters": {"include": ["*.txt"], "modified_after": "2026-01-01T00:00:00Z"}, "sync_mode": "full"}
    )
    again = SyncSpec.model_validate(spec.model_dump(mode="json"))
    assert again.model_dump(mode="json") == spec.model_dump(mode="json")
    assert spec.file_filters.include_patterns == ["*.txt"]


def test_a_connection_does_not_print_its_secrets() -> None:
    assert "hush" not in repr(ConnectionSpec(provider="s3", config={"credentials": {"secret_access_key": "hush"}}))
