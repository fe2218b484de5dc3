"""An index of the keys with an error: every report of a sync counts them, and would read all of its keys

SQLite's planner takes it only when it is told how many keys a sync has, and how few of them are in the partial indexes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

STATISTICS = {
    "sqlite_autoindex_source_keys_1": "1000000 100000 1",
    "missing_source_keys": "1000 100 1",
    "faulty_source_keys": "1000 100 50 1",
}


def upgrade() -> None:
    faulty = sa.text("error IS NOT NULL")
    op.create_index("faulty_source_keys", "source_keys", ["sync_id", "state"], sqlite_where=faulty, postgresql_where=faulty)
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    connection.execute(sa.text("DELETE FROM sqlite_stat1 WHERE tbl = 'source_keys'"))
    connection.execute(
        sa.text("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('source_keys', :idx, :stat)"),
        [{"idx": name, "stat": stat} for name, stat in STATISTICS.items()],
    )
    connection.execute(sa.text("ANALYZE sqlite_schema"))  # reads what was written
