"""The SQLite database that answers queries: filled, locked, then read, outside the event loop.

A locked database is defence in depth behind the compiler: an authorizer admits SELECT on its own
tables and eight functions, SQLite's limits bound size and depth, a progress handler bounds time.
"""

import sqlite3
import threading
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from time import monotonic
from typing import Any, ClassVar, Final
from weakref import WeakSet, finalize

import msgspec

from pvemcp_server.errors import CallError, OverBudget
from pvemcp_server.query.compiler import (
    CASEFOLDED,
    SEPARATOR,
    Statement,
    casefolded_column,
    entries_table,
    quoted,
)
from pvemcp_server.query.values import LARGEST
from pvemcp_server.tables.rows import Field, Kind

SECONDS: Final = 0.25  # that a query may take
MAX_HEAP: Final = 512 << 20  # bytes, for all of SQLite in this process, also for the state
PAGE_BYTES: Final = 4096
ALL_PAGES: Final = MAX_HEAP * 2 // 3 // PAGE_BYTES  # of all keys; the rest is for state and sorting
MAX_PAGES: Final = ALL_PAGES // 2  # in all databases of one key that are in use or cached
_CLOCK_INTERVAL: Final = 20_000  # instructions of SQLite's machine, about a millisecond
_LARGEST_UNSIGNED: Final = 2**64 - 1
_USUAL_TEXT: Final = 200  # characters; to search a longer one is one slow instruction
_ROWS_PER_INSERT: Final = 50

