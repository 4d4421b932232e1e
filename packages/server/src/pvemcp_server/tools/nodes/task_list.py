"""The list of tasks."""

import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import BadArgument
from pvemcp_server.tables import LoadRequest, Task, tasks
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ClusterName, NodeName, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import listed, newest
from pvemcp_server.toolkit.locate import clusters_with
from pvemcp_server.toolkit.registry import Rows, tool

Status = Annotated[Literal["running", "stopped", "ok", "error"] | None, Field(description="State")]
Type = Annotated[str | None, Field(max_length=50, description="As vzdump, qmstart, qmigrate")]
User = Annotated[str | None, Field(max_length=100, description="Account or a part of it")]
Since = Annotated[str | None, Field(max_length=40, description="ISO 8601, or -24h, -7d")]
Limit = Annotated[int, Field(ge=1, le=500, description="Rows at most")]

_OUTCOMES = {
    "running": {"running"},
    "stopped": {"ok", "warnings", "error"},
    "ok": {"ok", "warnings"},
    "error": {"error"},
}
_RELATIVE = re.compile(r"-(\d{1,6})([smhdw])", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SPANS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@tool("ListTasks", area=Area.NODES, effect=Effect.READ, answer=Task, needs=(needs.NODES,))
async def list_tasks(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    status: Status = None,
    type: Type = None,  # noqa: A002 - the published name
    node: NodeName | None = None,
    vmid: VmId | None = None,
    user: User = None,
    since: Since = None,
    limit: Limit = 50,
) -> Rows:
    """List tasks of all nodes, newest first."""
    outcomes = _OUTCOMES.get(status or "")
    # What Proxmox cannot filter for us is looked for among more than are wanted.
    filtered = type is not None or user is not None or status == "running"
    found = await listed(
        call,
        tasks,
        cluster_name,
        Task.minimal,
        want=LoadRequest(
            vmids=frozenset() if vmid is None else frozenset({vmid}),
            nodes=frozenset(filter(None, [node])),
            status=frozenset(outcomes or ()),
            types=frozenset(filter(None, [type])),
            since=_moment(since),
            limit=None if filtered else limit + 1,
        ),
        keep=_wanted(outcomes, type, vmid, user),
        order=newest("start_time"),
        clusters=await clusters_with(call, cluster_name, node),
        must=node is not None,
    )
    if len(found.rows) > limit:
        call.notes.add(f"The newest {limit}; there are more, for a larger limit or with filters.")
    return Rows(found.rows[:limit], found.columns)


def _wanted(
    outcomes: Collection[str] | None, kind: str | None, vmid: int | None, user: str | None
) -> Callable[[Task], bool]:
    def keep(row: Task) -> bool:
        return (
            (outcomes is None or row.outcome in outcomes)
            and (kind is None or row.type.casefold() == kind.casefold())
            and (vmid is None or row.vmid == vmid)
            and (user is None or user.casefold() in row.user.casefold())
        )

    return keep


def _moment(since: str | None) -> datetime | None:
    if since is None:
        return None
    if match := _RELATIVE.fullmatch(since):
        return _ago(timedelta(**{_SPANS[match[2]]: int(match[1])}))
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise BadArgument("since", f"{since!r} is neither ISO 8601 nor like -24h.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _ago(span: timedelta) -> datetime:
    """That long before now, but not before there was any task."""
    now = datetime.now(UTC)
    return now - min(span, now - _EPOCH)
