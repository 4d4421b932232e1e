"""Searches of the audit: each write is one entry, joined with its outcome."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, false, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import records
from pvemcp_server.store.audit_log import AuditLog, is_between
from pvemcp_server.store.columns import Moment, microseconds
from pvemcp_server.store.database import Database
from pvemcp_server.store.repository import is_storable

START = records.audit.alias("start")
END = records.audit.alias("outcome_of")
CALLS = ("call", "intent", "refused")
NO_CALLS = ("sign in", "request", "oauth.%", "admin.%")  # tools of refusals that are no calls
OUTCOME_COLUMNS = ("outcome", "reason", "rows", "bytes", "duration_ms", "upid")
COLUMNS = {
    column.name: (
        func.coalesce(END.c[column.name], column).label(column.name)
        if column.name in OUTCOME_COLUMNS
        else column
    )
    for column in START.columns
    if column.name not in {"root", "previous", "hash"}
}

PAGE_SIZE = 2 * 2**20  # characters of the long columns of a page: what decoding them takes
FETCHED = 50  # rows at a time
LONG_COLUMNS = ("arguments", "reason", "upid")
UNKNOWN = "unknown"  # the outcome of a write whose process ended before it recorded one
GUEST = ("vmid", "source", "new_vmid")  # arguments of calls with the VMID of a guest
GUESTS = "vmids"  # that with several
Condition = Callable[[Any], ColumnElement[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """A filter of entries; None matches everything."""

    since: datetime | None = None
    until: datetime | None = None
    key_id: str | None = None
    tool: str | None = None
    cluster: str | None = None  # matches also one of the several clusters of a call
    kind: str | None = None
    outcome: str | None = None  # UNKNOWN matches writes without one
    address: str | None = None
    text: str | None = None  # in key name, acting administrator, tool, arguments or reason, or the
    # whole id of a call
    before: int | None = None  # entries older than this one: the next page
    guest: int | None = None  # VMID that the arguments name
    calls: bool | None = None  # True: calls of tools, neither sign-ins nor changes

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the SQL conditions of the fields that are set."""
        return [
            CONDITIONS[name](value) if is_storable(value) else false()
            for name, value in asdict(self).items()
            if value not in (None, "")
        ]


class Count(NamedTuple):
    """How many entries began in the span of time that starts `at`."""

    at: datetime
    tool: str | None
    outcome: str | None
    entries: int


