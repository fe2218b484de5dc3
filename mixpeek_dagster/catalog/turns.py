"""Writers of one process take turns: first come, first served.

SQLite lets one writer in at a time, and has the others look again after pauses that grow: whoever comes at the right moment goes
first, and under many writers some wait for minutes.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from mixpeek_dagster.errors import CatalogError


class Turns:
    """A lock that is handed over in the order it was asked for."""

    def __init__(self, *, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s
        self._guard = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Lock] = deque()

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Wait for one's turn and keep it until the block ends.

        Raises:
            CatalogError: it did not come in time.
        """
        self._wait()
        try:
            yield
        finally:
            self._hand_over()

    def _wait(self) -> None:
        with self._guard:
            if not self._is_taken:
                self._is_taken = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        came = False
        try:
            came = turn.acquire(timeout=self._timeout_s)
        finally:
            if not came:
                self._give_up(turn)
        if not came:
            raise CatalogError(f"Other writers of this process held the catalog for over {self._timeout_s:g} s; try again.")

    def _give_up(self, turn: threading.Lock) -> None:
        with self._guard:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return
        self._hand_over()  # it came in the last moment

    def _hand_over(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False
