"""Cutting a text into chunks: spans of characters, never copies; every span starts and ends in something visible."""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum

Span = tuple[int, int]

CHUNKING = "chunks 1"
"""Goes up when any text is cut differently; part of a text extractor's fingerprint."""


class SplitBy(StrEnum):
    """What a chunk is made of; `chunk_size` and `chunk_overlap` count these."""

    NONE = "none"
    CHARACTERS = "characters"
    WORDS = "words"
    SENTENCES = "sentences"
    PARAGRAPHS = "paragraphs"
    PAGES = "pages"
    MARKDOWN = "markdown"
    TIME_SEGMENTS = "time_segments"


DEFAULT_SIZE: Mapping[SplitBy, int] = {
    SplitBy.CHARACTERS: 1000,
    SplitBy.WORDS: 150,
    SplitBy.SENTENCES: 8,
    SplitBy.PARAGRAPHS: 1,
    SplitBy.PAGES: 1,
    SplitBy.MARKDOWN: 1,
}

_WORD = re.compile(r"\S+")
# An end mark, closing quotes or brackets, then space; marks of Chinese and Japanese need no space; an empty line always ends one.
_SENTENCE_END = re.compile(r"""[.!?…]+["'”’)\]]*(?=\s)|[。！？]+[」』”’）]*|\n[ \t]*\n""")
_PARAGRAPH_END = re.compile(r"\n[ \t\r]*\n")
_PAGE_END = re.compile(r"\f")
_HEADING = re.compile(r"^ {0,3}#{1,6}(?:\s|$)")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
# Where a chunk of characters may end, best first.
_BREAKS = (_PARAGRAPH_END, _SENTENCE_END, re.compile(r"(?=\s)"))
_SPACE = re.compile(r"\s*")


def chunk(text: str, *, by: SplitBy, size: int, overlap: int = 0) -> Iterator[Span]:
    """Spans of the chunks of `text`, in order: `size` pieces each, the first `overlap` of them repeated from the chunk before.

    Args:
        size: pieces per chunk, at least 1. A chunk of characters may have only half of them, to end where a paragraph, a
            sentence or a word does.
        overlap: less than `size`.
    """
    if by is SplitBy.NONE:
        spans: Iterator[Span] = iter([(0, len(text))])
    elif by is SplitBy.CHARACTERS:
        spans = _characters(text, size, overlap)
    else:
        pieces = [span for span in (_trim(text, piece) for piece in _PIECES[by](text)) if span[0] < span[1]]
        spans = _group(pieces, size, overlap)
    for span in spans:
        start, end = _trim(text, span)
        if start < end:
            yield start, end


def _group(pieces: list[Span], size: int, overlap: int) -> Iterator[Span]:
    for first in range(0, len(pieces), size - overlap):
        last = min(first + size, len(pieces)) - 1
        yield pieces[first][0], pieces[last][1]
        if last == len(pieces) - 1:
            return


def _characters(text: str, size: int, overlap: int) -> Iterator[Span]:
    start = 0
    while True:
        if len(text) - start <= size:
            yield start, len(text)
            return
        end = _best_break(text, start + max(size // 2, overlap + 1), start + size)
        yield start, end
        start = _word_start(text, end - overlap, end) if overlap else _skip_space(text, end)


def _best_break(text: str, earliest: int, latest: int) -> int:
    """The last good place to cut in `earliest`..`latest`; mid-word when the text offers none."""
    for pattern in _BREAKS:
        # One more character, because a sentence ends where space follows.
        ends = [match.end() for match in pattern.finditer(text, earliest, latest + 1) if match.end() <= latest]
        if ends:
            return ends[-1]
    return latest


def _word_start(text: str, start: int, limit: int) -> int:
    """The next start of a word at or after `start`, or `start` itself when there is none before `limit`."""
    if start == 0 or text[start - 1].isspace():
        return start
    space = re.compile(r"\s+").search(text, start, limit)
    return space.end() if space and space.end() < limit else start


def _skip_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position


def _trim(text: str, span: Span) -> Span:
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _between(pattern: re.Pattern[str]) -> Callable[[str], Iterator[Span]]:
    def pieces(text: str) -> Iterator[Span]:
        start = 0
        for match in pattern.finditer(text):
            yield start, match.end()
            start = match.end()
        yield start, len(text)

    return pieces


def _words(text: str) -> Iterator[Span]:
    return (match.span() for match in _WORD.finditer(text))


def _sections(text: str) -> Iterator[Span]:
    """Markdown from one heading to the next; a `#` inside a fenced block is no heading."""
    start = position = 0
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        elif not fence and _HEADING.match(line):
            yield start, position
            start = position
        position += len(line)
    yield start, len(text)


_PIECES: Mapping[SplitBy, Callable[[str], Iterator[Span]]] = {
    SplitBy.WORDS: _words,
    SplitBy.SENTENCES: _between(_SENTENCE_END),
    SplitBy.PARAGRAPHS: _between(_PARAGRAPH_END),
    SplitBy.PAGES: _between(_PAGE_END),
    SplitBy.MARKDOWN: _sections,
}
