"""Listing pages that held no news; uploads by when they end"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "listed_pages",
        sa.Column("sync_id", TEXT, primary_key=True),
        sa.Column("after_key", sa.LargeBinary(), primary_key=True),
        sa.Column("last_key", sa.LargeBinary(), nullable=False),
        sa.Column("is_last", sa.Boolean(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("config_hash", TEXT, nullable=False),
        sa.Column("listed", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("uploads_by_end", "uploads", ["status", "expires_at"])
