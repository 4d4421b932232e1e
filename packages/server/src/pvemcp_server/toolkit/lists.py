"""List tools: a table read from one or more clusters, filtered and sorted."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence, Sized
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from msgspec.structs import asdict

from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.errors import CallError, folded
from pvemcp_server.tables import load
from pvemcp_server.tables.registry import (
    ALL,
    MOST_CALLS,
    Budget,
    Cost,
    LoadRequest,
    Shares,
    Table,
    note_node_states,
)
from pvemcp_server.tables.rows import caveats
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.missing_privileges import explain_filtered
from pvemcp_server.toolkit.registry import Rows

T = TypeVar("T", bound=Sized)

_CALLS = 1000  # to one cluster, for one list
_SHARE_OF_LOADING = 0.7  # of the time left; then the rows loaded so far are returned

Finish = Callable[[Cluster, Sequence[Any], LoadRequest], Awaitable[Sequence[Any]]]


async def listed(
    call: Call,
    table: Table,
    cluster_name: str | None,
    columns: Sequence[str],
    *,
    request: LoadRequest = ALL,
    keep: Callable[[Any], bool] | None = None,
    order: Callable[[Any], Any],
    clusters: Sequence[Cluster] | None = None,
    required: bool = False,
    finish: Finish | None = None,
) -> Rows:
    """Return the table's rows of the named cluster, or of all with the column `cluster` first.

    `keep` selects rows and `order` is their sort key. With `required`, a read that has
    notes but no rows is an error. `finish` loads extra columns, and the cluster's name is added,
    for the page's rows only.
    """
    if clusters is None:
        clusters = await call.all_clusters(cluster_name)
    needed = frozenset(columns)
    if call.fields:  # the caller picked other columns than those of the detail level
        by_folded = {folded(name): name for name in table.fields}
        picked = (by_folded.get(folded(name)) for name in call.fields)
        needed = frozenset(name for name in picked if name)
    loaded = needed - table.extra if finish else needed
    shared_by = () if table.cost is Cost.ONE else clusters
    request = replace(with_budget(call, request, shared_by), columns=loaded)
    read = partial(_read, table, request, required=required)
    answers = await call.each(clusters, read, request.budget.shares)
    if table.overlaps:
        for note in table.overlaps({cluster.name: rows for cluster, rows in answers}):
            call.notes.add(note)
    pairs = [
        (cluster.name, row)
        for cluster, rows in answers
        for row in sorted(filter(keep, rows), key=order)
    ]
    if len(answers) > 1:
        pairs.sort(key=lambda pair: order(pair[1]))
    if finish and needed & table.extra:
        pairs[call.page] = await _finish_page(pairs[call.page], clusters, finish, request)
    for caveat in _caveats(table, needed, request, [row for _, row in pairs]):
        call.notes.add(caveat)
    result: list[Any] = [row for _, row in pairs]
    newest_by = order.field if isinstance(order, NewestFirst) else ""
    if cluster_name is not None:
        return Rows(result, tuple(columns), reasons=table.reasons, newest_by=newest_by)
    # converting all of thousands of rows would block the event loop
    result[call.page] = [{"cluster": name, **asdict(row)} for name, row in pairs[call.page]]
    return Rows(result, ("cluster", *columns), reasons=table.reasons, newest_by=newest_by)


async def _read(
    table: Table, request: LoadRequest, cluster: Cluster, *, required: bool
) -> Sequence[Any]:
    """Return the rows of a cluster; note what the role or the account hides, and silent nodes."""
    rows: Sequence[Any]
    if required:
        rows = await rows_or_error(cluster, lambda quiet: load(table, quiet, request))
    else:
        rows = await load(table, cluster, request)
    if not rows and request.is_whole:
        cluster.note_narrow_scope(table.name.replace("_", " "))
    if table.looks_filtered(cluster.account, rows):
        await explain_filtered(cluster, table)
    if table.last_known:
        await note_node_states(table, cluster, request)
    return rows


def _caveats(
    table: Table, shown: AbstractSet[str], request: LoadRequest, rows: Sequence[Any]
) -> list[str]:
    """Return the caveats of the columns that are shown, or that the request filters by."""
    filtered = {name for name, part in table.pushdown.items() if getattr(request, part)}
    present = []
    for name, field in table.fields.items():
        if field.caveat and name in shown | filtered:
            about, values = field.caveat.about, (getattr(row, name) for row in rows)
            if any(value in about if about else value is not None for value in values):
                present.append(field)
    return caveats(present, request.status)


async def _finish_page(
    page: Sequence[tuple[str, Any]],
    clusters: Iterable[Cluster],
    finish: Finish,
    request: LoadRequest,
) -> list[tuple[str, Any]]:
    """Return the rows of a page in the same order, each finished by its cluster."""
    names = {name for name, _ in page}
    involved = [cluster for cluster in clusters if cluster.name in names]
    finished = await asyncio.gather(
        *(
            finish(cluster, [row for name, row in page if name == cluster.name], request)
            for cluster in involved
        )
    )
    by_cluster = {c.name: iter(rows) for c, rows in zip(involved, finished, strict=True)}
    return [(name, next(by_cluster[name])) for name, _ in page]


async def rows_or_error(cluster: Cluster, read: Callable[[Cluster], Awaitable[T]]) -> T:
    """Return the rows of a read; raise CallError with its notes when a failure left none.

    The read collects its notes separately: they become the error, or notes of the answer.
    """
    quiet = replace(cluster, notes=Notes())
    rows = await read(quiet)
    if not rows and not all(kind.advice for kind in quiet.notes.values()):
        raise CallError(" ".join(quiet.notes))
    cluster.notes.update(quiet.notes)
    return rows


@dataclass(frozen=True)
class NewestFirst:
    """A sort key with the latest time first and rows without one last."""

    field: str

    def __call__(self, row: Any) -> float:
        time: datetime | None = getattr(row, self.field)
        return -time.timestamp() if time is not None else 0.0


def with_budget(
    call: Call,
    request: LoadRequest = ALL,
    shared_by: Sequence[Cluster] = (),
    most: int = MOST_CALLS,
) -> LoadRequest:
    """Return the request with limits on its Proxmox calls and its time.

    Several clusters have `most` calls together: give the shares to `Call.each`.
    """
    until = monotonic() + call.seconds_left * _SHARE_OF_LOADING
    shares = Shares(most) if len(shared_by) > 1 else None
    if shares:
        shares.begin(cluster.name for cluster in shared_by)
    return replace(request, budget=Budget(_CALLS, until, shares))
