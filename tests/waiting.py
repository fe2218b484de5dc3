"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], *, timeout_s: float = 120, every_s: float = 0.2) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(every_s)
    raise AssertionError(f"not within {timeout_s} s: {condition}")
