"""What changed between two times, and who did it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import Field

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import BadArgument
from pvemcp_server.tables import Change, LoadRequest, changes
from pvemcp_server.tables.changes import KINDS, Kind
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import (
    NO_FILTER,
    AlsoNamed,
    AnyNode,
    AnyVm,
    ClusterName,
    Words,
)
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import clusters_with
from pvemcp_server.toolkit.lists import NewestFirst, listed
from pvemcp_server.toolkit.registry import Rows, tool
from pvemcp_server.tools.nodes.tasks import User, time_argument

ChangeKinds = Annotated[
    list[Kind] | None, NO_FILTER, Words(KINDS), AlsoNamed("kind"), Field(description="Kinds")
]
Since = Annotated[str | None, Field(max_length=40, description="As -7d; absent -24h")]
Until = Annotated[str | None, Field(max_length=40, description="As since")]

_SPAN: Final = timedelta(hours=24)


@tool("ListChanges", area=Area.NODES, effect=Effect.READ, answer=Change, needs=(needs.NODES,))
async def list_changes(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    kinds: ChangeKinds = None,
    node: AnyNode = None,
    vmid: AnyVm = None,
    user: User = None,
    since: Since = None,
    until: Until = None,
) -> Rows:
    """List what changed and who did it, newest first: tasks, options, logins, outages."""
    end = time_argument("until", until)
    start = time_argument("since", since) or (end or datetime.now(UTC)) - _SPAN
    if end and start > end:
        raise BadArgument("until", "it is before since.")

    if cluster_name is None and vmid is None and node is None and "task" in (kinds or ("task",)):
        await call.note_jobs()

    def keep(row: Change) -> bool:
        return user is None or user.casefold() in (row.user or "").casefold()

    return await listed(
        call,
        changes,
        cluster_name,
        Change.minimal,
        request=LoadRequest(
            vmids=frozenset() if vmid is None else frozenset({vmid}),
            nodes=frozenset(filter(None, [node])),
            types=frozenset(kinds or ()),
            since=start,
            until=end,
        ),
        keep=keep,
        order=NewestFirst("time"),
        clusters=await clusters_with(call, cluster_name, node, may_be_offline=True),
        required=node is not None,
    )
