"""Opening the catalog, and transactions: the only way in.

`with catalog.transaction() as records:` commits everything or nothing. SQLite runs in WAL mode with one writer at a time
(`BEGIN IMMEDIATE`, waiting up to 60 s for its turn, in order within a process); Postgres relies on compare-and-set updates.
"""

import ctypes
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mixpeek_dagster.catalog.batches import BatchRecords
from mixpeek_dagster.catalog.buckets import BucketRecords
from mixpeek_dagster.catalog.collections import CollectionRecords
from mixpeek_dagster.catalog.definitions import DefinitionRecords
from mixpeek_dagster.catalog.documents import DocumentRecords
from mixpeek_dagster.catalog.events import EventRecords
from mixpeek_dagster.catalog.keys import KeyRecords
from mixpeek_dagster.catalog.listed_pages import ListedPageRecords
from mixpeek_dagster.catalog.listing import ListingRecords
from mixpeek_dagster.catalog.migrations import bring_up_to_date
from mixpeek_dagster.catalog.namespaces import NamespaceRecords
from mixpeek_dagster.catalog.objects import ObjectRecords
from mixpeek_dagster.catalog.queries import register_functions
from mixpeek_dagster.catalog.retrievers import RetrieverRecords
from mixpeek_dagster.catalog.runs import RunRecords
from mixpeek_dagster.catalog.shared_keys import SharedKeyRecords
from mixpeek_dagster.catalog.syncs import SyncRecords
from mixpeek_dagster.catalog.tasks import TaskRecords
from mixpeek_dagster.catalog.turns import Turns
from mixpeek_dagster.catalog.uploads import UploadRecords
from mixpeek_dagster.catalog.webhooks import WebhookRecords
from mixpeek_dagster.errors import AlreadyExists, CatalogError, NotFound

SQLITE_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "busy_timeout=60000",
    "foreign_keys=ON",
    "cache_size=-1024",  # KiB a connection: the operating system caches the file
    "temp_store=MEMORY",
    "wal_autocheckpoint=8000",  # pages of 4 KiB; a batch writes the same ones again and again, which are then copied once
)

_SQLITE_CONFIG_MEMSTATUS = 9

POOL: Mapping[str, Any] = {"pool_size": 5, "max_overflow": 20, "pool_timeout": 60}
"""Connections of one process: as many as the API has threads that may need one, `THREADS` and `CONCURRENT` there."""


class Records:
    """The records of one open transaction, by noun."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @cached_property
    def namespaces(self) -> NamespaceRecords:
        return NamespaceRecords(self.connection)

    @cached_property
    def buckets(self) -> BucketRecords:
        return BucketRecords(self.connection)

    @cached_property
    def syncs(self) -> SyncRecords:
        return SyncRecords(self.connection)

    @cached_property
    def listed_pages(self) -> ListedPageRecords:
        return ListedPageRecords(self.connection)

    @cached_property
    def shared_keys(self) -> SharedKeyRecords:
        return SharedKeyRecords(self.connection)

    @cached_property
    def objects(self) -> ObjectRecords:
        return ObjectRecords(self.connection)

    @cached_property
    def collections(self) -> CollectionRecords:
        return CollectionRecords(self.connection)

    @cached_property
    def batches(self) -> BatchRecords:
        return BatchRecords(self.connection)

    @cached_property
    def definitions(self) -> DefinitionRecords:
        return DefinitionRecords(self.connection)

    @cached_property
    def runs(self) -> RunRecords:
        return RunRecords(self.connection)

    @cached_property
    def documents(self) -> DocumentRecords:
        return DocumentRecords(self.connection)

    @cached_property
    def listing(self) -> ListingRecords:
        return ListingRecords(self.connection)

    @cached_property
    def events(self) -> EventRecords:
        return EventRecords(self.connection)

    @cached_property
    def keys(self) -> KeyRecords:
        return KeyRecords(self.connection)

    @cached_property
    def tasks(self) -> TaskRecords:
        return TaskRecords(self.connection)

    @cached_property
    def uploads(self) -> UploadRecords:
        return UploadRecords(self.connection)

    @cached_property
    def retrievers(self) -> RetrieverRecords:
        return RetrieverRecords(self.connection)

    @cached_property
    def webhooks(self) -> WebhookRecords:
        return WebhookRecords(self.connection)


class Catalog:
    """A catalog at a SQLAlchemy URL, migrated to this version's tables when it is opened.

    Raises:
        NotFound, AlreadyExists: another process deleted, or wrote, what a row refers to or repeats.
        CatalogError: it cannot be opened, or a statement failed for a reason outside the caller's data (disk full, lock not
            granted, server gone). The transaction was rolled back; nothing of it is recorded.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        is_sqlite = self.engine.dialect.name == "sqlite"
        self._turn = Turns().mine if is_sqlite else nullcontext
        self.readers = 2 * (os.cpu_count() or 1) if is_sqlite else POOL["pool_size"] + POOL["max_overflow"]
        """How many queries it is worth to have going at once: SQLite reads with the cores of this process."""
        with _as_catalog_error(url):
            bring_up_to_date(self.engine)

    @contextmanager
    def transaction(self) -> Iterator[Records]:
        """Read and write; committed when the block ends, rolled back when it raises."""
        with _as_catalog_error(self.url), self._turn(), self.engine.begin() as connection:
            yield Records(connection)

    @contextmanager
    def reading(self) -> Iterator[Records]:
        """Read one consistent snapshot without keeping writers waiting."""
        options: dict[str, Any] = {"reading": True}
        if self.engine.dialect.name == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with _as_catalog_error(self.url), self.engine.connect().execution_options(**options) as connection:
            yield Records(connection)

    def close(self) -> None:
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, json_serializer=_dumps, **POOL)
    _let_threads_allocate()
    file = make_url(url).database
    if file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, json_serializer=_dumps, connect_args={"timeout": 60, "cached_statements": 512}, **POOL)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in SQLITE_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        register_functions(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reading") else "BEGIN IMMEDIATE")

    return engine


def _let_threads_allocate() -> None:
    """Have SQLite keep no account of its memory: under the lock of that account, two threads that read JSON are slower than one.

    Heeded only before the process first uses SQLite; otherwise, or where the symbol is hidden, everything works as ever.
    """
    module = find_spec("_sqlite3")
    with suppress(OSError, AttributeError):
        configure = ctypes.CDLL(module.origin if module else None).sqlite3_config
        configure.argtypes = [ctypes.c_int]
        configure(_SQLITE_CONFIG_MEMSTATUS, 0)


_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@contextmanager
def _as_catalog_error(url: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        reason = str(error.orig).lower()
        if "foreign key" in reason:
            raise NotFound(
                "What this belongs to was deleted by another request at the same time; nothing was written."
            ) from error
        if "unique" in reason:
            raise AlreadyExists("Another request wrote the same at the same time; nothing was written. Repeat it.") from error
        raise
    except PoolTimeout as error:
        raise CatalogError(
            f"All {POOL['pool_size'] + POOL['max_overflow']} connections of this process are busy; try again."
        ) from error
    except DBAPIError as error:
        where = make_url(url).render_as_string(hide_password=True)
        reason = str(error.orig).strip()
        remedy = {
            "database or disk is full": "Free space on that disk; everything committed before is kept.",
            "database is locked": "Another process held the write lock for over 60 s; try again.",
            "unable to open database file": "Check that the folder exists and may be written (MIXPEEK_HOME).",
        }.get(reason, "Check that the database is reachable (MIXPEEK_CATALOG_URL) and try again.")
        raise CatalogError(f"The catalog at {where} failed: {reason}. {remedy}") from error
