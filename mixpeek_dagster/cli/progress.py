"""A progress bar over one pass: files while they are listed, objects while they are extracted."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from mixpeek_dagster.definitions.one_pass import Watcher
from mixpeek_dagster.models.batches import Step
from mixpeek_dagster.models.syncs import Counters
from mixpeek_dagster.pipeline.warehouse import Warehouse


@contextmanager
def watched(warehouse: Warehouse, *, quiet: bool) -> Iterator[Watcher]:
    """A watcher whose bar is on standard error, and only there where a person sees it. Dagster's own log lines are held back."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    bar: Any = tqdm(unit=" objects", disable=quiet or not sys.stderr.isatty(), file=sys.stderr, dynamic_ncols=True, total=0)
    done: dict[tuple[str, int, str], int] = {}

    def listed(sync_id: str, counters: Counters) -> None:
        bar.set_postfix_str(f"{counters.listed} files listed")

    def started(items: int) -> None:
        bar.total = (bar.total or 0) + items
        bar.refresh()

    def stepped(step: Step) -> None:
        key = (step.batch_id, step.part, step.collection_id)
        if step.tier == 0:
            bar.update(
                max(0, step.inputs - done.get(key, 0)) if len({k[2] for k in done if k[:2] == key[:2]} | {key[2]}) == 1 else 0
            )
        done[key] = step.inputs
        bar.set_postfix_str(f"{step.documents} documents, {step.inferred} inferred, {step.failed} failed")

    warehouse.progress = stepped
    try:
        yield Watcher(listed=listed, started=started)
    finally:
        bar.close()
