"""Opening a catalog, its transactions and its tables, on SQLite and on Postgres."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, make_url, text

from mixpeek_dagster.catalog import Catalog
from mixpeek_dagster.catalog.catalog import _engine
from mixpeek_dagster.catalog.migrations import HEAD, bring_up_to_date
from mixpeek_dagster.catalog.rows import LONGEST_INDEXED
from mixpeek_dagster.catalog.syncs import KeyState, LockLost, SourceKey
from mixpeek_dagster.catalog.tables import metadata
from mixpeek_dagster.errors import AlreadyExists, CatalogError, NotFound
from mixpeek_dagster.models.batches import Batch, BatchPart, BatchStatus, PartStatus
from mixpeek_dagster.models.documents import DocumentState
from mixpeek_dagster.models.ids import BatchId, NamespaceId
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.pipeline.batches import settle
from mixpeek_dagster.settings import Settings
from tests.catalog.worlds import add_sync, collection, document, feature
from tests.pipeline.worlds import NOW, make_bucket, make_namespace, stored_object


@pytest.fixture
def new_url(catalog_url: str) -> Iterator[str]:
    """A place where no catalog has been opened yet."""
    if catalog_url.startswith("sqlite"):
        yield catalog_url
        return
    engine = create_engine(catalog_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS fresh"))
        connection.execute(text("CREATE DATABASE fresh"))
    yield make_url(catalog_url).set(database="fresh").render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE fresh WITH (FORCE)"))
    engine.dispose()


# Tables


def test_migrations_make_exactly_the_tables(catalog: Catalog) -> None:
    with catalog.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        found = [one for one in compare_metadata(context, metadata) if "alembic_version" not in str(one)]
        version = context.get_current_revision()
    assert found == []
    assert version == HEAD


def test_a_catalog_of_the_first_version_keeps_its_rows(new_url: str) -> None:
    engine = _engine(new_url)
    bring_up_to_date(engine, to="0001")
    times = "'2026-11-22T00:00:00.000000Z', '2026-11-22T00:00:00.000000Z'"
    with engine.begin() as connection:
        for statement in (
            f"INSERT INTO namespaces VALUES ('ns_1', 'first', '{{}}', {times})",
            "INSERT INTO buckets (bucket_id, namespace_id, bucket_name, body, object_count, total_size_bytes, created_at, updated_at)"
            f" VALUES ('bkt_1', 'ns_1', 'files', '{{\"bucket_schema\": {{\"properties\": {{}}}}}}', 0, 0, {times})",
            "INSERT INTO connections (connection_id, name, provider, body, status, created_at, updated_at)"
            f" VALUES ('conn_1', 'disk', 'local', '{{}}', 'ACTIVE', {times})",
            "INSERT INTO syncs (sync_id, namespace_id, bucket_id, connection_id, provider, spec, status, cursor, pending_full, "
            "confirm_deletes, passes, consecutive_failures, last_counters, created_at, updated_at)"
            f" VALUES ('sync_1', 'ns_1', 'bkt_1', 'conn_1', 'local', '{{}}', 'PENDING', '{{}}', false, true, 0, 0, '{{\"held\": 7}}', {times})",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    opened = Catalog(new_url)
    with opened.transaction() as records:
        (sync,) = records.syncs.all()
        assert sync.confirmed_deletes == 7
        assert records.syncs.connection(sync.connection_id)[0].name == "disk"
    with pytest.raises(NotFound), opened.transaction() as records:  # what refers to nothing is refused again
        records.connection.exec_driver_sql("UPDATE syncs SET connection_id = 'conn_gone'")
    opened.close()


_OPEN = "import sys; from mixpeek_dagster.catalog import Catalog; Catalog(sys.argv[1]).close(); print('opened')"


def test_processes_that_open_a_new_catalog_at_once_all_succeed(new_url: str) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", _OPEN, new_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [process.communicate(timeout=120) for process in started]
    assert [out for out, _ in answers] == ["opened\n"] * 3, answers
    opened = Catalog(new_url)
    with opened.transaction() as records:
        make_namespace(records)
    opened.close()


def test_a_catalog_that_cannot_be_opened_says_where_and_what_to_do(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / "catalog.db").mkdir()
    with pytest.raises(CatalogError, match="Check that the folder exists and may be written") as caught:
        Catalog(settings.catalog_url)
    assert str(settings.home) in str(caught.value)


def test_a_password_is_not_in_the_message() -> None:
    with pytest.raises(CatalogError) as caught:
        Catalog("postgresql://someone:hush@127.0.0.1:1/nothing")
    assert "hush" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


# Transactions


def test_a_transaction_is_all_or_nothing(catalog: Catalog) -> None:
    def write_and_fail() -> None:
        with catalog.transaction() as records:
            make_namespace(records)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write_and_fail()
    with catalog.reading() as records:
        assert records.namespaces.all() == []


def test_a_reader_sees_one_snapshot(catalog: Catalog) -> None:
    with catalog.reading() as reading:
        assert reading.namespaces.all() == []
        with catalog.transaction() as records:
            make_namespace(records)
        assert reading.namespaces.all() == []
    with catalog.reading() as reading:
        assert len(reading.namespaces.all()) == 1


def test_a_full_disk_is_a_catalog_error_and_nothing_is_half_written(settings: Settings) -> None:
    catalog = Catalog(settings.catalog_url)
    with catalog.transaction() as records:
        namespace = make_namespace(records)
        bucket = make_bucket(records, namespace)
        made = collection(records, namespace, bucket)
    catalog.close()
    from sqlalchemy import event

    @event.listens_for(catalog.engine, "connect")
    def _full(connection: object, _: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]  # type: ignore[attr-defined]
        connection.execute(f"PRAGMA max_page_count = {pages + 8}")  # type: ignore[attr-defined]

    def write() -> None:
        with catalog.transaction() as records:
            records.documents.add_features([feature(f"m{n}", size=2000) for n in range(200)], now=NOW)
            records.documents.put(made.collection_id, [document(made, f"doc_{n}") for n in range(200)])

    with pytest.raises(CatalogError, match=r"disk is full\. Free space on that disk; everything committed before is kept\."):
        write()
    with catalog.reading() as records:
        assert records.documents.count(made.collection_id) == 0
        assert records.documents.scan(made.collection_id) == []
        assert records.documents.features([f"m{n}" for n in range(200)]) == {}
    catalog.close()
    again = Catalog(settings.catalog_url)
    with again.transaction() as records:
        records.documents.put(made.collection_id, [document(made, "doc_1")])
    again.close()


# Names


def test_names_are_unique_where_they_have_to_be(catalog: Catalog, namespace: Namespace) -> None:
    with catalog.transaction() as records:
        other = make_namespace(records, "other")
        bucket = make_bucket(records, namespace, bucket_name="b")
        made = collection(records, namespace, bucket, name="ccc")
        with pytest.raises(AlreadyExists, match="'library' is taken"):
            make_namespace(records)
        with pytest.raises(AlreadyExists, match="'b' is taken"):
            make_bucket(records, namespace, bucket_name="b")
        with pytest.raises(AlreadyExists, match="'ccc' is taken"):
            collection(records, namespace, bucket, name="ccc")
        assert make_bucket(records, other, bucket_name="b").bucket_id != bucket.bucket_id
    with catalog.reading() as records:
        scope = {"namespace_id": namespace.namespace_id}
        assert records.buckets.get("b", **scope) == records.buckets.get(bucket.bucket_id, **scope) == bucket
        assert records.collections.get("ccc", **scope).collection_id == made.collection_id
        assert len(records.namespaces.all()) == 2, "what failed did not spoil the transaction"


def test_an_id_is_preferred_to_a_name_that_looks_like_it(catalog: Catalog, namespace: Namespace) -> None:
    with catalog.transaction() as records:
        first = make_bucket(records, namespace)
        make_bucket(records, namespace, bucket_name=first.bucket_id)
        assert records.buckets.get(first.bucket_id, namespace_id=namespace.namespace_id) == first


def test_nothing_is_found_across_namespaces(catalog: Catalog, namespace: Namespace) -> None:
    with catalog.transaction() as records:
        bucket = make_bucket(records, namespace)
        made = collection(records, namespace, bucket)
        records.documents.put(made.collection_id, [document(made, "doc_1")])
        elsewhere = NamespaceId("ns_other")
        with pytest.raises(NotFound):
            records.buckets.get(bucket.bucket_id, namespace_id=elsewhere)
        with pytest.raises(NotFound):
            records.collections.get(made.collection_id, namespace_id=elsewhere)
        with pytest.raises(NotFound):
            records.documents.get("doc_1", namespace_id=elsewhere)
        assert records.documents.named(["doc_1"], namespace_id=elsewhere) == {}


# Claims and locks


def add_batch(catalog: Catalog, namespace: Namespace, *, parts: int, status: PartStatus = PartStatus.QUEUED) -> Batch:
    batch = Batch(
        batch_id=BatchId("btch_1"),
        namespace_id=namespace.namespace_id,
        bucket_id=None,
        status=BatchStatus.QUEUED,
        created_at=NOW,
        updated_at=NOW,
        submitted_at=NOW,
    )
    made = [BatchPart(batch_id=batch.batch_id, part=n, partition_key=f"btch_1.{n}", status=status) for n in range(1, parts + 1)]
    with catalog.transaction() as records:
        records.batches.add(batch)
        records.batches.add_parts(made, [])
    return batch


def test_an_object_is_taken_later_by_batches_submitted_after_a_given_one(catalog: Catalog, namespace: Namespace) -> None:
    with catalog.transaction() as records:
        bucket = make_bucket(records, namespace)
        sync = add_sync(records, bucket)

        def add(number: int, status: BatchStatus, item: str, submitted_at: str | None, **more: Any) -> Batch:
            made = Batch(
                batch_id=BatchId(f"btch_{number}"),
                namespace_id=namespace.namespace_id,
                bucket_id=bucket.bucket_id,
                status=BatchStatus.DRAFT,
                created_at=NOW,
                updated_at=NOW,
                **more,
            )
            records.batches.add(made)
            made = records.batches.append_items(made, [item, "other"], now=NOW)
            records.batches.set(made.batch_id, now=NOW, status=status, submitted_at=submitted_at)
            return records.batches.get(made.batch_id)

        add(0, BatchStatus.QUEUED, "earlier", "1")
        given = add(1, BatchStatus.PROCESSING, "mine", "2")
        add(2, BatchStatus.COMPLETED, "at the same time", "2")
        for number, status in enumerate([BatchStatus.QUEUED, BatchStatus.FAILED, BatchStatus.CANCELED], 3):
            add(number, status, f"later {status}", "3")
        add(6, BatchStatus.DRAFT, "never submitted", None)
        add(7, BatchStatus.DRAFT, "being filled", None, sync_id=sync.sync_id)
        asked = {item for number in range(8) for _, item in records.batches.items(BatchId(f"btch_{number}"))} - {"other"}
        found = records.objects.taken_later([*asked, *map(str, range(600))], given)
    assert asked - found == {"earlier", "mine", "never submitted"}


def test_every_part_is_claimed_by_exactly_one_of_many(catalog: Catalog, namespace: Namespace) -> None:
    add_batch(catalog, namespace, parts=60)
    barrier = threading.Barrier(6)

    def claim_all(_: int) -> list[int]:
        barrier.wait(20)
        mine: list[int] = []
        for _ in range(60):
            with catalog.transaction() as records:
                mine += [one.part.part for one in records.batches.claim(limit=3, now=NOW, accepts=lambda _: True)]
        return mine

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(claim_all, range(6)))
    assert sorted(part for mine in found for part in mine) == list(range(1, 61))
    with catalog.reading() as records:
        assert {part.attempt for part in records.batches.parts(BatchId("btch_1"))} == {1}


def test_parts_of_collections_that_are_not_loaded_yet_stay_queued(catalog: Catalog, namespace: Namespace) -> None:
    add_batch(catalog, namespace, parts=2)
    with catalog.transaction() as records:
        assert records.batches.claim(limit=5, now=NOW, accepts=lambda _: False) == []
        assert records.batches.has_queued()
        assert len(records.batches.claim(limit=1, now=NOW, accepts=lambda _: True)) == 1


def test_two_parts_that_end_at_the_same_moment_end_their_batch(
    catalog: Catalog, namespace: Namespace, settings: Settings
) -> None:
    batch = add_batch(catalog, namespace, parts=2, status=PartStatus.RUNNING)
    barrier = threading.Barrier(2)

    def finish(number: int) -> None:
        barrier.wait(20)
        with catalog.transaction() as records:
            part = records.batches.parts(batch.batch_id)[number]
            records.batches.move_part(part, PartStatus.COMPLETED)
            if catalog.engine.dialect.name == "postgresql":
                barrier.wait(20)  # both have written, neither has committed
            settle(records, batch.batch_id, settings=settings, now=NOW)

    with catalog.transaction() as records:
        records.batches.start(batch.batch_id, now=NOW)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(finish, range(2)))
    with catalog.transaction() as records:  # looking for events to deliver locks them
        assert records.batches.get(batch.batch_id).status is BatchStatus.COMPLETED
        assert [one.event_type for one in records.events.undelivered()] == ["batch.completed"]


def test_a_batch_moves_once(catalog: Catalog, namespace: Namespace) -> None:
    from mixpeek_dagster.errors import WrongState

    batch = add_batch(catalog, namespace, parts=1)
    with catalog.transaction() as records:
        records.batches.move(batch, BatchStatus.CANCELED, now=NOW)
        with pytest.raises(WrongState, match="changed by another request"):
            records.batches.move(batch, BatchStatus.PROCESSING, now=NOW)
        assert not records.batches.start(batch.batch_id, now=NOW)


def test_only_the_holder_of_a_lock_writes_a_syncs_state(catalog: Catalog, namespace: Namespace) -> None:
    with catalog.transaction() as records:
        sync = add_sync(records, make_bucket(records, namespace))
        assert records.syncs.lock(sync.sync_id, owner="a", now="1", until="2")
        assert not records.syncs.lock(sync.sync_id, owner="b", now="1", until="3")
        assert not records.syncs.lock(sync.sync_id, owner="a", now="1", until="3"), "not even another thread of the holder"
        records.syncs.save(sync.sync_id, owner="a", passes=1)
        assert records.syncs.lock(sync.sync_id, owner="b", now="3", until="4"), "it was not prolonged"
        with pytest.raises(LockLost, match=sync.sync_id):
            records.syncs.save(sync.sync_id, owner="a", passes=2)
        records.syncs.unlock(sync.sync_id, owner="a")
        assert records.syncs.get(sync.sync_id).locked_by == "b"
        records.syncs.unlock(sync.sync_id)
        assert records.syncs.get(sync.sync_id).locked_by is None
        assert records.syncs.get(sync.sync_id).passes == 1


def test_dead_letters_that_were_given_up_are_shown_no_more(catalog: Catalog, namespace: Namespace) -> None:
    with catalog.transaction() as records:
        sync_id = add_sync(records, make_bucket(records, namespace)).sync_id
        keys = [SourceKey(b"%04d" % number, 1, "e", "", KeyState.REJECTED, None, error="bad") for number in range(1200)]
        records.syncs.put_keys(sync_id, keys, generation=1)
        assert records.syncs.give_up(sync_id, [KeyState.ARCHIVED], reason="enough", now=NOW) == 0
        assert records.syncs.give_up(sync_id, [KeyState.REJECTED], reason="enough", now=NOW) == 1200
        assert records.syncs.dead_letters(sync_id, [KeyState.REJECTED]) == ([], 0)
        assert records.syncs.give_up(sync_id, [KeyState.REJECTED], reason="enough", now=NOW) == 0


def test_writers_of_one_collection_at_once_count_every_document_once(catalog: Catalog, namespace: Namespace) -> None:
    with catalog.transaction() as records:
        made = collection(records, namespace, make_bucket(records, namespace))
    barrier = threading.Barrier(4)

    def write(number: int) -> None:
        barrier.wait(20)
        for turn in range(10):
            with catalog.transaction() as records:
                names = [f"{turn}-{one}" for one in range(8)]
                names = names if number % 2 else names[::-1]
                records.documents.add_features([feature(name) for name in names], now=NOW)
                records.documents.put(made.collection_id, [document(made, f"doc_{name}", memo_key=name) for name in names])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with catalog.reading() as records:
        assert records.documents.count(made.collection_id) == 80
        assert len(list(records.documents.ids(made.collection_id))) == 80
        assert records.documents.stamp(made.collection_id) == (0, 4 * 80)
        assert {one.state for one in records.documents.scan(made.collection_id)} == {DocumentState.INDEXED}


def test_the_longest_unique_value_can_be_kept(catalog: Catalog) -> None:
    """Digits at random, which no database makes shorter."""
    digits = Random(1).randbytes(LONGEST_INDEXED).hex()
    with catalog.transaction() as records:
        bucket = make_bucket(records, make_namespace(records))
        records.objects.add([stored_object(bucket, "obj_1", unique_value=digits[:LONGEST_INDEXED])])
        found = records.objects.by_unique_value(bucket.bucket_id, digits[:LONGEST_INDEXED])
    assert found is not None
    assert found.object_id == "obj_1"