class AuditSearch:
    """Searches of the audit's chain: rows that were added beside it are not verified, nor found."""

    def __init__(self, database: Database, chain: AuditLog) -> None:
        self._database = database
        self._chain = chain

    async def find(self, which: AuditFilter, limit: int) -> list[Mapping[str, Any]]:
        """Return the matching entries, newest first; fewer than `limit` once they are PAGE_SIZE."""
        async with self._database.reading() as connection:
            query = (await self._entries(connection, *COLUMNS.values())).where(*which.conditions())
            query = query.order_by(START.c.seq.desc())
            found: list[Mapping[str, Any]] = []
            size = 0
            while len(found) < limit:
                further = query.limit(min(FETCHED, limit - len(found)))
                if found:
                    further = further.where(START.c.seq < found[-1]["seq"])
                rows = (await connection.execute(further)).mappings().all()
                for row in rows:
                    size += sum(len(str(row[name] or "")) for name in LONG_COLUMNS)
                    if found and size > PAGE_SIZE:
                        return found
                    found.append(dict(row))
                if len(rows) < FETCHED:
                    break
            return found

    async def counts(self, which: AuditFilter, since: datetime, seconds: int) -> list[Count]:
        """Count the entries by tool, outcome and the span of `seconds` in which they began.

        Entries before `since`, when the first span starts, are left out.
        """
        width, origin = seconds * 1_000_000, microseconds(since)
        at = START.c.at.cast(Moment.impl)
        span = ((at - origin) // width * width + origin).cast(Moment).label("span")
        groups = (span, START.c.tool, COLUMNS["outcome"])
        async with self._database.reading() as connection:
            query = await self._entries(connection, *groups, func.count().label("entries"))
            query = query.where(START.c.at >= since, *which.conditions())
            rows = (await connection.execute(query.group_by(*groups).order_by(span))).all()
        return [Count(*row) for row in rows]

    async def calls_of_keys(self, key_ids: Iterable[str]) -> dict[str, int]:
        """Count the calls of these keys, as far back as the audit reaches."""
        key_id = START.c.key_id
        async with self._database.reading() as connection:
            first, last = await self._chain.bounds(connection)
            # without the outcomes: to join them takes many times as long
            query = select(key_id, func.count().label("calls")).where(
                key_id.in_(list(key_ids)),
                START.c.kind.in_(CALLS),
                is_between(START.c.seq, first, last),
            )
            rows = (await connection.execute(query.group_by(key_id))).all()
        return {row.key_id: row.calls for row in rows}

    async def _entries(
        self, connection: AsyncConnection, *columns: ColumnElement[Any]
    ) -> Select[Any]:
        """Select from the rows of the chain that begin an entry, joined with their outcomes."""
        first, last = await self._chain.bounds(connection)
        ended = (END.c.call_id == START.c.call_id) & (END.c.kind == "outcome")
        ended &= is_between(END.c.seq, first, last) & (START.c.kind == "intent")
        query = select(*columns).select_from(START.outerjoin(END, ended))
        return query.where(START.c.kind != "outcome", is_between(START.c.seq, first, last))


def _is(name: str) -> Condition:
    return lambda value: COLUMNS[name] == value


def _ended(outcome: str) -> ColumnElement[bool]:
    if outcome == UNKNOWN:
        return COLUMNS["outcome"].is_(None) & (START.c.kind == "intent")
    return COLUMNS["outcome"] == outcome


def _names_guest(vmid: int) -> ColumnElement[bool]:
    """Match arguments with this VMID, alone or in the list of a call for many guests.

    Clients also send numbers as texts, and CloneVm takes its source as one.
    """

    def has(*texts: str) -> ColumnElement[bool]:
        return or_(*(START.c.arguments.contains(text, autoescape=True) for text in texts))

    alone = [f'"{name}":{vmid}{end}' for name in GUEST for end in ",}"]
    alone += [f'"{name}":"{vmid}"' for name in GUEST]
    first = [f'"{GUESTS}":[{vmid}{end}' for end in ",]"] + [f'"{GUESTS}":["{vmid}"']
    later = [f",{vmid}{end}" for end in ",]"] + [f',"{vmid}"']
    return has(*alone, *first) | (has(f'"{GUESTS}":[') & has(*later))


def _is_call(_calls: bool) -> ColumnElement[bool]:
    is_none = or_(*(START.c.tool.like(tool) for tool in NO_CALLS))
    return START.c.kind.in_(CALLS) & (START.c.tool.is_(None) | ~is_none)


def _is_in_clusters(cluster: str) -> ColumnElement[bool]:
    """Match the cluster in the list of a call, such as "lab, prod"."""
    several = literal(", ") + START.c.cluster + ", "
    return several.icontains(f", {cluster}, ", autoescape=True)


def _mentions(text: str) -> ColumnElement[bool]:
    names = ("key_name", "acting", "tool", "arguments", "reason")
    mentions = [COLUMNS[name].icontains(text, autoescape=True) for name in names]
    return or_(START.c.call_id == text.lower(), *mentions)


CONDITIONS: Mapping[str, Condition] = {
    "since": lambda moment: START.c.at >= moment,
    "until": lambda moment: START.c.at < moment,
    "key_id": _is("key_id"),
    "tool": _is("tool"),
    "cluster": _is_in_clusters,
    "kind": _is("kind"),
    "outcome": _ended,
    "address": _is("address"),
    "text": _mentions,
    "before": lambda seq: START.c.seq < seq,
    "guest": _names_guest,
    "calls": _is_call,
}
