"""Deleted syncs whose keys are kept for one that follows the same place again"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "left_syncs",
        sa.Column("sync_id", TEXT, primary_key=True),
        sa.Column("bucket_id", TEXT, sa.ForeignKey("buckets.bucket_id", ondelete="CASCADE"), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("created_at", TEXT, nullable=False),
        sa.Index("left_syncs_of_bucket", "bucket_id"),
    )
