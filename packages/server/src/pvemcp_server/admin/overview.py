"""The overview: health of the clusters, and notices. `audit.py` has its calls and failures."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.clusters import InventoryView, explain, outcome_of
from pvemcp_server.errors import UnknownName
from pvemcp_server.store.columns import HIGHEST_ID
from pvemcp_server.store.records import ClusterKind, ClusterRecord, Notice
from pvemcp_server.tables.clusters import datastore_use

HEALTH_SECONDS: Final = 5

subject = Subject("Overview", {"notices": "What an administrator should see."})


@dataclass(frozen=True)
class Health:
    """The state of a cluster, read with its default identity."""

    name: str
    description: str
    reachable: bool
    trouble: str = ""
    nodes_online: int = 0
    nodes_total: int = 0
    guests_running: int = 0  # paused ones among them: /cluster/resources reports both alike
    guests_total: int = 0
    protected: bool = False
    kind: ClusterKind = ClusterKind.PVE
    datastores: tuple[str, ...] = ()  # of a backup server, each with the space in use


@subject.operation(
    "overview.clusters",
    Route("GET", "/overview/clusters"),
    Command("status", by_hand=True),
    may=AUDITORS,
)
async def cluster_health(context: AdminContext) -> list[Health]:
    """Read the state of every cluster: reachability, nodes and guests.

    All clusters are read at once; one that does not answer delays the result by HEALTH_SECONDS at
    most.
    """
    return list(await asyncio.gather(*await states(context)))


async def states(context: AdminContext) -> list[Coroutine[Any, Any, Health]]:
    """Return the state of each cluster, to be awaited: one that hangs need not delay others."""
    records = await context.services.access.clusters.all()
    return [_health(context, record) for record in records]


@subject.operation(
    "notices.list",
    Route("GET", "/notices"),
    Command("notices list", columns=("id", "message", "count", "last_seen")),
    may=AUDITORS,
)
async def list_notices(context: AdminContext) -> list[Notice]:
    """List refused keys and failed sign-ins: each once, with its count."""
    return await context.services.store.notices.open()


@subject.operation(
    "notices.dismiss",
    Route("DELETE", "/notices/{notice}"),
    Command("notices dismiss", text="Dismissed {notice}.", done="dismissed"),
    may=OWNERS,
)
async def dismiss_notice(
    context: AdminContext,
    notice: Annotated[int, Field(ge=0, le=HIGHEST_ID, description="Its id")],
) -> None:
    """Dismiss a notice; it comes back when its cause occurs again."""
    notices = {each.id: each for each in await list_notices(context)}
    if notice not in notices:
        raise UnknownName("notice", notice, notices)
    await context.services.store.notices.dismiss(notice)
    await context.changed("notices.dismiss", notice=notice, message=notices[notice].message)


async def _health(context: AdminContext, record: ClusterRecord) -> Health:
    async def read() -> InventoryView:
        async with asyncio.timeout(HEALTH_SECONDS):
            connection = await context.services.clusters.connection(record.name)
            return await connection.inventory.view()

    view = await outcome_of(read(), f"cluster {record.name}")
    if isinstance(view, Exception):
        return Health(
            record.name,
            record.description,
            False,
            explain(view),
            protected=record.protected,
            kind=record.kind,
        )
    return Health(
        name=record.name,
        description=record.description,
        reachable=not view.stale,
        trouble=view.stale,
        nodes_online=len(view.nodes) - len(view.offline_nodes),
        nodes_total=len(view.nodes),
        guests_running=sum(guest.status == "running" for guest in view.guests),
        guests_total=len(view.guests),
        protected=record.protected,
        kind=record.kind,
        datastores=tuple(datastore_use(store) for store in view.datastores),
    )
