"""One pass without a daemon: what it takes over from processes that died."""

import socket
import subprocess
import sys

from mixpeek_dagster.definitions.one_pass import is_dead
from mixpeek_dagster.pipeline.warehouse import Warehouse


def test_a_process_that_died_is_known_by_the_lock_that_it_left(warehouse: Warehouse) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(20)
    lost = Warehouse(settings=warehouse.settings, owner=f"{socket.gethostname()}:{ended.pid}")
    assert is_dead(lost.new_holder())
    assert is_dead(lost.owner)
    assert not is_dead(warehouse.new_holder())
    assert not is_dead(f"another-host:{ended.pid}/0")
