"""The overview: health of the clusters, and notices. `audit.py` has its calls and failures."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from proxmox_client.api.resources import NodeResource, StorageResource
from pvemcp_server.access.model import EVERYTHING
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.clusters import InventoryView, Notes, explain, outcome_of
from pvemcp_server.errors import UnknownName
from pvemcp_server.store.columns import HIGHEST_ID
from pvemcp_server.store.records import ClusterKind, ClusterRecord, Notice
from pvemcp_server.tables.clusters import datastore_use
from pvemcp_server.tables.rows import percent
from pvemcp_server.tables.storages import primary
from pvemcp_server.tools.attention import inventory_findings

HEALTH_SECONDS: Final = 5

subject = Subject("Overview", {"notices": "What an administrator should see."})


@dataclass(frozen=True)
class Use:
    """How much of something is in use: processors, or bytes; `percent` is 0 to 100."""

    used: float
    total: float

    @property
    def percent(self) -> float:
        return percent(self.used, self.total) or 0.0


@dataclass(frozen=True)
class NeedsAttention:
    """A finding of GetAttention; `severity` is critical, warning or notice."""

    severity: str
    finding: str


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
    offline_nodes: tuple[str, ...] = ()
    processors: Use | None = None  # of the nodes that report, as memory
    memory: Use | None = None  # bytes
    storage: Use | None = None  # bytes; a shared storage counts once
    attention: tuple[NeedsAttention, ...] = ()  # as far as the inventory shows it


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


@dataclass(frozen=True)
class Start:
    """The first steps, in their order: which are done."""

    cluster: bool  # one is configured
    key: bool  # there is one, or a connection of a user
    enabled: bool  # the endpoint is on
    called: bool  # a client has called with a key

    @property
    def is_done(self) -> bool:
        return self.cluster and self.key and self.enabled and self.called


@subject.operation(
    "overview.start",
    Route("GET", "/overview/start"),
    elsewhere="the command doctor",
    may=AUDITORS,
)
async def start(context: AdminContext) -> Start:
    """Return which of the first steps are done: cluster, key, endpoint turned on, first call."""
    callers = await context.services.store.keys.all()
    return Start(
        cluster=bool(await context.services.access.clusters.all()),
        key=bool(callers),
        enabled=(await context.services.settings.current()).enabled,
        called=any(caller.last_used for caller in callers),
    )


@dataclass(frozen=True)
class NodeUse:
    """A node with what is in use there; figures of one that does not report are absent."""

    name: str
    status: str
    processors: Use | None
    memory: Use | None
    disk: Use | None
    guests_running: int
    guests_total: int


@dataclass(frozen=True)
class StorageUse:
    """A storage, or a datastore; a shared storage is on no node."""

    name: str
    node: str
    type: str
    space: Use | None


@dataclass(frozen=True)
class ClusterUse:
    """A cluster with the use of its nodes and storages."""

    health: Health
    nodes: list[NodeUse]
    storages: list[StorageUse]


@subject.operation(
    "overview.cluster",
    Route("GET", "/overview/clusters/{cluster}"),
    elsewhere="tools call ListNodes, and ListStorage",
    may=AUDITORS,
)
async def cluster_use(
    context: AdminContext, cluster: Annotated[str, Field(description="The cluster's name")]
) -> ClusterUse:
    """Read the state of a cluster, with the use of each node and storage."""
    record = await context.services.access.clusters.get(cluster)
    health, view = await _read(context, record)
    if view is None:
        return ClusterUse(health, [], [])
    guests = Counter(guest.node for guest in view.guests)
    running = Counter(guest.node for guest in view.guests if guest.status == "running")
    nodes = [
        NodeUse(
            node.node,
            node.status,
            _use([(_busy(node), node.cpu_count)]),
            _use([(node.memory, node.memory_max)]),
            _use([(node.disk, node.disk_max)]),
            running[node.node],
            guests[node.node],
        )
        for node in view.nodes
    ]
    storages = [
        StorageUse(
            each.storage,
            "" if each.shared else each.node,
            each.plugin_type,
            _use([(each.disk, each.disk_max)]),
        )
        for each in _once(view.storages)
    ]
    storages += [
        StorageUse(each.store, "", "datastore", _use([(each.used, each.total)]))
        for each in view.datastores
    ]
    nodes.sort(key=lambda node: node.name)
    storages.sort(key=lambda storage: (storage.node, storage.name))
    return ClusterUse(health, nodes, storages)


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
    health, _ = await _read(context, record)
    return health


async def _read(
    context: AdminContext, record: ClusterRecord
) -> tuple[Health, InventoryView | None]:
    """Return the state of a cluster with the view that it is from; without an answer, no view."""

    async def read() -> tuple[Health, InventoryView]:
        async with asyncio.timeout(HEALTH_SECONDS):
            clusters = context.services.clusters
            cluster = await clusters.open(record.name, {}, EVERYTHING, Notes())
            view = await cluster.inventory_view()
            limits = await context.services.settings.current()
            findings = await inventory_findings(cluster, limits)
        attention = tuple(NeedsAttention(severity.word, text) for severity, text in findings)
        return _of_view(record, view, attention), view

    outcome = await outcome_of(read(), f"cluster {record.name}")
    if not isinstance(outcome, Exception):
        return outcome
    health = Health(
        record.name,
        record.description,
        False,
        explain(outcome),
        protected=record.protected,
        kind=record.kind,
    )
    return health, None


def _of_view(
    record: ClusterRecord, view: InventoryView, attention: tuple[NeedsAttention, ...]
) -> Health:
    space = [(each.disk, each.disk_max) for each in _once(view.storages)]
    space += [(each.used, each.total) for each in view.datastores]
    nodes = [node for node in view.nodes if not node.is_offline]
    return Health(
        name=record.name,
        description=record.description,
        reachable=not view.stale,
        trouble=view.stale,
        nodes_online=len(nodes),
        nodes_total=len(view.nodes),
        guests_running=sum(guest.status == "running" for guest in view.guests),
        guests_total=len(view.guests),
        protected=record.protected,
        kind=record.kind,
        datastores=tuple(datastore_use(store) for store in view.datastores),
        offline_nodes=tuple(sorted(view.offline_nodes)),
        processors=_use((_busy(node), node.cpu_count) for node in nodes),
        memory=_use((node.memory, node.memory_max) for node in nodes),
        storage=_use(space),
        attention=attention,
    )


def _once(storages: Sequence[StorageResource]) -> list[StorageResource]:
    """Return one row of each storage: nodes report a shared one each."""
    chosen = primary(storages)
    return [each for each in storages if (each.storage, each.node) in chosen]


def _busy(node: NodeResource) -> float | None:
    return None if node.cpu is None else node.cpu * (node.cpu_count or 0)


def _use(parts: Iterable[tuple[float | None, float | None]]) -> Use | None:
    """Return the use of all parts whose use and size are known; None without any."""
    known = [(used, total) for used, total in parts if used is not None and total]
    if not known:
        return None
    return Use(sum(used for used, _ in known), sum(total for _, total in known))
