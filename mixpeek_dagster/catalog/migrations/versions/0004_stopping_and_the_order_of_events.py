"""Finding runs of canceled parts; batches that infer again; events in an order that concurrent commits cannot disturb"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    to_stop = sa.text("status = 'canceled' AND run_key IS NOT NULL")
    op.create_index("batch_parts_to_stop", "batch_parts", ["run_key"], sqlite_where=to_stop, postgresql_where=to_stop)
    with op.batch_alter_table("batches") as batches:
        batches.add_column(sa.Column("reembed", sa.Boolean(), nullable=False, server_default=sa.text("false")))
    with op.batch_alter_table("events") as events:
        events.add_column(sa.Column("tx", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.create_index("events_in_namespace", "events", ["namespace_id", "tx", "seq"])
