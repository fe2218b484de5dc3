"""What a benchmark reports: figures with their goals, as a table for people and as JSON for machines."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.end_to_end.home import CLI, ROOT, Home

RESULTS = ROOT / ".bench"
console = Console()


@dataclass(frozen=True)
class Figure:
    """One measured value. `goal` is what it should be at most (or at least, where more is better); `met` is None without a goal."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    met: bool | None = None


def at_most(name: str, value: float, unit: str, goal: float) -> Figure:
    return Figure(name, round(value, 4), unit, goal, value <= goal)


def at_least(name: str, value: float, unit: str, goal: float) -> Figure:
    return Figure(name, round(value, 4), unit, goal, value >= goal)


def seen(name: str, value: float, unit: str) -> Figure:
    """A figure without a goal."""
    return Figure(name, round(value, 4), unit)


@dataclass(frozen=True)
class Cost:
    """What a process cost: wall and CPU seconds, its children's included, and its largest resident memory in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    output: str


def cost_of(home: Home, *arguments: str) -> Cost:
    """Run a command of ours in a process of its own, start-up and imports included."""
    started = time.perf_counter()
    with (home.folder / "bench.log").open("w+b") as log:
        process = subprocess.Popen([*CLI, *arguments], env=home.env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        log.seek(0)
        output = log.read().decode(errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"{arguments} exited {process.returncode}: {output[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def machine() -> str:
    """The machine in one line; the load tells how far to trust the seconds."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return f"{os.cpu_count()} × {model}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"


def report(question: str, answer: Callable[[], Sequence[Figure]]) -> bool:
    """Measure, print and write one question; whether all of its goals are met."""
    before = machine()
    figures = answer()
    table = Table("what", "value", "goal", "met", title=f"make bench Q={question}", caption=before, title_justify="left")
    for one in figures:
        met = "" if one.met is None else "yes" if one.met else "[red]no[/]"
        table.add_row(one.name, f"{one.value:g} {one.unit}", "" if one.goal is None else f"{one.goal:g}", met)
    console.print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{question}.json").write_text(json.dumps([asdict(one) for one in figures], indent=1) + "\n")
    return all(one.met is not False for one in figures)