_ALLOWED_FUNCTIONS: Final = frozenset(
    {"count", "sum", "avg", "min", "max", "instr", "substr", "row_number"}
)
_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: 10_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 400,
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
    """Tables in memory: `fill` each, `lock`, then `execute` statements, from any thread.

    Its memory is freed as soon as the last reference goes: the cycle collector doesn't count
    SQLite's memory, so no reference cycle may hold a database. The databases of an owner share
    MAX_PAGES, so that those of one key leave room for those of others; `lock` one before the next
    one of its owner is filled. Until then, a database reserves at most half of the ALL_PAGES that
    are left: so others that are filled at the same time get a part, and the sum is never exceeded.
    """

    _all: ClassVar[WeakSet["Database"]] = WeakSet()
    _all_lock: ClassVar = threading.Lock()

    def __init__(self, owner: str = "") -> None:
        self.owner = owner
        self.pages = 0  # since `lock`
        self._reserved = 0
        self.is_cached = False
        self._connection = sqlite3.connect(
            ":memory:", check_same_thread=False, isolation_level=None, cached_statements=0
        )
        finalize(self, self._connection.close)
        self._lock = threading.Lock()
        self._columns: dict[str, frozenset[str]] = {}
        self.rows = 0  # of all tables
        self.longest_text = 0  # characters of a cell
        with self._all_lock:
            own = MAX_PAGES - sum(each.pages for each in self._all if each.owner == owner)
            left = ALL_PAGES - sum(each._reserved for each in self._all)  # noqa: SLF001 - of this class
            self._reserved = max(1, min(own, left // 2))
            self._all.add(self)
        for pragma in (
            f"hard_heap_limit={MAX_HEAP}",
            f"page_size={PAGE_BYTES}",
            f"max_page_count={self._reserved}",
            "temp_store=memory",
        ):
            self._connection.execute(f"PRAGMA {pragma}")

    @classmethod
    def open(cls) -> list["Database"]:
        """Return all databases that are referenced."""
        with cls._all_lock:
            return list(cls._all)

    def fill(
        self,
        table: str,
        fields: Sequence[Field],
        columns: Sequence[Cells],
        keys: Iterable[tuple[str, ...]] = (),
        entries: Container[str] = (),
    ) -> None:
        """Create a table from columns of cells, with an index for each of the join `keys`.

        The lists named in `entries` also get a table of their entries, each once for a row.
        """
        with _explained_errors():
            self._fill(table, fields, columns, keys)
            for field, lists in zip(fields, columns, strict=True):
                if field.name in entries:
                    self._fill_entries(entries_table(table, field.name), lists)

    def _fill(
        self,
        table: str,
        fields: Sequence[Field],
        columns: Sequence[Cells],
        keys: Iterable[tuple[str, ...]],
    ) -> None:
        names = list(chain.from_iterable(map(_column_names, fields)))
        stored = list(map(_stored_columns, fields, columns))
        for field, cells in zip(fields, stored, strict=True):
            if field.kind in CASEFOLDED:
                longest = max((len(cell) for cell in cells[0] if cell), default=0)
                self.longest_text = max(self.longest_text, longest)
        self._connection.execute(f"CREATE TABLE {quoted(table)} ({', '.join(names)})")
        with self._connection:
            self._connection.execute("BEGIN")
            self._insert(table, list(chain.from_iterable(stored)))
        for n, key in enumerate(keys):
            on = ", ".join(map(quoted, key))
            self._connection.execute(f'CREATE INDEX "{table}~{n}" ON {quoted(table)} ({on})')
        self._columns[table] = frozenset(name.strip('"') for name in names)

    def _fill_entries(self, table: str, lists: Cells) -> None:
        rows = (
            (row, entry, entry.casefold())
            for row, entries in enumerate(lists, 1)
            for entry in dict.fromkeys(map(str, entries or ()))
        )
        self._connection.execute(f'CREATE TABLE {table} ("row", "entry", "entry~")')
        with self._connection:
            self._connection.execute("BEGIN")
            insert = f"INSERT INTO {table} VALUES (?, ?, ?)"  # noqa: S608 - declared names only
            self._connection.executemany(insert, rows)
        index = f'{table[:-1]}~0"'
        self._connection.execute(f'CREATE INDEX {index} ON {table} ("row")')
        self._columns[table.strip('"')] = frozenset({"row", "entry", "entry~"})

    def _insert(self, table: str, columns: Sequence[Cells]) -> None:
        """Insert many rows per statement.

        Threads switch between statements, which costs more than inserting a row.
        """
        row = f"({', '.join('?' * len(columns))})"
        cells = zip(*columns, strict=True)
        number = len(columns[0])
        self.rows += number
        full, rest = divmod(number, _ROWS_PER_INSERT)
        for size, statements in ((_ROWS_PER_INSERT, full), (1, rest)):
            insert = f"INSERT INTO {quoted(table)} VALUES {', '.join([row] * size)}"  # noqa: S608 - declared names only
            values = (list(chain.from_iterable(islice(cells, size))) for _ in range(statements))
            self._connection.executemany(insert, values)

    def lock(self) -> None:
        """Allow nothing but bounded reads of its own tables from now on."""
        (self.pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        self._reserved = self.pages
        self._connection.execute("PRAGMA query_only=1")
        for limit, most in _LIMITS.items():
            self._connection.setlimit(limit, most)
        # no bound method: the finalizer holds the connection, which would hold this object forever
        self._connection.set_authorizer(partial(_authorize, self._columns))

    def execute(
        self, statement: Statement, seconds: float = SECONDS, *, wait: bool = True
    ) -> list[tuple[Any, ...]]:
        """Return the rows of a statement; raise OverBudget when it takes longer.

        Another statement of the database is waited for; without `wait` it raises OverBudget.
        """
        if not self._lock.acquire(blocking=wait):
            raise OverBudget("Another query runs on this database.", hint="Try again.")
        try:
            end = monotonic() + seconds
            self._connection.set_progress_handler(lambda: monotonic() > end, self._interval)
            with _explained_errors(seconds):
                return self._connection.execute(statement.sql, statement.values).fetchall()
        finally:
            self._connection.set_progress_handler(None, 0)
            self._lock.release()

    @property
    def _interval(self) -> int:
        """Instructions between two looks at the clock: fewer if each may search a long text."""
        return _CLOCK_INTERVAL * _USUAL_TEXT // max(_USUAL_TEXT, self.longest_text) or 1


def _authorize(
    columns: Mapping[str, frozenset[str]],
    action: int,
    table: str | None,
    name: str | None,
    _db: str | None,
    _by: str | None,
) -> int:
    """Let a statement read the columns of these tables and call a few functions."""
    match action:
        case sqlite3.SQLITE_SELECT:
            allowed = True
        case sqlite3.SQLITE_READ:
            own = columns.get(table or "", frozenset())
            allowed = name in own or (bool(own) and name in ("", "ROWID"))
        case sqlite3.SQLITE_FUNCTION:
            allowed = name in _ALLOWED_FUNCTIONS
        case _:
            allowed = False
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def too_large_sum() -> CallError:
    """Build the error for a sum that the database cannot hold exactly."""
    return CallError("A sum is larger than 2^63.", hint="Sum over fewer rows.")


@contextmanager
def _explained_errors(seconds: float = 0.0) -> Iterator[None]:
    """Turn an exceeded limit into an error with the next step; other errors are bugs, and pass."""
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
            raise too_large_sum() from error
        raise


def _column_names(field: Field) -> list[str]:
    own = quoted(field.name)
    return [own, casefolded_column(field.name)] if field.kind in CASEFOLDED else [own]


def _stored_columns(field: Field, cells: Cells) -> list[Cells]:
    """Return the column as stored and, for text and lists, the casefolded column beside it."""
    match field.kind:
        case Kind.TEXT:
            return [cells, [None if text is None else text.casefold() for text in cells]]
        case Kind.LIST:
            stored = [None if c is None else msgspec.json.encode(c).decode() for c in cells]
            return [stored, list(map(_searchable, cells))]
        case Kind.TIME:
            return [[None if time is None else int(time.timestamp()) for time in cells]]
        case Kind.INTEGER:
            known = [number for number in cells if number is not None]
            fits = not known or -LARGEST <= min(known) <= max(known) <= LARGEST
            return [cells if fits else [_storable(number) for number in cells]]
        case _:
            return [cells]


def _storable(number: int | None) -> int | float | None:
    """Return a number that SQLite can hold; None for one that no unsigned 64-bit counter has.

    Those counters of Proxmox are rounded, where SQLite has signed ones.
    """
    if number is None or abs(number) <= LARGEST:
        return number
    return float(number) if 0 < number <= _LARGEST_UNSIGNED else None


def _searchable(entries: Cells | None) -> str | None:
    """Join the casefolded entries with separators; an empty list becomes null."""
    texts = (str(entry).casefold().replace(SEPARATOR, "") for entry in entries or ())
    return f"{SEPARATOR}{SEPARATOR.join(texts)}{SEPARATOR}" if entries else None
