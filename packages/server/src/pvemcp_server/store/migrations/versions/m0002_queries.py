"""Saved queries have a version, so that processes notice their changes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    versions = sa.table("versions", sa.column("topic"), sa.column("value"))
    op.bulk_insert(versions, [{"topic": "queries", "value": 1}])
