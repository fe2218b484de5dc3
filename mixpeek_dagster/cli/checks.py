"""`mixpeek-dagster check`: does everything that the warehouse depends on work?"""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mixpeek_dagster.pipeline.checkup import check_up
from mixpeek_dagster.pipeline.warehouse import Warehouse

console = Console()


def check(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Test the catalog, the vector index, the blob store, model packs, connections and every sync's source; exits 1 when any is wrong.

    The table says what is wrong and how to mend it. Nothing stays changed, and no model is loaded.
    """
    found = check_up(Warehouse.from_env())
    if as_json:
        typer.echo(json.dumps([{**one.model_dump(), "ok": one.ok} for one in found], indent=2))
    else:
        table = Table("what", "which", "", "how it is", "what to do", "seconds")
        for one in found:
            state = "[green]ok[/]" if one.ok else "[bold red]wrong[/]"
            table.add_row(one.kind, one.name, state, one.detail if one.ok else one.problem, one.remedy, f"{one.seconds:.1f}")
        console.print(table)
    if not all(one.ok for one in found):
        raise typer.Exit(1)
