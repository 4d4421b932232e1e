"""Writes the migration from the newest one to the tables as they are declared.

    python scripts/migration.py "Keys have a colour"

The file goes to store/migrations/versions/; read it before it is committed.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from alembic import command

from pvemcp_server.store.database import Database
from pvemcp_server.store.migrate import MIGRATIONS, alembic_config, newest_revision, upgrade


async def main(message: str) -> None:
    number = f"{int(newest_revision() or 0) + 1:04}"
    with TemporaryDirectory() as folder:
        database = Database(f"sqlite+aiosqlite:///{folder}/newest.sqlite3")
        async with database.writing() as connection:
            await upgrade(connection)
            await connection.run_sync(
                lambda sync: command.revision(
                    alembic_config(sync), message, autogenerate=True, rev_id=number
                )
            )
        await database.close()
    for made in (MIGRATIONS / "versions").glob(f"{number}_*.py"):
        print(made.rename(made.with_name(f"m{made.name}")).relative_to(Path.cwd()))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
