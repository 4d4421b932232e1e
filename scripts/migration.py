"""Write a migration from the newest schema to the declared tables (store/records.py).

    python scripts/migration.py "Keys have a colour"
    python scripts/migration.py --initial     replace m0001 by the fixed statements of a release

The file goes to store/migrations/versions/; review it before you commit it.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from alembic import command
from sqlalchemy import Connection

from pvemcp_server.store import migrate
from pvemcp_server.store.database import Database
from pvemcp_server.store.watch import Topic

TOPICS = """    versions = sa.table("versions", sa.column("topic"), sa.column("value"))
    op.bulk_insert(versions, [{{"topic": topic, "value": 1}} for topic in {topics}])
"""


async def write_migration(message: str, *, initial: bool = False) -> Path:
    """Write the migration that brings a database up to date, and return its file.

    The initial migration brings an empty database there; it also inserts the topics' versions.
    """
    versions = migrate.MIGRATIONS / "versions"
    number = "0001" if initial else f"{int(migrate.newest_revision() or 0) + 1:04}"
    if initial:
        (versions / "m0001_initial.py").unlink()
    with TemporaryDirectory() as folder:
        database = Database(f"sqlite+aiosqlite:///{folder}/newest.sqlite3")
        async with database.writing() as connection:
            if not initial:
                await migrate.upgrade(connection)
            await connection.run_sync(_write_revision, message, number)
        await database.close()
    [written] = versions.glob(f"{number}_*.py")
    file = written.rename(written.with_name(f"m{written.name}"))
    if initial:
        topics = tuple(topic.value for topic in Topic)
        file.write_text(file.read_text() + TOPICS.format(topics=topics))
    return file


def _write_revision(connection: Connection, message: str, number: str) -> None:
    command.revision(migrate.alembic_config(connection), message, autogenerate=True, rev_id=number)


def main() -> None:
    """Write the migration and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("message", nargs="?", default="initial")
    parser.add_argument("--initial", action="store_true")
    options = parser.parse_args()
    print(anyio.run(lambda: write_migration(options.message, initial=options.initial)))


if __name__ == "__main__":
    main()
