"""Whether anything that definitions are built from was made, changed or deleted."""

import hashlib

from sqlalchemy import Connection, literal, select, union_all

from mixpeek_dagster.catalog import tables

_NAMED = (
    tables.namespaces.c.namespace_id,
    tables.buckets.c.bucket_id,
    tables.collections.c.collection_id,
    tables.syncs.c.sync_id,
)


class DefinitionRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def signature(self) -> str:
        """Another text after every change of a namespace, bucket, collection or sync; cheap enough to ask for every second.

        Running totals and the places of syncs are no changes, a trigger or a pause is one.
        """
        rows = union_all(*(select(one, one.table.c.updated_at, literal(one.name)) for one in _NAMED))
        found = sorted(tuple(row) for row in self._connection.execute(rows))
        return hashlib.sha256(repr(found).encode()).hexdigest()
