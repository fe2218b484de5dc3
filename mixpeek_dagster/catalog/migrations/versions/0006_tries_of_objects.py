"""How often an object's present revision failed, so that a sync tries it again, but not for ever"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("objects", sa.Column("tries", sa.Integer(), nullable=False, server_default="0"))
    failed = sa.text("status = 'FAILED' AND sync_id IS NOT NULL")
    op.create_index("failed_objects_of_sync", "objects", ["sync_id", "object_id"], sqlite_where=failed, postgresql_where=failed)
