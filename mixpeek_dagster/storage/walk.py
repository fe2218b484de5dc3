"""Walk a folder tree in ascending byte order of the full keys, from the start or from after any key, a page at a time.

For storage that lists one folder at a time (`local`, `fsspec`). Memory holds the names of the folders on the current path only.
"""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import TypeVar

from mixpeek_dagster.errors import BadListing
from mixpeek_dagster.storage.provider import Entry, Page

Item = TypeVar("Item")

Scan = Callable[[bytes], list[tuple[bytes, Item]]]
"""The sorted content of one folder, given its key (empty for the top, else ending in `/`); names of folders end in `/` too."""

KEEP_S = 120.0
"""A suspended walk older than this is started again, so that a late reader does not work on an old picture of a folder."""


def walk(scan: Scan[Item], *, after: bytes = b"") -> Iterator[tuple[bytes, Item]]:
    """Yield (key, item) of every file above `after`, in byte order.

    A folder sorts as `name/`: so `a-b` comes before `a/b`, as their keys do. Folders wholly below `after` are not opened.
    """
    stack = [_above(scan, b"", after)]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
        elif found[0].endswith(b"/"):
            stack.append(_above(scan, found[0], after))
        else:
            yield found


def _above(scan: Scan[Item], folder: bytes, after: bytes) -> Iterator[tuple[bytes, Item]]:
    for name, item in scan(folder):
        key = folder + name
        if key > after or (name.endswith(b"/") and after.startswith(key)):
            yield key, item


class Pager:
    """Cuts a walk into pages. The walk behind the latest page is kept, so that reading on does not scan its folders again.

    Safe to share between threads: two readers that page at once merely restart each other's walk.
    """

    def __init__(self, start: Callable[[bytes], Iterator[Entry]]) -> None:
        """`start(after)` begins a walk above a key."""
        self._start = start
        self._lock = threading.Lock()
        self._kept: tuple[bytes, float, Iterator[Entry]] | None = None

    def page(self, *, after: bytes | None, token: str | None, limit: int) -> Page:
        """The page after a key; a token is that key in hex, good in any process.

        Raises:
            BadListing: the token is not one of ours.
        """
        try:
            position = bytes.fromhex(token) if token is not None else after or b""
        except ValueError as error:
            raise BadListing("The listing cannot go on from this token; start the pass again.") from error
        entries_after = self._resume(position)
        entries = list(islice(entries_after, max(1, limit)))
        following = next(entries_after, None)
        if following is None:
            return Page(entries, None)
        last = entries[-1].key
        with self._lock:
            self._kept = (last, time.monotonic(), chain((following,), entries_after))
        return Page(entries, last.hex())

    def _resume(self, position: bytes) -> Iterator[Entry]:
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None and position and kept[0] == position and time.monotonic() - kept[1] < KEEP_S:
            return kept[2]
        return self._start(position)
