"""Export the whole state to one file, which either kind of database can import.

Gzipped JSON lines: a header with the revision of the schema, then each row as `{"table", "row"}`,
then the number of rows. The last line is an HMAC over all others, under a key derived from the
master key: only the holder of the master key can write a file that `open_export` accepts. Secrets
are encrypted as in the database. The master key is not included and has to be kept separately.
"""

import gzip
import hmac
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, LargeBinary, MetaData, Table, inspect, select, text

from pvemcp_server.errors import ConfigError
from pvemcp_server.store.database import Database
from pvemcp_server.store.files import config_errors, replaced_file

FORMAT = 2
BATCH = 500
PIECE = 1 << 16  # bytes to read at once
DIGEST: Final = "sha256"
# after a restore all sign in again, and no approval that was used since could be used again
NOT_EXPORTED = frozenset(
    {"alembic_version", "sessions", "approvals", "tokens", "person_sessions"}
    # of what runs now
    | {"processes", "cluster_writes", "rate_buckets", "claims", "failures", "inventories"}
)


async def export(database: Database, path: Path, master: bytes) -> int:
    """Write a consistent, signed snapshot to a new file, mode 0600; return the number of rows."""
    with (
        config_errors(f"{path} cannot be written"),
        replaced_file(path) as file,
        gzip.open(file, "wb") as stream,
    ):
        async with database.snapshot() as connection:
            return await connection.run_sync(_write, _SignedLines(stream, master))


@dataclass(frozen=True, slots=True, repr=False)
class Exported:
    """A backup file that was checked: it is complete and signed by the master key."""

    path: Path
    master: bytes
    revision: str
    count: int

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Yield `{"table", "row"}` for each row; referenced tables come first.

        The signature is verified again at the end, in case the file was exchanged after the first
        reading; ConfigError then ends the transaction that inserts the rows.
        """
        lines = _signed_lines(self.path, self.master)
        next(lines, None)
        for line in islice(lines, self.count):
            yield json.loads(line)
        for _ in lines:  # the number of rows; the end of the iteration verifies the signature
            pass


def open_export(path: Path, master: bytes) -> Exported:
    """Check a backup file; raise ConfigError unless it is complete, unchanged and ours.

    Nothing of it is interpreted before its signature is verified.
    """
    _check_signature(path, master)
    header = end = b""
    count = -2  # without the header and the number of rows
    for line in _signed_lines(path, master):
        header, end = header or line, line
        count += 1
    facts = json.loads(header)
    if facts.get("pvemcp_backup") != FORMAT or json.loads(end) != {"rows": count}:
        raise _incomplete(path)
    return Exported(path, master, facts["revision"], count)


def revision_of(connection: Connection) -> str | None:
    """Return the revision of the schema; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


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


class _SignedLines:
    """Writes JSON lines, and their HMAC as the last one."""

    def __init__(self, stream: gzip.GzipFile, master: bytes) -> None:
        self._stream = stream
        self._hmac = _hmac(master)

    def write(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        self._hmac.update(line)
        self._stream.write(line)

    def sign(self) -> None:
        self._stream.write(_signature(self._hmac))


def _hmac(master: bytes) -> "hmac.HMAC":
    return hmac.new(hmac.digest(master, b"pvemcp:backup", DIGEST), digestmod=DIGEST)


def _signature(signed: "hmac.HMAC") -> bytes:
    return json.dumps({"hmac": signed.hexdigest()}).encode() + b"\n"


def _check_signature(path: Path, master: bytes) -> None:
    """Verify the signature in small pieces: a line of an unknown file may take all memory."""
    signed, end = _hmac(master), b""
    length = len(_signature(signed))
    with _reading(path) as stream:
        while piece := stream.read(PIECE):
            end += piece
            signed.update(end[:-length])
            end = end[-length:]
    _compare(path, end, signed)


@contextmanager
def _reading(path: Path) -> Iterator[gzip.GzipFile]:
    try:
        with gzip.open(path, "rb") as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error):
        message = f"{path} is not a readable backup: use a file of `pvemcp backup`."
        raise ConfigError(message) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None


def _compare(path: Path, signature: bytes, signed: "hmac.HMAC") -> None:
    if not signature.startswith(b'{"hmac":'):
        raise _incomplete(path)
    if not hmac.compare_digest(signature, _signature(signed)):
        raise ConfigError(
            f"{path} was changed after it was written, or it belongs to another master key. Put "
            "the master key of the backup in place, or use an unchanged copy; nothing was restored."
        )


def _signed_lines(path: Path, master: bytes) -> Iterator[bytes]:
    """Yield the lines of a backup without its signature; at the end verify the signature."""
    signed, last = _hmac(master), b""
    with _reading(path) as stream:
        for line in stream:
            if last:
                signed.update(last)
                yield last
            last = line
    _compare(path, last, signed)


def _incomplete(path: Path) -> ConfigError:
    return ConfigError(f"{path} is not a complete backup of this program.")


def _write(connection: Connection, lines: _SignedLines) -> int:
    lines.write({"pvemcp_backup": FORMAT, "revision": revision_of(connection)})
    count = 0
    for table in reflect(connection).sorted_tables:
        if table.name not in NOT_EXPORTED:
            for row in _rows(connection, table):
                lines.write({"table": table.name, "row": row})
                count += 1
    lines.write({"rows": count})
    lines.sign()
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
