"""Commands about syncs: how they are doing, what their next run would do, and a word for what they hold back."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mixpeek_dagster.cli.passes import size
from mixpeek_dagster.models.syncs import Sync
from mixpeek_dagster.pipeline.plans import PassPlan, plan_sync
from mixpeek_dagster.pipeline.sync_control import confirm_deletes
from mixpeek_dagster.pipeline.sync_reports import report_of
from mixpeek_dagster.pipeline.warehouse import Warehouse

console = Console()
app = typer.Typer(invoke_without_command=True, help="Look at syncs, plan their next run, confirm what they hold back.")


@app.callback()
def list_syncs(context: typer.Context) -> None:
    """Print every sync: last pass, next pass, what it found, what listing cost, what waits, what is wrong."""
    if context.invoked_subcommand is not None:
        return
    with Warehouse.from_env().catalog.reading() as records:
        reports = [report_of(records, sync) for sync in records.syncs.all()]
    table = Table(
        *("sync", "source", "status", "last pass", "next pass", "files", "new/changed/deleted/failed"),
        *("listing", "backlog", "dead letters", "problem"),
    )
    for report in reports:
        sync, last = report.sync, report.counters
        table.add_row(
            sync.sync_id,
            f"{sync.provider}: {sync.spec.source_path}",
            sync.status.value,
            report.last_pass[:19],
            (sync.next_pass_at or "none")[:19],
            str(last.listed),
            f"{last.new}/{last.changed}/{last.deleted}/{last.failed}",
            f"{last.pages} requests, {last.seconds:.1f} s",
            str(report.backlog),
            str(report.dead_letters),
            sync.last_error or "",
        )
    console.print(table)


@app.command()
def plan(
    sync_id: Annotated[str | None, typer.Argument(help="One sync; every sync when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plans as JSON lines, and ask nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the deletes that are too many, without asking.")] = False,
) -> None:
    """List sources without writing anything: what the next run of a sync will do, and what extraction will cost.

    More deletes than the guard allows are said; at a terminal you are asked whether the next pass may make them. Exits 1 when a
    source cannot be listed, or asked for files that are missing.
    """
    warehouse, failed = Warehouse.from_env(), False
    with warehouse.catalog.reading() as records:
        chosen = [records.syncs.get(sync_id)] if sync_id else records.syncs.all()
    for sync in chosen:
        made = plan_sync(warehouse, sync.sync_id)
        failed = failed or made.error is not None
        if as_json:
            typer.echo(made.model_dump_json())
        else:
            _print(sync, made)
        if made.counters.held:
            _ask(warehouse, sync, made.counters.held, yes=yes, may_ask=not as_json and sys.stdin.isatty())
    if failed:
        raise typer.Exit(1)


@app.command()
def confirm(sync_id: Annotated[str, typer.Argument(help="The sync that holds deletes back.")]) -> None:
    """Allow the deletes that a sync holds back because there are too many to be believed; the next pass makes them."""
    warehouse = Warehouse.from_env()
    with warehouse.catalog.transaction() as records:
        held = confirm_deletes(records, records.syncs.get(sync_id), now=warehouse.now())
    console.print(f"{sync_id}: the next pass deletes up to {held} objects.")


def _print(sync: Sync, made: PassPlan) -> None:
    done = made.counters
    table = Table("", "files", title=f"{sync.sync_id}  {made.source}", title_justify="left", min_width=40)
    rows = {
        "listed": done.listed,
        "new": done.new,
        "changed": done.changed,
        "deleted": done.deleted,
        "moved (of the new)": made.moved,
        "unchanged": done.unchanged,
        "not taken": done.skipped,
        "rejected": done.failed,
        "held back": done.held,
    }
    for name, count in rows.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    console.print(f"to extract: {made.to_extract:,} objects, {size(made.bytes_to_read)} to read", highlight=False)
    for cost in made.costs:
        inputs = "an unknown number of" if cost.inputs is None else f"{cost.inputs:,}"
        time = "unknown: nothing like it has run yet" if cost.seconds is None else f"about {cost.seconds:,.1f} s"
        console.print(f"  {cost.collection_name} ({cost.extractor}): {inputs} inputs, {time}", highlight=False)
    if made.costs and made.seconds is not None:
        console.print(f"  together about {made.seconds:,.1f} s of extraction", highlight=False)
    if made.is_capped:
        console.print(
            f"The run stops at max_objects_per_run = {sync.spec.max_objects_per_run:,}; the next one goes on from there."
        )
    if made.error and made.is_complete:
        console.print(f"[red]A pass has to leave missing files alone: {made.error}[/]", highlight=False)
    elif made.error:
        console.print(f"[red]The listing failed, so a pass would, too, and delete nothing: {made.error}[/]", highlight=False)


def _ask(warehouse: Warehouse, sync: Sync, held: int, *, yes: bool, may_ask: bool) -> None:
    if not may_ask and not yes:
        typer.echo(f"{sync.sync_id}: {held} deletes are more than the guard believes; a pass holds them back.", err=True)
        return
    if yes or typer.confirm(
        f"{held} files are missing or not taken any more, more than the guard believes. May the next pass delete their objects?"
    ):
        with warehouse.catalog.transaction() as records:
            records.syncs.set(sync.sync_id, now=warehouse.now(), confirmed_deletes=held)
        console.print(f"{sync.sync_id}: the next pass deletes up to {held} objects.")
