r"""Text patterns with one meaning in Python and Postgres: the restricted regular expressions of `regex`, and `phrase` and
`words`.

A pattern is parsed here into the small tree of `models.automata`, which writes it out again for Python and for Postgres.

The dialect: literals, `.` (anything but a newline), sets `[a-z]` `[^…]`, `\d \w \s` and `\D \W \S` (ASCII), `\b` and `\B` (ASCII
words), `^` and `\A` (start of the text), `$` and `\Z` (its very end), `( )`, `(?: )`, `|`, `* + ? {m} {m,} {m,n}` and their lazy
forms, `\t \n \r \f \v`, `\xHH`, `\uHHHH`. No backreferences, no lookaround, no flags, no possessive forms. Time is bounded
whatever the pattern.
"""

import bisect
import functools
import re
from collections.abc import Iterator
from typing import Final

from mixpeek_dagster.models.automata import (
    Alt,
    Chars,
    Edge,
    Node,
    Pattern,
    Ranges,
    Repeat,
    Seq,
    complement,
    merged,
    pairs,
    size,
    write,
)
from mixpeek_dagster.models.comparison import fold, fold_table

MAX_REGEX_LENGTH: Final = 512
MAX_REPEAT: Final = 255
REGEX_TEXT_LENGTH: Final = 10_000
"""A regex sees only so many characters of a text."""

_MAX_SIZE, _MAX_DEPTH = 1_000, 24
_CLASSES = {"d": "09", "w": "09AZ__az", "s": "\t\r  "}
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}
_SEPARATORS = (
    "\x01/:@[`{\xa9\xab\xb4\xb6\xb9\xbb\xbf\xd7\xd7\xf7\xf7\u2000\u206f\u2190\u2bff\u2e00\u2e7f\u3000\u3004\u3008\u3020"
    "\uff01\uff0f\uff1a\uff20\uff3b\uff40\uff5b\uff65"
)

SEPARATOR: Final = Chars(pairs(_SEPARATORS))


@functools.cache
def _orbits() -> tuple[tuple[int, ...], ...]:
    orbits: dict[int, list[int]] = {}
    for code, folded in fold_table().items():
        orbits.setdefault(folded, [folded]).append(code)
    return tuple(tuple(orbit) for orbit in orbits.values())


def _any_case(ranges: Ranges) -> Ranges:
    starts = [low for low, _ in ranges]

    def has(code: int) -> bool:
        at = bisect.bisect_right(starts, code) - 1
        return at >= 0 and code <= ranges[at][1]

    return merged([*ranges, *((code, code) for orbit in _orbits() if any(map(has, orbit)) for code in orbit)])


