"""List tools: a table read over one or more clusters, filtered, put in order."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from time import monotonic
from typing import Any

from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.errors import CallError
from pvemcp_server.tables import load
from pvemcp_server.tables.load import NamedRows, note_offline_nodes
from pvemcp_server.tables.registry import Budget, LoadRequest, Row, Table
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.missing_privileges import say_why_empty
from pvemcp_server.toolkit.registry import Rows

_CALLS = 1000  # to one cluster, for one listing
_SHARE_OF_ROWS = 0.7  # of the time left: then what has come is answered
_WANT = LoadRequest()

Finish = Callable[[Cluster, Sequence[Any], LoadRequest], Awaitable[Sequence[Any]]]


async def listed(
    call: Call,
    table: Table,
    cluster_name: str | None,
    columns: Sequence[str],
    *,
    want: LoadRequest = _WANT,
    keep: Callable[[Any], bool] | None = None,
    order: Callable[[Any], Any],
    clusters: Sequence[Cluster] | None = None,
    must: bool = False,
    finish: Finish | None = None,
) -> Rows:
    """Rows of the named cluster, or of all of them with the column `cluster` first.

    With `must`, one place was asked for by name: that it does not answer is an error, not a note.
    `finish` adds the table's extra columns, and only to those rows that will be shown.
    """
    asked = await call.all_clusters(cluster_name) if clusters is None else clusters
    needed = _needed(call, table, columns)
    wanted = replace(budgeted(call, want), columns=needed - table.extra if finish else needed)

    async def read(cluster: Cluster) -> Sequence[Any]:
        rows = await (_answered if must else load)(table, cluster, wanted)
        if _seems_cut(table, cluster, rows):
            await say_why_empty(cluster, table)
        elif table.last_known:
            await note_offline_nodes(cluster, {row.node for row in rows})
        return rows

    found = _in_order(await call.each(asked, read), keep, order)
    if finish and needed & table.extra:
        found[call.page] = await _finished(found[call.page], asked, finish, wanted)
    if cluster_name is not None:
        return Rows([row for _, row in found], tuple(columns))
    return Rows(NamedRows(found), ("cluster", *columns))


def _in_order(
    answers: Iterable[tuple[Cluster, Sequence[Any]]],
    keep: Callable[[Any], bool] | None,
    order: Callable[[Any], Any],
) -> list[tuple[str, Any]]:
    """The rows to keep, each with its cluster's name."""
    kept = [(cluster.name, sorted(filter(keep, rows), key=order)) for cluster, rows in answers]
    found = [(name, row) for name, rows in kept for row in rows]
    if len(kept) > 1:
        found.sort(key=lambda pair: order(pair[1]))
    return found


async def _finished(
    page: Sequence[tuple[str, Any]], clusters: Iterable[Cluster], finish: Finish, want: LoadRequest
) -> list[tuple[str, Any]]:
    """The rows of a page in their order, each finished at its cluster."""

    async def of_one(cluster: Cluster) -> tuple[str, Iterator[Any]]:
        rows = [row for name, row in page if name == cluster.name]
        return cluster.name, iter(await finish(cluster, rows, want))

    names = {name for name, _ in page}
    finished = dict(await asyncio.gather(*(of_one(one) for one in clusters if one.name in names)))
    return [(name, next(finished[name])) for name, _ in page]


async def _answered(table: Table, cluster: Cluster, want: LoadRequest) -> Sequence[Any]:
    aside = replace(cluster, notes=Notes())
    rows = await load(table, aside, want)
    said = list(aside.notes)
    if said and not rows:
        raise CallError(" ".join(said))
    for sentence in said:
        cluster.notes.add(sentence)
    return rows


def _seems_cut(table: Table, cluster: Cluster, rows: Sequence[Any]) -> bool:
    """Whether the account may see less than there is: nothing, only names, only its own."""
    if table.name == "nodes":
        return any(one.status == "online" and one.memory_total is None for one in rows)
    if table.name == "tasks":
        return all(one.user == cluster.account for one in rows)
    return not rows


def at(detail: str, row: type[Row], full: Sequence[str]) -> tuple[str, ...]:
    """The columns of a detail level."""
    return row.minimal if detail == "Minimal" else (*row.minimal, *full)


def newest(field: str) -> Callable[[Any], float]:
    """An order with the latest first; what has no time comes last."""
    read = attrgetter(field)

    def since(row: Any) -> float:
        moment: datetime | None = read(row)
        return -moment.timestamp() if moment is not None else 0.0

    return since


def budgeted(call: Call, want: LoadRequest = _WANT) -> LoadRequest:
    """The want with an end to its patience."""
    until = monotonic() + call.seconds_left * _SHARE_OF_ROWS
    return replace(want, budget=Budget(_CALLS, until))


def _needed(call: Call, table: Table, columns: Iterable[str]) -> frozenset[str]:
    """The columns to load: those picked, which replace those of the detail level."""
    if not call.fields:
        return frozenset(columns)
    plain = {name.replace("_", "").casefold(): name for name in table.fields}
    picked = (plain.get(one.replace("_", "").casefold()) for one in call.fields)
    return frozenset(name for name in picked if name)
