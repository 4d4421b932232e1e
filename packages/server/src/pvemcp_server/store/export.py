"""The whole state as one file that either database can read back.

Gzipped JSON lines: a header with the revision of the schema, then each row as `{"table", "row"}`,
then the number of rows, by which a file that was cut off is noticed. Secrets are in it as they are
in the database: encrypted. The master key is not in it and has to be kept separately.
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
from pvemcp_server.store.files import told

FORMAT = 1
BATCH = 500
NOT_EXPORTED = frozenset({"alembic_version", "sessions"})  # nobody is signed in after a restore


async def export(database: Database, path: Path) -> int:
    """Writes the state of one moment to a new file, readable by us alone; answers how many rows."""
    with told(f"{path} cannot be written"):
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
    """A file that was found to be whole."""

    path: Path
    revision: str
    count: int

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """`{"table", "row"}` of each row, tables that others refer to first."""
        return (line for line in _lines(self.path) if "row" in line)


def open_export(path: Path) -> Exported:
    """The exported file, read through once to be sure of it."""
    header: Mapping[str, Any] = {}
    end: Mapping[str, Any] = {}
    count = 0
    try:
        for line in _lines(path):
            header, end = header or line, line
            count += "row" in line
    except (OSError, EOFError, ValueError) as unreadable:
        raise ConfigError(f"{path} is not a readable backup: {unreadable}.") from None
    if header.get("pvemcp_backup") != FORMAT or end.get("rows") != count:
        raise ConfigError(f"{path} is not a whole backup of this program.")
    return Exported(path, header["revision"], count)


def reflect(connection: Connection) -> MetaData:
    """The tables as they are, which before an upgrade is not as this program knows them."""
    tables = MetaData()
    tables.reflect(connection)
    return tables


def insert_rows(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Puts exported rows into tables of the same revision."""
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