class _Parser:
    """Recursive descent over the source of one regex. Raises `ValueError` with the reason."""

    def __init__(self, source: str, *, case_sensitive: bool) -> None:
        self.source, self.at, self.depth = source, 0, 0
        self.case_sensitive = case_sensitive

    def parse(self) -> Node:
        node = self.alternatives()
        if self.at < len(self.source):
            raise ValueError(f"unmatched ) at {self.at}")
        return node

    def peek(self) -> str:
        return self.source[self.at : self.at + 1]

    def take(self) -> str:
        if self.at >= len(self.source):
            raise ValueError("the pattern ends too early")
        self.at += 1
        return self.source[self.at - 1]

    def alternatives(self) -> Node:
        branches = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            branches.append(self.sequence())
        return branches[0] if len(branches) == 1 else Alt(tuple(branches))

    def sequence(self) -> Node:
        items: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            items.append(self.quantified(self.atom()))
        return items[0] if len(items) == 1 else Seq(tuple(items))

    def quantified(self, node: Node) -> Node:
        bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self.peek())
        if bounds:
            self.at += 1
        elif counted := re.compile(r"\{(\d{1,4})(,?)(\d{0,4})\}").match(self.source, self.at):
            self.at = counted.end()
            least = int(counted[1])
            bounds = (least, int(counted[3]) if counted[3] else None if counted[2] else least)
            if least > (bounds[1] if bounds[1] is not None else least) or max(least, bounds[1] or 0) > MAX_REPEAT:
                raise ValueError(f"bad repetition {counted[0]} (at most {MAX_REPEAT})")
        else:
            return node
        if isinstance(node, Edge):
            raise ValueError("a boundary cannot be repeated")
        if self.peek() == "?":
            self.at += 1
        if self.peek() in ("*", "+", "?") and self.peek():
            raise ValueError("a repetition of a repetition, or a possessive one")
        return Repeat(node, *bounds)

    def atom(self) -> Node:
        char = self.take()
        if char == "(":
            return self.group()
        if char == "[":
            return self.char_set()
        if char == ".":
            return Chars(complement(((10, 10),)))
        if char in "^$":
            return Edge(char)
        if char in "*+?{":
            raise ValueError(f"nothing to repeat at {self.at - 1}" if char != "{" else r"write { as \{")
        if char == "\\":
            if (edge := self.peek()) and edge in "bBAZ":
                self.at += 1
                return Edge({"A": "^", "Z": "$"}.get(edge, edge))
            return Chars(self.cased(self.escape()))
        return Chars(self.cased(((ord(char), ord(char)),)))

    def group(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ValueError(f"groups are nested deeper than {_MAX_DEPTH}")
        if self.source.startswith("?:", self.at):
            self.at += 2
        elif self.peek() == "?":
            raise ValueError("lookaround, named groups and flags are not supported")
        node = self.alternatives()
        if self.peek() != ")":
            raise ValueError("a group is not closed")
        self.at += 1
        self.depth -= 1
        return Seq((node,)) if isinstance(node, Edge) else node

    def cased(self, ranges: Ranges) -> Ranges:
        return ranges if self.case_sensitive else _any_case(ranges)

    def escape(self) -> Ranges:
        char = self.take()
        if char.lower() in _CLASSES:
            ranges = pairs(_CLASSES[char.lower()])
            return ranges if char.islower() else complement(ranges)
        if char in "xu":
            digits = self.source[self.at : self.at + (2 if char == "x" else 4)]
            if not re.fullmatch("[0-9a-fA-F]{2}|[0-9a-fA-F]{4}", digits) or len(digits) != (2 if char == "x" else 4):
                raise ValueError(f"\\{char} needs {2 if char == 'x' else 4} hexadecimal digits")
            self.at += len(digits)
            code = int(digits, 16)
            return ((code, code),)
        if char in _ESCAPES:
            return ((ord(_ESCAPES[char]),) * 2,)
        if char.isalnum():
            raise ValueError(f"\\{char} is not supported" + (": no backreferences" if char.isdigit() else ""))
        return ((ord(char), ord(char)),)

    def char_set(self) -> Node:
        negated = self.peek() == "^"
        self.at += negated
        found: list[tuple[int, int]] = []
        first = True
        while first or self.peek() != "]":
            first = False
            low = self.member()
            if self.peek() == "-" and self.source[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.member()
                if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1] or low > high:
                    raise ValueError("a bad range in a set")
                low = ((low[0][0], high[0][0]),)
            found += low
        self.at += 1
        ranges = self.cased(merged(found))
        ranges = complement(ranges) if negated else ranges
        if not ranges:
            raise ValueError("a set that matches nothing")
        return Chars(ranges)

    def member(self) -> Ranges:
        char = self.take()
        if char == "[" and self.peek() in (":", ".", "="):
            raise ValueError("[: classes are not supported")
        return self.escape() if char == "\\" else ((ord(char), ord(char)),)


@functools.lru_cache(256)
def regex(source: str, *, case_sensitive: bool) -> Pattern:
    """The pattern of the operator `regex`. Raises `ValueError` saying what is not part of the dialect or too large."""
    if len(source) > MAX_REGEX_LENGTH:
        raise ValueError(f"longer than {MAX_REGEX_LENGTH} characters")
    node = _Parser(source, case_sensitive=case_sensitive).parse()
    if size(node) > _MAX_SIZE:
        raise ValueError("its repetitions make it too large")
    return Pattern(node, REGEX_TEXT_LENGTH)


def tokens(text: str) -> list[str]:
    """The folded words of `text`: runs of letters, digits and every character that is not a space, punctuation or a symbol."""
    return re.findall(write(Chars(complement(SEPARATOR.ranges)), postgres=False) + "+", fold(text))


@functools.lru_cache(256)
def phrase(text: str) -> tuple[Pattern, ...]:
    """The words of `text` one after the other, whatever separates them; ignores case. Raises `ValueError` when there is no
    word.
    """
    return (_whole([Seq(_joined(tokens(text)))]),)


@functools.lru_cache(256)
def words(text: str) -> tuple[Pattern, ...]:
    """One pattern for each word of `text`: the word or another of its English forms (`forms`) as a whole word; ignores case."""
    return tuple(_whole([_literal(form) for form in forms(word)]) for word in dict.fromkeys(_some(tokens(text))))


def parts(operator: str, text: str) -> list[str]:
    """Folded texts that every text contains in which `words` or `phrase` finds `text`; nothing is known of a regex."""
    if operator == "regex":
        return []
    return tokens(text) if operator == "phrase" else [_common_start(forms(word)) for word in tokens(text)]


def _common_start(texts: list[str]) -> str:
    first, last = min(texts), max(texts)
    return first[: next((place for place, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))]


def forms(word: str) -> list[str]:
    """The forms a word of `words` is found in: plural, -ed and -ing (make → makes, making; run → running; story → stories).

    A light stemmer, not a dictionary: it knows no irregular words, and words that are not all a–z have one form.
    """
    found = {word}
    if len(word) >= 3 and word.isascii() and word.isalpha():
        stem, ending = _stem(word)
        stems = {stem}
        if ending in ("ing", "ed") and stem[-1] == stem[-2] and stem[-1] not in "lsz":
            stems.add(stem[:-1])
        if ending in ("es", "ed") and stem[-1] == "i":
            stems = {stem[:-1] + "y"}
        for base in stems:
            found |= {base + end for end in ("", "s", "es", "ed", "ing")}
            if ending in ("ing", "ed", "es", "e"):
                found.add(base + "e")
            if base[-1] == "y":
                found |= {base[:-1] + end for end in ("ies", "ied")}
            if ending != "e" and base[-1] not in "aeiouwxy" and base[-2] in "aeiou" and base[-3:-2] not in tuple("aeiou"):
                found |= {base + base[-1] + end for end in ("ed", "ing")}
    return sorted(found)


def _stem(word: str) -> tuple[str, str]:
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not (ending == "s" and word[-2] in "siu"):
            return word[: len(word) - len(ending)], ending
    return word, ""


def _some(found: list[str]) -> list[str]:
    if not found:
        raise ValueError("it holds no word")
    return found


def _joined(found: list[str]) -> tuple[Node, ...]:
    def parts() -> Iterator[Node]:
        for place, word in enumerate(_some(found)):
            if place:
                yield Repeat(SEPARATOR, 1, None)
            yield _literal(word)

    return tuple(parts())


def _literal(word: str) -> Node:
    return Seq(tuple(Chars(_any_case(((ord(char), ord(char)),))) for char in word))


def _whole(alternatives: list[Node]) -> Pattern:
    return Pattern(Seq((Alt((Edge("^"), SEPARATOR)), Alt(tuple(alternatives)), Alt((Edge("$"), SEPARATOR)))))
