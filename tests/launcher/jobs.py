"""Jobs for the launcher's tests to launch."""

import os
import time
from pathlib import Path

import dagster as dg


@dg.op
def greet() -> None:
    print(f"hello from {os.getpid()} of {os.getppid()}, {os.environ.get('GREETING', 'nobody')}")


@dg.op
def wait() -> None:
    """Until the file that WAIT_FOR names exists; at most a minute."""
    for _ in range(600):
        if Path(os.environ["WAIT_FOR"]).exists():
            return
        time.sleep(0.1)
    raise RuntimeError("nobody came")


@dg.job(executor_def=dg.in_process_executor)
def greets() -> None:
    greet()


@dg.job(executor_def=dg.in_process_executor)
def waits() -> None:
    wait()
