"""The command line: `mixpeek-dagster`."""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from mixpeek_dagster import __version__
from mixpeek_dagster.cli import checks, documents, passes, serve, setup, syncs
from mixpeek_dagster.errors import MixpeekError

console = Console()
app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="A multimodal data warehouse on Dagster."
)
app.command()(setup.apply)
app.command()(passes.run)
app.command()(passes.verify)
app.command()(passes.reindex)
app.add_typer(syncs.app, name="syncs")
app.command()(checks.check)
app.command()(passes.batches)
app.command(name="documents")(documents.list_them)
app.command()(documents.search)
app.command()(documents.explain)
app.command()(serve.serve)
app.add_typer(serve.keys, name="keys")


def _version(wanted: bool) -> None:
    if wanted:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """A multimodal data warehouse on Dagster."""


def entry() -> None:
    """What the console script runs: errors of ours are one line, not a stack trace."""
    try:
        app()
    except MixpeekError as error:
        Console(stderr=True).print(f"[bold red]Error[/] ({error.code}): {error.message}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
