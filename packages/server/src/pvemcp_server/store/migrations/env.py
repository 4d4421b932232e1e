"""Runs, or writes, migrations on the connection that `migrate` has opened."""

from typing import Literal

from alembic import context

from pvemcp_server.store.columns import JsonText, Moment
from pvemcp_server.store.schema import metadata

PLAIN = {Moment: "sa.BigInteger()", JsonText: "sa.Text()"}


def render_plain(kind: str, value: object, _context: object) -> str | Literal[False]:
    """A migration names what the database has: our column types may change after it."""
    for ours, plain in PLAIN.items():
        if kind == "type" and isinstance(value, ours):
            return plain
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
