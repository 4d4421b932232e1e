"""Export the whole state to one file, which either kind of database can import.

Gzipped JSON lines: a header with the revision of the schema, then each row as `{"table", "row"}`,
then the number of rows, which shows a truncated file. Secrets are encrypted as in the database. The
master key is not included and has to be kept separately.
"""

import gzip
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from alembic.migration import MigrationContext
from sqlalchemy import Connection, LargeBinary, MetaData, Table, select

from pvemcp_server.errors import ConfigError
from pvemcp_server.store.database import Database
from pvemcp_server.store.files import config_errors

FORMAT = 1
BATCH = 500
NOT_EXPORTED = frozenset({"alembic_version", "sessions"})  # all sign in again after a restore


async def export(database: Database, path: Path) -> int:
    """Write a consistent snapshot to a new file, mode 0600; return the number of rows."""
    with config_errors(f"{path} cannot be written"):
        return await _export(database, path)


async def _export(database: Database, path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with gzip.open(file, "wt", encoding="utf-8") as stream:
                async with database.snapshot() as connection:
                    count = await connection.run_sync(_write, stream)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


@dataclass(frozen=True, slots=True)
class Exported:
    """A backup file that was read once and is complete."""

    path: Path
    revision: str
    count: int

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Yield `{"table", "row"}` for each row; referenced tables come first."""
        return (line for line in _lines(self.path) if "row" in line)


def open_export(path: Path) -> Exported:
    """Read a backup file once and check that it is complete; raise ConfigError otherwise."""
    header: Mapping[str, Any] = {}
    end: Mapping[str, Any] = {}
    count = 0
    try:
        for line in _lines(path):
            header, end = header or line, line
            count += "row" in line
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"{path} is not a readable backup: {error}.") from None
    if header.get("pvemcp_backup") != FORMAT or end.get("rows") != count:
        raise ConfigError(f"{path} is not a complete backup of this program.")
    return Exported(path, header["revision"], count)


def reflect(connection: Connection) -> MetaData:
    """Read the tables from the database; before an upgrade they differ from `records`."""
    tables = MetaData()
    tables.reflect(connection)
    return tables


def insert_rows(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert exported rows into tables of the same revision."""
    tables = reflect(connection).tables
    for name, lines in groupby(rows, key=itemgetter("table")):
        table = tables[name]
        while batch := [_decoded(table, line["row"]) for line in islice(lines, BATCH)]:
            connection.execute(table.insert(), batch)


def _write(connection: Connection, stream: IO[str]) -> int:
    revision = MigrationContext.configure(connection).get_current_revision()
    _line(stream, {"pvemcp_backup": FORMAT, "revision": revision})
    count = 0
    for table in reflect(connection).sorted_tables:
        if table.name not in NOT_EXPORTED:
            for row in _rows(connection, table):
                _line(stream, {"table": table.name, "row": row})
                count += 1
    _line(stream, {"rows": count})
    return count


def _rows(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    ordered = select(table).order_by(*table.primary_key.columns)
    for row in connection.execute(ordered.execution_options(yield_per=BATCH)).mappings():
        yield {
            name: b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in row.items()
        }


def _decoded(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: b64decode(value)
        if value is not None and isinstance(table.c[name].type, LargeBinary)
        else value
        for name, value in row.items()
    }


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _line(stream: IO[str], value: Mapping[str, Any]) -> None:
    stream.write(json.dumps(value, separators=(",", ":")) + "\n")
