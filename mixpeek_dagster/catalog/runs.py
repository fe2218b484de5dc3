"""Runs of canceled parts, until they have ended."""

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from mixpeek_dagster.catalog import tables
from mixpeek_dagster.catalog.rows import chunks
from mixpeek_dagster.models.batches import BatchPart, PartStatus

_parts = tables.batch_parts


class RunRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def to_stop(self) -> dict[str, BatchPart]:
        """Run key → a canceled part that was handed to that run, until `stopped` says that the run has ended."""
        query = select(_parts).where(_parts.c.status == PartStatus.CANCELED, _parts.c.run_key.is_not(None)).limit(1_000)
        fields = BatchPart.model_fields
        rows = self._connection.execute(query)
        return {row.run_key: BatchPart(**{name: row._mapping[name] for name in fields}) for row in rows}

    def still_wanted(self, run_keys: Sequence[str]) -> frozenset[str]:
        """Those of the runs that have other parts to do."""
        query = select(_parts.c.run_key).where(_parts.c.status.in_([PartStatus.CLAIMED, PartStatus.RUNNING]))
        return frozenset(self._connection.execute(query.where(_parts.c.run_key.in_(run_keys))).scalars())

    def stopped(self, run_keys: Sequence[str]) -> None:
        """The runs have ended: their canceled parts need not be looked at again."""
        for chunk in chunks(run_keys):
            ended = [_parts.c.status == PartStatus.CANCELED, _parts.c.run_key.in_(chunk)]
            self._connection.execute(update(_parts).where(*ended).values(run_key=None))
