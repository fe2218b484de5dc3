"""Chunks are spans: nothing visible is lost, nothing is longer than asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_dagster.extractors.chunks import SplitBy, chunk

STRATEGIES = [by for by in SplitBy if by is not SplitBy.TIME_SEGMENTS]


def pieces(text: str, by: SplitBy, size: int, overlap: int = 0) -> list[str]:
    return [text[start:end] for start, end in chunk(text, by=by, size=size, overlap=overlap)]


@pytest.mark.parametrize(
    ("by", "size", "text", "expected"),
    [
        (SplitBy.NONE, 1, " all of it. \n\n ", ["all of it."]),
        (SplitBy.WORDS, 2, "one two  three\nfour five", ["one two", "three\nfour", "five"]),
        (SplitBy.SENTENCES, 1, 'So "No." Then left! 3.5 km on…  End', ['So "No."', "Then left!", "3.5 km on…", "End"]),
        (SplitBy.SENTENCES, 1, "今日は。明日は？", ["今日は。", "明日は？"]),
        (SplitBy.PARAGRAPHS, 1, "a\nb\n\nc\n \n\nd", ["a\nb", "c", "d"]),
        (SplitBy.PAGES, 1, "one\fno two\f\fthree", ["one", "no two", "three"]),
        (SplitBy.MARKDOWN, 1, "intro\n# A\n```\n# no\n```\n## B\nmore", ["intro", "# A\n```\n# no\n```", "## B\nmore"]),
        (SplitBy.CHARACTERS, 20, "First sentence. Second one is longer.", ["First sentence.", "Second one is", "longer."]),
        (SplitBy.CHARACTERS, 4, "abcdefghij", ["abcd", "efgh", "ij"]),
    ],
)  # fmt: skip
def test_each_strategy_cuts_where_its_pieces_end(by: SplitBy, size: int, text: str, expected: list[str]) -> None:
    assert pieces(text, by, size) == expected


def test_overlap_repeats_the_last_pieces_of_the_chunk_before() -> None:
    assert pieces("a b c d e", SplitBy.WORDS, 3, 1) == ["a b c", "c d e"]


def test_overlapping_characters_start_at_a_word() -> None:
    chunks = pieces("alpha beta gamma delta epsilon", SplitBy.CHARACTERS, 16, 6)
    assert chunks == ["alpha beta gamma", "gamma delta", "delta epsilon"]


@given(
    text=st.text(alphabet="ab .\n\f#。`", max_size=200), by=st.sampled_from(STRATEGIES), size=st.integers(1, 12), data=st.data()
)
def test_every_visible_character_is_in_a_chunk(text: str, by: SplitBy, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    spans = list(chunk(text, by=by, size=size, overlap=overlap))
    covered = {position for start, end in spans for position in range(start, end)}
    assert {position for position, character in enumerate(text) if not character.isspace()} <= covered
    assert all(text[start:end].strip() == text[start:end] != "" for start, end in spans)
    assert spans == sorted(spans)
    if by is SplitBy.CHARACTERS:
        assert all(end - start <= size for start, end in spans)
