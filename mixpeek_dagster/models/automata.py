"""The tree of a text pattern, what it writes itself as for Python and Postgres, and how it searches a text in bounded time.

Every set of characters is spelled out as code points, so no locale and no flag can change what a pattern means. Where
backtracking could get expensive, the text is run through a lazily built automaton, which takes time proportional to the length of
the text.
"""

import bisect
import functools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

_MAX_STATES, _CHEAP_STEPS = 2_000, 1_000_000
_LAST = 0x10FFFF

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Chars:
    """One character out of sorted, disjoint, inclusive ranges of code points."""

    ranges: Ranges


@dataclass(frozen=True)
class Edge:
    """A place between characters: `^`, `$`, `b` (word boundary) or `B`."""

    kind: str


@dataclass(frozen=True)
class Seq:
    """Nodes one after the other."""

    items: tuple["Node", ...]


@dataclass(frozen=True)
class Alt:
    """One of several nodes."""

    branches: tuple["Node", ...]


@dataclass(frozen=True)
class Repeat:
    """`node` at least `least` and at most `most` times; None is without end."""

    node: "Node"
    least: int
    most: int | None


Node = Chars | Edge | Seq | Alt | Repeat


def merged(spans: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted, and joined where they touch."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def pairs(text: str) -> Ranges:
    """Ranges written as a text of first and last characters: `azAZ`."""
    return merged((ord(text[i]), ord(text[i + 1])) for i in range(0, len(text), 2))


def complement(ranges: Ranges) -> Ranges:
    """Everything else; NUL never occurs in a text and is left out."""
    gaps, start = [], 1
    for low, high in ranges:
        if low > start:
            gaps.append((start, low - 1))
        start = max(start, high + 1)
    return (*gaps, (start, _LAST)) if start <= _LAST else tuple(gaps)


WORD_CHARS: Final = pairs("09AZ__az")


def size(node: Node) -> int:
    """How many nodes there are once repetitions are written out."""
    match node:
        case Seq(nodes) | Alt(nodes):
            return 1 + sum(map(size, nodes))
        case Repeat(inner, least, most):
            return 1 + size(inner) * max(1, least, most or 0)
        case _:
            return 1


def _effort(node: Node) -> tuple[float, int]:
    """(ways to match at one place, open-ended repetitions): backtracking takes at most ways × length ** (1 + repetitions)
    steps.
    """
    match node:
        case Seq(nodes):
            efforts = [_effort(inner) for inner in nodes]
            return math.prod(ways for ways, _ in efforts), sum(open_ for _, open_ in efforts)
        case Alt(nodes):
            efforts = [_effort(inner) for inner in nodes]
            return sum(ways for ways, _ in efforts), max(open_ for _, open_ in efforts)
        case Repeat(Chars(), least, None):
            return 1 + least, 1
        case Repeat(inner, least, most):
            ways, open_ = _effort(inner)
            return (
                (math.inf, 0)
                if most is None or open_ or ways > 64 or (most > 16 and ways > 1)
                else (ways**most * (most - least + 1), 0)
            )
        case _:
            return 1, 0


def write(node: Node, *, postgres: bool) -> str:
    """The source for Python's `re`, or for Postgres' `~`."""
    match node:
        case Chars(ranges):
            return "[" + "".join(_code(low) if low == high else f"{_code(low)}-{_code(high)}" for low, high in ranges) + "]"
        case Edge(kind):
            return {"^": "^", "$": "$" if postgres else r"\Z", "b": r"\y" if postgres else r"(?a:\b)"}.get(
                kind, r"\Y" if postgres else r"(?:(?a:\B)|^\Z)"
            )
        case Seq(items):
            return "(?:" + "".join(write(item, postgres=postgres) for item in items) + ")"
        case Alt(branches):
            return "(?:" + "|".join(write(branch, postgres=postgres) for branch in branches) + ")"
        case Repeat(inner, least, most):
            return f"(?:{write(inner, postgres=postgres)}){{{least},{'' if most is None else most}}}"


def _code(code: int) -> str:
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"


class _Automaton:
    """Thompson's construction, made deterministic while it reads. One step per character; states are forgotten when there are
    many.
    """

    def __init__(self, node: Node) -> None:
        self.jumps: list[list[tuple[str, int]]] = []
        self.reads: list[tuple[Ranges, int] | None] = []
        self.accept = self.state()
        self.start = self.build(node, self.accept)
        edges = {low for read in self.reads if read for low, _ in read[0]} | {
            high + 1 for read in self.reads if read for _, high in read[0]
        }
        self.cuts = sorted(edges | {edge for low, high in WORD_CHARS for edge in (low, high + 1)})
        self.classes: dict[str, int] = {}
        self.forget()

    def forget(self) -> None:
        self.numbers: dict[tuple[frozenset[int], bool, bool], int] = {}
        self.keys: list[tuple[frozenset[int], bool, bool]] = []
        self.steps: dict[tuple[int, int], int] = {}

    def state(self) -> int:
        self.jumps.append([])
        self.reads.append(None)
        return len(self.jumps) - 1

    def build(self, node: Node, then: int) -> int:
        match node:
            case Seq(items):
                for item in reversed(items):
                    then = self.build(item, then)
                return then
            case Alt(branches):
                here = self.state()
                self.jumps[here] = [("", self.build(branch, then)) for branch in branches]
                return here
            case Repeat(inner, least, most):
                if most is None:
                    here = self.state()
                    self.jumps[here] = [("", self.build(inner, here)), ("", then)]
                    then = here
                else:
                    end = then
                    for _ in range(most - least):
                        here = self.state()
                        self.jumps[here] = [("", self.build(inner, then)), ("", end)]
                        then = here
                for _ in range(least):
                    then = self.build(inner, then)
                return then
        here = self.state()
        if isinstance(node, Chars):
            self.reads[here] = (node.ranges, then)
        else:
            self.jumps[here] = [(node.kind, then)]
        return here

    def search(self, text: str) -> bool:
        known = self.classes
        now = self.number(frozenset(), at_start=True, after_word=False)
        for char in text:
            kind = known.get(char)
            if kind is None:
                kind = known[char] = bisect.bisect_right(self.cuts, ord(char))
                if len(known) > 10_000:
                    known.clear()
            then = self.steps.get((now, kind))
            if then is None:
                then = self.step(now, kind)
            if then < 0:
                return True
            now = then
        return self.step(now, -1) < 0

    def number(self, states: frozenset[int], *, at_start: bool, after_word: bool) -> int:
        key = (states, at_start, after_word)
        if key not in self.numbers:
            self.numbers[key] = len(self.keys)
            self.keys.append(key)
        return self.numbers[key]

    def step(self, now: int, kind: int) -> int:
        """The next state after a character of `kind` (-1: the text ends), or -1 when a match is complete before it."""
        states, at_start, after_word = self.keys[now]
        sample = self.cuts[kind - 1] if kind > 0 else 0
        is_word = kind > 0 and any(low <= sample <= high for low, high in WORD_CHARS)
        holds = {"": True, "^": at_start, "$": kind < 0, "b": after_word != is_word, "B": after_word == is_word}
        seen, todo, reads = set[int](), [self.start, *states], set[int]()
        while todo:
            state = todo.pop()
            if state in seen:
                continue
            seen.add(state)
            if state == self.accept:
                self.steps[now, kind] = -1
                return -1
            todo += [then for edge, then in self.jumps[state] if holds[edge]]
            if (read := self.reads[state]) and kind > 0 and any(low <= sample <= high for low, high in read[0]):
                reads.add(read[1])
        if len(self.keys) > _MAX_STATES:
            self.forget()
            return self.number(frozenset(reads), at_start=False, after_word=is_word)
        then = self.number(frozenset(reads), at_start=False, after_word=is_word)
        self.steps[now, kind] = then
        return then


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern. `search` is its meaning; `postgres` says the same to `~` under collation C."""

    node: Node
    max_length: int | None = None
    _re: Callable[[str], object] = field(init=False, repr=False, compare=False)
    _effort: tuple[float, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_re", re.compile(write(self.node, postgres=False)).search)
        object.__setattr__(self, "_effort", _effort(self.node))

    @functools.cached_property
    def postgres(self) -> str:
        return write(self.node, postgres=True)

    @functools.cached_property
    def _automaton(self) -> _Automaton:
        return _Automaton(self.node)

    def steps(self, length: int) -> float:
        """How many steps backtracking takes at most on a text of so many characters."""
        ways, open_ended = self._effort
        return float(ways * (length + 1) ** (1 + open_ended))

    def search(self, text: str) -> bool:
        """Whether the pattern occurs anywhere in `text` (in its first `max_length` characters)."""
        text = text[: self.max_length]
        if self.steps(len(text)) <= _CHEAP_STEPS:
            return self._re(text) is not None
        return self._automaton.search(text)
