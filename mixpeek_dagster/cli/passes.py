"""Commands that work: run a pass, prove the result, look at batches."""

import gc
import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from mixpeek_dagster.cli.documents import NamespaceOption, namespace_id
from mixpeek_dagster.pipeline.warehouse import Warehouse

if TYPE_CHECKING:
    from mixpeek_dagster.definitions.one_pass import PassReport

console = Console()


def run(
    now: Annotated[bool, typer.Option("--now", help="Poll every sync that is not paused, due or not.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the summary only.")] = False,
) -> None:
    """Make one pass in this process: syncs, their batches through Dagster, events. Exits 1 when anything failed."""
    gc.disable()  # what imports make stays: looking through it again and again would cost a tenth of a short pass
    from mixpeek_dagster.cli.dagster_home import prepare_dagster_home
    from mixpeek_dagster.definitions import one_pass  # noqa: F401 - before freezing

    gc.freeze()
    gc.enable()
    warehouse = Warehouse.from_env()
    prepare_dagster_home(warehouse.settings)
    report = pass_once(warehouse, now=now, quiet=quiet)
    summarise(warehouse, report)
    # Nothing is left to do; taking the interpreter apart would cost a tenth of a second.
    warehouse.close()
    console.file.flush()
    os._exit(0 if report.ok else 1)


def pass_once(warehouse: Warehouse, *, now: bool = True, quiet: bool = False) -> "PassReport":
    """One pass, under a progress bar. DAGSTER_HOME must be set."""
    from mixpeek_dagster.cli.progress import watched
    from mixpeek_dagster.definitions.one_pass import run_once

    with watched(warehouse, quiet=quiet) as watcher:
        return run_once(warehouse, now=now, watcher=watcher)


def summarise(warehouse: Warehouse, report: "PassReport") -> None:
    """Print what a pass did, and everything that went wrong."""
    counters = report.counters
    console.print(
        f"syncs: {len(report.passes)} polled, {counters.listed} files listed ({size(counters.bytes)}); {counters.new} new, "
        f"{counters.changed} changed, {counters.deleted} deleted, {counters.skipped} not taken, {counters.failed} rejected",
        soft_wrap=True,
    )
    for sync_id, progress in report.passes.items():
        if progress.error:
            console.print(f"[red]{sync_id}: {progress.error}[/]", highlight=False)
        elif progress.sync.last_error:
            console.print(f"[yellow]{sync_id}: {progress.sync.last_error}[/]", highlight=False)
    if report.recovered:
        console.print(f"recovered: {report.recovered} parts of a process that died")
    if not report.batches:
        console.print("batches: none; nothing was inferred")
        return
    with warehouse.catalog.reading() as records:
        steps = [step for batch in report.batches for step in records.batches.steps(batch.batch_id)]
        failures = [one for batch in report.batches if batch.failed_count for one in records.batches.failures(batch.batch_id)[0]]
    documents, seconds = sum(s.documents for s in steps), sum(s.seconds for s in steps)
    done = [batch for batch in report.batches if batch.status == "COMPLETED"]
    console.print(
        f"batches: {len(done)} of {len(report.batches)} completed; {documents} documents, {sum(s.inferred for s in steps)} inputs "
        f"inferred, {sum(s.reused for s in steps)} reused, {sum(b.failed_count for b in report.batches)} objects failed; "
        f"{documents / seconds if seconds else 0:.1f} documents/s",
        soft_wrap=True,
    )
    for failure in failures[:20]:
        console.print(f"  [yellow]failed[/] {failure.error}", highlight=False, soft_wrap=True)
    for batch in report.batches:
        if batch.error:
            console.print(f"[red]{batch.batch_id} {batch.status}: {batch.error}[/]", highlight=False)


def reindex(
    namespace: NamespaceOption = None,
    collection: Annotated[list[str] | None, typer.Option("--collection", "-c", help="Collection id or name.")] = None,
) -> None:
    """Make the vector index again from the catalog, for all collections of a namespace or some."""
    from tqdm import tqdm

    from mixpeek_dagster.pipeline.indexing import rebuild

    warehouse = Warehouse.from_env()
    scope = namespace_id(warehouse, namespace)
    with warehouse.catalog.reading() as records:
        chosen = [records.collections.get(one, namespace_id=scope) for one in collection or ()] or records.collections.all(scope)
    if not warehouse.index.is_projection:
        console.print("The embedded index reads the catalog itself: there is nothing to make again.")
        return
    for each in chosen:
        with tqdm(total=each.document_count, desc=each.collection_name, unit=" documents", disable=None) as bar:
            written = rebuild(warehouse, each, progress=lambda count, bar=bar: bar.update(count - bar.n))  # type: ignore[misc]
        console.print(f"{each.collection_name}: {written} documents indexed")


def verify() -> None:
    """Compare source, catalog and vector index; exits 1 unless nothing is missing, extra, stale or duplicate."""
    from mixpeek_dagster.pipeline.verification import verify as compare

    checks = compare(Warehouse.from_env())
    table = Table("compared", "what", "missing", "extra", "stale", "duplicate", "failed")
    for check in checks:
        numbers = [str(check.missing), str(check.extra), str(check.stale), str(check.duplicate), str(check.failed)]
        table.add_row(str(check.compared), check.what, *numbers)
    console.print(table)
    for check in checks:
        for example in check.examples:
            console.print(f"  {check.what}: {example}", highlight=False)
        if check.error:
            console.print(f"[red]{check.what}: {check.error}[/]", highlight=False)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def batches(
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 20,
) -> None:
    """List batches, newest first."""
    with Warehouse.from_env().catalog.reading() as records:
        found, total = records.batches.page(limit=limit)
    table = Table("batch", "status", "objects", "documents", "failed", "created", "why")
    for one in found:
        numbers = [str(one.item_count), str(one.documents_written), str(one.failed_count)]
        table.add_row(one.batch_id, one.status.value, *numbers, one.created_at[:19], (one.error or "")[:60])
    console.print(table)
    console.print(f"{len(found)} of {total}")


def size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
