"""Kill passes at random places while the source changes: afterwards the catalog equals the source, and nothing was queued twice.

`MIXPEEK_FUZZ_SEEDS` says how many schedules each listing order gets.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mixpeek_dagster.pipeline.syncs import LOCK_S
from mixpeek_dagster.pipeline.warehouse import Warehouse
from tests.pipeline.worlds import Clock, Library

SEEDS = int(os.environ.get("MIXPEEK_FUZZ_SEEDS") or 6)


class Killed(BaseException):
    """The process died here: nothing after it happens, not even clean-up."""


class Process:
    """One process that may die at a commit (before or after it reached the disk) or at a call of the source."""

    def __init__(self, library: Library, number: int) -> None:
        self.library = library
        self.warehouse = Warehouse(settings=library.warehouse.settings, clock=library.clock, owner=f"fuzz:{number}")
        self.steps_left: int | None = None
        self.is_dead = False
        engine = self.warehouse.catalog.engine
        commit = engine.dialect.do_commit

        def dying_commit(connection: Any) -> None:
            self.step()
            commit(connection)
            self.step()

        engine.dialect.do_commit = dying_commit  # type: ignore[method-assign]

    def step(self, _: str = "") -> None:
        if self.is_dead:
            raise Killed
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                self.is_dead = True
                raise Killed

    @contextmanager
    def running(self) -> Iterator[None]:
        self.library.warehouse, before = self.warehouse, self.library.warehouse
        self.library.world.before = self.step
        try:
            yield
        except Killed:
            self.is_dead = True
        finally:
            self.library.world.before = lambda _: None
            self.library.warehouse = before
            self.warehouse.close()


def mutate(library: Library, chance: random.Random, alive: list[str]) -> None:
    for _ in range(chance.randrange(1, 8)):
        kind = chance.choice(["new", "new", "new", "edit", "delete", "rename"])
        if kind == "new" or not alive:
            name = f"{chance.choice('abcdefgh')}{chance.choice(['/', '-', '.', ''])}{chance.randrange(1000)}.txt"
            library.world.put(name, str(chance.random()).encode())
            alive += [name] if name not in alive else []
        elif kind == "edit":
            library.world.put(chance.choice(alive), str(chance.random()).encode())
        else:
            name = alive.pop(chance.randrange(len(alive)))
            data = library.world.files[name.encode()][1]
            library.world.delete(name)
            if kind == "rename":
                new = f"renamed-{chance.randrange(10**6)}.txt"
                library.world.put(new, data)
                alive.append(new)


def queued(library: Library) -> dict[str, int]:
    """How often each object was put into a batch."""
    with library.warehouse.catalog.reading() as records:
        rows = records.connection.exec_driver_sql("SELECT item_id, count(*) FROM batch_items GROUP BY item_id")
        return {row[0]: row[1] for row in rows}


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("order", ["bytes", "shuffled", "broken"])
def test_no_schedule_of_crashes_loses_or_repeats_anything(
    library: Library, clock: Clock, order: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(f"{order}{seed}")
    changes_filters = chance.random() < 0.5
    world = library.world
    world.order, world.page_size, world.repeats = order, chance.randrange(1, 8), chance.choice([0, 0, 2])
    library.configure(batch_chunk_size=chance.randrange(1, 6))
    alive: list[str] = []
    deaths = 0
    for number in range(14):
        mutate(library, chance, alive)
        if changes_filters:
            library.configure(file_filters=chance.choice([{}, {"exclude_patterns": ["*a*"]}, {"min_size_bytes": 19}]))
            monkeypatch.setattr("mixpeek_dagster.pipeline.merge.SURE_DELETES", chance.choice([1, 100]))
            library.set_sync(confirmed_deletes=chance.choice([0, 0, 3]))
        process = Process(library, number)
        process.steps_left = chance.choice([None, chance.randrange(60), chance.randrange(12)])
        with process.running():
            for _ in range(chance.randrange(1, 6)):
                world.hidden = {name.encode() for name in alive if chance.random() < 0.05}
                library.advance(budget_s=chance.choice([0, 0, 20]))
                if chance.random() < 0.3:
                    mutate(library, chance, alive)
        deaths += process.is_dead
        clock.move(chance.choice([1, LOCK_S + 1]))
    world.hidden = set()
    library.configure(file_filters={})
    monkeypatch.setattr("mixpeek_dagster.pipeline.merge.SURE_DELETES", 100)
    clock.move(LOCK_S + 1)
    if library.now().cursor.phase != "idle":
        library.poll()  # the rest of a pass that began while files still changed
    library.poll()
    library.assert_follows_source()
    assert deaths, "this schedule kills nobody"
    found = library.objects().values()
    assert {one.object_id: queued(library)[one.object_id] for one in found} == {one.object_id: one.revision for one in found}
    ids = [batch.batch_id for batch in library.batches()]
    assert len(ids) == len(set(ids))
    before = queued(library)
    library.poll()
    assert queued(library) == before, "an idle pass queues nothing"
