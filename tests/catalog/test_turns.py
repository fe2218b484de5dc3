"""Writers of one process take turns."""

import threading
import time

import pytest

from mixpeek_dagster.catalog.turns import Turns
from mixpeek_dagster.errors import CatalogError


def test_turns_come_in_the_order_they_were_asked_for() -> None:
    turns, order = Turns(), list[int]()
    started = [threading.Event() for _ in range(8)]

    def take(number: int) -> None:
        started[number].set()
        with turns.mine():
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    with turns.mine():
        for number, thread in enumerate(threads):
            thread.start()
            started[number].wait(10)
            while len(turns._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))
    with turns.mine():
        pass


def test_who_waits_too_long_is_told_and_keeps_nobody_waiting() -> None:
    turns = Turns(timeout_s=0.05)

    def fail() -> None:
        with pytest.raises(CatalogError, match="try again"), turns.mine():
            pytest.fail("it was taken")

    with turns.mine():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join(10)
    with turns.mine():
        pass
