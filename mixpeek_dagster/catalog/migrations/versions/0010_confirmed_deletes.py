"""How many deletes were confirmed, in place of whether they were; keys that drifted out of the filters wait with the missing ones"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("syncs", sa.Column("confirmed_deletes", sa.Integer(), nullable=False, server_default=sa.text("0")))
    syncs = sa.table(
        "syncs",
        sa.column("sync_id", sa.Text),
        sa.column("last_counters", sa.JSON),
        sa.column("confirm_deletes", sa.Boolean),
        sa.column("confirmed_deletes", sa.Integer),
    )
    confirmed = sa.select(syncs.c.sync_id, syncs.c.last_counters).where(syncs.c.confirm_deletes)
    for sync_id, last in op.get_bind().execute(confirmed).all():
        held = (last or {}).get("held", 0)
        op.execute(syncs.update().where(syncs.c.sync_id == sync_id).values(confirmed_deletes=held))
    op.drop_column("syncs", "confirm_deletes")
    op.drop_index("missing_source_keys", "source_keys")
    doomed = sa.text("state IN (1, 4)")
    op.create_index("doomed_source_keys", "source_keys", ["sync_id", "key"], sqlite_where=doomed, postgresql_where=doomed)
    if op.get_bind().dialect.name == "sqlite":  # its planner has to be told how few they are
        op.execute("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('source_keys', 'doomed_source_keys', '1000 100 1')")
        op.execute("ANALYZE sqlite_schema")
