"""`Range` requests: which part of a file a client asks for, as RFC 9110 defines it."""

import re
from typing import NamedTuple

_ONE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII | re.IGNORECASE)


class Part(NamedTuple):
    """`length` bytes from byte `start` on; a length of 0 is a part that lies behind the end of the file."""

    start: int
    length: int


def asked_part(header: str | None, size: int) -> Part | None:
    """The part of a file of `size` bytes that a Range header asks for.

    None means the whole file: also for several parts at once, and for what cannot be understood, which a server may ignore.
    """
    found = _ONE.fullmatch((header or "").strip())
    if found is None or len(found[0]) > 60 or found[0].count("-") != 1 or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last so many bytes
        length = min(int(found[2]), size)
        return Part(size - length, length)
    start = int(found[1])
    if found[2] and int(found[2]) < start:
        return None
    end = min(int(found[2]) + 1, size) if found[2] else size
    return Part(start, max(end - start, 0))
