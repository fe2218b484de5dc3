"""How the parts of the warehouse are, each asked for something small."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mixpeek_dagster.errors import CatalogError, MixpeekError
from mixpeek_dagster.extractors.catalogue import catalogue
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.vectors.index import Space

UNCLAIMED_S = 120.0
"""A batch that has waited so long is not slow: nobody takes it."""


@dataclass(frozen=True)
class Part:
    """One part of the warehouse: `problem` is None when it works; it names no place and no secret."""

    name: str
    problem: str | None
    ms: float


def parts(warehouse: Warehouse) -> list[Part]:
    """Every part, asked now: catalog, vector index, managed files, the queue of batches, and the extractors."""
    checks: dict[str, Callable[[Warehouse], str | None]] = {
        "metadata": _catalog,
        "vector_store": _index,
        "object_storage": _blobs,
        "task_queue": _queue,
        "inference": _extractors,
    }
    return [_asked(warehouse, name, check) for name, check in checks.items()]


def _asked(warehouse: Warehouse, name: str, check: Callable[[Warehouse], str | None]) -> Part:
    started = time.perf_counter()
    try:
        problem = check(warehouse)
    except MixpeekError as error:
        problem = error.code
    except OSError as error:
        problem = type(error).__name__
    return Part(name, problem, round((time.perf_counter() - started) * 1000, 1))


def _catalog(warehouse: Warehouse) -> None:
    with warehouse.catalog.reading() as records:
        records.keys.count()


def _index(warehouse: Warehouse) -> None:
    warehouse.index.count(Space(namespace_id="ns_health", collection_id="col_health", outputs={}))


def _blobs(warehouse: Warehouse) -> None:
    warehouse.blobs.head("health/none")


def _queue(warehouse: Warehouse) -> str | None:
    try:
        with warehouse.catalog.reading() as records:
            waiting = records.batches.waiting()
    except CatalogError:
        return None  # that is the catalog's trouble, and said there
    submitted = next((one.submitted_at for one in waiting if one.submitted_at), None)
    waited = (warehouse.clock() - datetime.fromisoformat(submitted)).total_seconds() if submitted else 0.0
    return f"no run has taken a batch for {waited:.0f} s" if waited > UNCLAIMED_S else None


def _extractors(warehouse: Warehouse) -> str | None:
    return None if catalogue() else "no extractor is registered"
