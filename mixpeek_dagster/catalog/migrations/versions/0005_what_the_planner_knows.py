"""What SQLite's planner knows about the indexes of documents: without it, every index of a collection seems to find ten rows.

And how often a dead letter was tried again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

STATISTICS = {
    "sqlite_autoindex_documents_1": "1000000 1",
    "documents_by_time": "1000000 100000 10 1",
    "documents_in_namespace": "1000000 500000 10 1",
    "documents_by_seq": "1000000 100000 1",
    "documents_by_object": "1000000 20 10",
    "documents_by_source": "1000000 10",
    "documents_by_identity": "1000000 100000 2 1",
    "documents_by_batch": "1000000 1000 500 1",
    "documents_by_memo": "1000000 2",
    "documents_not_indexed": "1000 100 2",
}
PAYLOAD = "1000000 150000 200"


def upgrade() -> None:
    op.add_column("source_keys", sa.Column("retries", sa.Integer(), nullable=False, server_default=sa.text("0")))
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    connection.execute(sa.text("ANALYZE sqlite_schema"))  # makes sqlite_stat1
    names = connection.execute(sa.text("SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'documents'"))
    rows = [{"idx": name, "stat": STATISTICS.get(name, PAYLOAD)} for name in names.scalars()]
    connection.execute(sa.text("DELETE FROM sqlite_stat1 WHERE tbl = 'documents'"))
    connection.execute(sa.text("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('documents', :idx, :stat)"), rows)
    connection.execute(sa.text("ANALYZE sqlite_schema"))  # reads what was written
