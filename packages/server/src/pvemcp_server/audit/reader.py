"""The audit reader: entries, exports, counts and verification."""

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from anyio.to_thread import run_sync

from pvemcp_formats import guard_formulas
from pvemcp_server.audit.json_lines import read_arguments
from pvemcp_server.store import Store
from pvemcp_server.store.audit_chain import Finding, Mark
from pvemcp_server.store.audit_search import AuditFilter, Count

EXPORT_PAGE = 500
LINES = 10  # of an export in one piece of the answer
EVERYTHING = AuditFilter()
Turn = Callable[[], AbstractAsyncContextManager[None]]


class Kind(StrEnum):
    """The kind of an audit row."""

    CALL = "call"  # a finished call that changed nothing
    INTENT = "intent"  # a write that is about to be sent to Proxmox
    OUTCOME = "outcome"  # how that write ended
    REFUSED = "refused"  # a refused attempt
    DECISION = "decision"  # a user's or administrator's answer, and the request for an approval
    ADMIN = "admin"  # a change made by an administrator
    RETENTION = "retention"  # old entries were deleted
    BREAK = "break"  # an append or the retention found the chain changed
    UNKNOWN = "unknown"  # the row was changed in the database

    @classmethod
    def _missing_(cls, value: object) -> "Kind":  # noqa: ARG003 - the enum's signature
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the audit: an event; a write together with its outcome."""

    seq: int
    kind: Kind
    call_id: str
    at: datetime
    key_id: str | None
    key_name: str | None
    address: str | None
    client: str | None
    acting: str | None  # the administrator who called with the key's rights
    tool: str | None
    cluster: str | None
    arguments: Mapping[str, Any]
    outcome: str | None  # None: a write without a recorded outcome
    reason: str | None
    rows: int | None
    bytes: int | None
    duration_ms: int | None
    upid: str | None


FIELDS = tuple(field.name for field in fields(Entry))
NUMBERS = frozenset({"rows", "bytes", "duration_ms"})


class AuditReader:
    """Read access to the audit."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(self, which: AuditFilter = EVERYTHING, limit: int = 50) -> list[Entry]:
        """Return entries, newest first; the next page is `before` the last one's seq.

        A page with long entries has fewer than `limit`, and at least one while there are any. They
        are decoded in a thread.
        """
        rows = await self._store.audit_search.find(which, limit)
        return await run_sync(lambda: [_entry(row) for row in rows])

    async def counts(self, which: AuditFilter, since: datetime, seconds: int) -> list[Count]:
        """Count the entries from `since` on by tool, outcome and span of `seconds`, for charts."""
        return await self._store.audit_search.counts(which, since, seconds)

    async def calls_of_keys(self, key_ids: Iterable[str]) -> dict[str, int]:
        """Return the number of calls of each of these keys that has any."""
        return await self._store.audit_search.calls_of_keys(key_ids)

    async def head(self) -> Mark:
        """Return the head of the chain."""
        return await self._store.audit_log.head()

    async def verify(self, expected: Mark | None = None) -> list[Finding]:
        """Return every edit, deletion and reordering.

        `expected` is a head stored earlier, by default the newest one that was noted.
        """
        return await self._store.audit_log.verify(expected)

    async def export_json(
        self, which: AuditFilter = EVERYTHING, turn: Turn = nullcontext
    ) -> AsyncIterator[str]:
        """Export as JSON lines of printable ASCII, newest first; each page waits for its turn."""
        async for lines in self._lines(which, turn, _json_line):
            yield lines

    async def export_csv(
        self, which: AuditFilter = EVERYTHING, turn: Turn = nullcontext
    ) -> AsyncIterator[str]:
        """Export as CSV (RFC 4180) with a header; formulas get a leading quote."""
        yield ",".join(FIELDS) + "\r\n"
        async for lines in self._lines(which, turn, _csv_line):
            yield lines

    async def _lines(
        self, which: AuditFilter, turn: Turn, line: Callable[[Entry], str]
    ) -> AsyncIterator[str]:
        """Return the lines of all entries, some at a time, so that a slow reader keeps few."""
        while True:
            async with turn():
                page = await self.find(which, EXPORT_PAGE)
                lines = await run_sync(lambda page: [line(entry) for entry in page], page)
            if not page:
                return
            for start in range(0, len(lines), LINES):
                yield "".join(lines[start : start + LINES])
            which = replace(which, before=page[-1].seq)


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(
        **{
            **{name: _as_declared(name, value) for name, value in row.items()},
            "kind": Kind(row["kind"]),
            "arguments": _as_object(read_arguments(row["arguments"] or "{}")),
        }
    )


def _json_line(entry: Entry) -> str:
    return _to_json(_flat(entry)) + "\n"


def _csv_line(entry: Entry) -> str:
    line = io.StringIO()
    values = {**_flat(entry), "arguments": _to_json(entry.arguments)}
    csv.writer(line).writerow(guard_formulas([values])[0].values())
    return line.getvalue()


def _to_json(value: Any) -> str:
    """Return printable ASCII; JSON escapes all control characters but DEL."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def _as_declared(name: str, value: Any) -> Any:
    """Return a value with the type of its column: SQLite holds any that an attacker writes."""
    if name in NUMBERS and not isinstance(value, int):
        return None
    return str(value) if isinstance(value, bytes) else value


def _as_object(arguments: Any) -> Mapping[str, Any]:
    return arguments if isinstance(arguments, dict) else {"unreadable": arguments}


def _flat(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "at": entry.at.isoformat()}
