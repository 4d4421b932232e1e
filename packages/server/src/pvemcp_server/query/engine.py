"""The database that answers one query: filled, locked, then asked, all outside the event loop."""

import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from time import monotonic
from typing import Any, Final

import msgspec

from pvemcp_server.errors import CallError, OverBudget
from pvemcp_server.query.compiler import FOLDED, MARK, Statement, beside, quoted
from pvemcp_server.query.values import LARGEST, folded
from pvemcp_server.tables.registry import Field, Kind

SECONDS: Final = 0.25  # that a query may take
PAGES: Final = 65_536  # of 4 KiB in one database
HEAP: Final = 512 << 20  # bytes, for all of SQLite in this process
_STEPS: Final = 20_000  # of SQLite's machine, about a millisecond, between two looks at the clock
_TOGETHER: Final = 50  # rows in one INSERT

_ALLOWED: Final = frozenset({"count", "sum", "avg", "min", "max", "instr", "substr"})
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: 10_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 200,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 1000,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 1,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 4,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 4000,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}

Cells = Sequence[Any]


class Database:
    """Tables in memory. `fill` each, `lock`, then `ask` as often as wanted, from any thread."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(
            ":memory:", check_same_thread=False, isolation_level=None, cached_statements=0
        )
        weakref.finalize(self, self._connection.close)
        self._one_at_a_time = threading.Lock()
        self._columns: dict[str, frozenset[str]] = {}
        self.rows = 0  # of all tables
        for pragma in (f"hard_heap_limit={HEAP}", f"max_page_count={PAGES}", "temp_store=memory"):
            self._connection.execute(f"PRAGMA {pragma}")

    def fill(
        self,
        table: str,
        fields: Sequence[Field],
        columns: Sequence[Cells],
        keys: Iterable[tuple[str, ...]] = (),
    ) -> None:
        """Make a table of these columns, each with its values; `keys` are what others join by."""
        names = list(chain.from_iterable(_names(one) for one in fields))
        cells = list(chain.from_iterable(map(_cells, fields, columns)))
        self._connection.execute(f"CREATE TABLE {quoted(table)} ({', '.join(names)})")
        with self._connection, _explaining():
            self._connection.execute("BEGIN")
            self._insert(table, cells)
        for n, key in enumerate(keys):
            on = ", ".join(map(quoted, key))
            self._connection.execute(f'CREATE INDEX "{table}~{n}" ON {quoted(table)} ({on})')
        self._columns[table] = frozenset(name.strip('"') for name in names)

    def _insert(self, table: str, cells: Sequence[Cells]) -> None:
        """Many rows in one step: between steps threads take turns, which costs more than a row."""
        one = f"({', '.join('?' * len(cells))})"
        rows = zip(*cells, strict=True)
        number = len(cells[0])
        self.rows += number
        for together, steps in ((_TOGETHER, number // _TOGETHER), (1, number % _TOGETHER)):
            insert = f"INSERT INTO {quoted(table)} VALUES {', '.join([one] * together)}"  # noqa: S608 - declared names only
            values = (list(chain.from_iterable(islice(rows, together))) for _ in range(steps))
            self._connection.executemany(insert, values)

    def lock(self) -> None:
        """From now on it can only be read, and only so."""
        self._connection.execute("PRAGMA query_only=1")
        for limit, most in _LIMITS.items():
            self._connection.setlimit(limit, most)
        # not a method of ours: the finalizer holds the connection, so that would hold us for ever
        self._connection.set_authorizer(partial(_authorise, self._columns))

    def ask(self, statement: Statement, seconds: float = SECONDS) -> list[tuple[Any, ...]]:
        """The rows of the answer; OverBudget when they take longer."""
        with self._one_at_a_time:
            end = monotonic() + seconds
            self._connection.set_progress_handler(lambda: monotonic() > end, _STEPS)
            try:
                with _explaining(seconds):
                    return self._connection.execute(statement.sql, statement.values).fetchall()
            finally:
                self._connection.set_progress_handler(None, 0)


def _authorise(
    columns: Mapping[str, frozenset[str]],
    action: int,
    table: str | None,
    name: str | None,
    _db: str | None,
    _by: str | None,
) -> int:
    """Lets a statement read the columns of these tables and call a few functions."""
    match action:
        case sqlite3.SQLITE_SELECT:
            allowed = True
        case sqlite3.SQLITE_READ:
            own = columns.get(table or "", frozenset())
            allowed = name in own or (bool(own) and name in ("", "ROWID"))
        case sqlite3.SQLITE_FUNCTION:
            allowed = name in _ALLOWED
        case _:
            allowed = False
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


@contextmanager
def _explaining(seconds: float = 0.0) -> Iterator[None]:
    """Say what the caller can do about it; an error that is ours stays as it is."""
    try:
        yield
    except (sqlite3.Error, MemoryError) as error:
        text = "out of memory" if isinstance(error, MemoryError) else str(error)
        if "interrupted" in text:
            raise OverBudget(
                f"The query took longer than {seconds * 1000:.0f} ms.",
                hint="Filter more, or join and sort less.",
            ) from error
        if "out of memory" in text or "is full" in text:
            raise OverBudget(
                "The query took too much memory.", hint="Filter more, or select less."
            ) from error
        if "integer overflow" in text:
            raise CallError("A sum is larger than 2^63.", hint="Sum over fewer rows.") from error
        raise


def _names(field: Field) -> list[str]:
    own = quoted(field.name)
    return [own, beside(field.name)] if field.kind in FOLDED else [own]


def _cells(field: Field, column: Cells) -> list[Cells]:
    """A column as the database has it, and beside it what is compared, where that differs."""
    match field.kind:
        case Kind.TEXT:
            return [column, [None if one is None else folded(one) for one in column]]
        case Kind.LIST:
            return [[_written(one) for one in column], [_marked(one) for one in column]]
        case Kind.TIME:
            return [[None if one is None else int(one.timestamp()) for one in column]]
        case Kind.INTEGER:
            return [[_sized(one) for one in column] if _has_huge(column) else column]
        case _:
            return [column]


def _has_huge(column: Cells) -> bool:
    """Proxmox counts some things in 64 bits without a sign, and SQLite with one."""
    return max(filter(None, column), default=0) > LARGEST


def _written(entries: Cells | None) -> str | None:
    return None if entries is None else msgspec.json.encode(entries).decode()


def _marked(entries: Cells | None) -> str | None:
    """The entries without case, each between marks; an empty list is like a missing one."""
    plain = (folded(str(one)).replace(MARK, "") for one in entries or ())
    return f"{MARK}{MARK.join(plain)}{MARK}" if entries else None


def _sized(cell: Any) -> Any:
    return float(cell) if isinstance(cell, int) and abs(cell) > LARGEST else cell
