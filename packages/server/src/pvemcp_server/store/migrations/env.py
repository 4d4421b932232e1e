"""Alembic's environment: run or write migrations on the connection that `migrate` has opened."""

from typing import Literal

import sqlalchemy as sa
from alembic import context

from pvemcp_server.store.columns import JsonText, Moment
from pvemcp_server.store.records import metadata


def render_plain(kind: str, value: object, _context: object) -> str | Literal[False]:
    """Name the database's own column type in a migration: our types may change after it."""
    if kind == "type":
        match value:
            case Moment():
                return "sa.BigInteger()"
            case JsonText():
                return "sa.Text()"
            case sa.Enum():
                return f"sa.String(length={value.length})"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite cannot alter most things in place
    render_item=render_plain,
)
with context.begin_transaction():
    context.run_migrations()
