"""Waiting inside a sensor's tick: what somebody waits for is seen within a second, and a tick costs a fifth of a CPU second."""

import threading
import time
from collections.abc import Iterator

# A tick that waits ends just before the daemon's fourth loop of five seconds: behind it there would be nobody until the fifth.
WAIT_S = 19.0


def looks(retiring: threading.Event, *, every_s: float) -> Iterator[float]:
    """Now, and again every `every_s` seconds until the tick should end: how many seconds of it are left.

    Args:
        retiring: set when the code server is being replaced; its ticks end then and let the successor work.
    """
    deadline = time.monotonic() + WAIT_S
    yield WAIT_S
    while not retiring.wait(every_s) and (left := deadline - time.monotonic()) > 0:
        yield left
