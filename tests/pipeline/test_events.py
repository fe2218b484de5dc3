"""What syncs tell of the objects they make, change and delete; and how long it is kept."""

from sqlalchemy import event

from mixpeek_dagster.catalog.events import Place
from mixpeek_dagster.pipeline.reconcile import RunState, reconcile
from tests.pipeline.worlds import Library


def told(library: Library) -> list[tuple[str, str]]:
    """(event type, path or id) of every object event so far."""
    paths = {one.object_id: path for path, one in library.objects().items()}
    with library.warehouse.catalog.reading() as records:
        rows = records.events.after(Place(), namespace_id=library.namespace.namespace_id, resource_type="object", limit=1_000)
    return [(row.event_type, paths.get(row.resource_id, "gone")) for row in rows]


def test_a_sync_tells_of_every_object(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.world.put("b.txt", b"two")
    library.poll()
    assert sorted(told(library)) == [("object.created", "a.txt"), ("object.created", "b.txt")]
    library.poll()
    assert len(told(library)) == 2, "unchanged files are no news"
    library.world.put("a.txt", b"three")
    library.world.delete("b.txt")
    library.poll()
    assert sorted(told(library)[2:]) == [("object.deleted", "gone"), ("object.updated", "a.txt")]


def test_telling_takes_no_statement_per_object(library: Library) -> None:
    statements: list[str] = []
    event.listen(library.warehouse.catalog.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    for number in range(50):
        library.world.put(f"{number:03d}.txt", b"x" * (number + 1))
    library.poll()
    assert len([one for one in statements if one.startswith("INSERT INTO events")]) == 1
    assert len(told(library)) == 50


def test_events_are_kept_for_ninety_days(library: Library) -> None:
    library.world.put("a.txt", b"one")
    library.poll()
    library.clock.move(89 * 86_400)
    assert reconcile(library.warehouse, lambda _: RunState.ALIVE).events == 0
    library.clock.move(2 * 86_400)
    assert "old events" in reconcile(library.warehouse, lambda _: RunState.ALIVE).words
    assert told(library) == []
