"""Create the tables as they are declared, until the first release.

No released database exists yet, so a change of `records.py` changes this schema in place. The first
release replaces this file by fixed statements: `python scripts/migration.py --initial`. From then
on a change of `records.py` needs a migration of its own.
"""

import sqlalchemy as sa
from alembic import op

from pvemcp_server.store.records import metadata
from pvemcp_server.store.watch import Topic

revision = "0001"
down_revision = None


def upgrade() -> None:
    metadata.create_all(op.get_bind())
    versions = sa.table("versions", sa.column("topic"), sa.column("value"))
    op.bulk_insert(versions, [{"topic": topic.value, "value": 1} for topic in Topic])
