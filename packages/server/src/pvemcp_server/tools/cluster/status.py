"""The health and the options of one cluster."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Final

from proxmox_client import NotFound, ProxmoxError, deadline
from proxmox_client.api import cluster as pve
from proxmox_client.api.cluster import ClusterStatus as Membership
from proxmox_client.api.resources import StorageResource
from proxmox_client.properties import whole_number
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster, InventoryView
from pvemcp_server.query.sources import view_of
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.backup_server import PbsDatastore, pbs_datastores, pbs_jobs
from pvemcp_server.tables.ceph import checks
from pvemcp_server.tables.guests import paused
from pvemcp_server.tables.registry import EVERY_KIND, Table, load
from pvemcp_server.tables.rows import Col, Row
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import OneCluster
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import with_budget
from pvemcp_server.toolkit.missing_privileges import note_missing_privileges
from pvemcp_server.toolkit.registry import Document, document, tool

# timeout for quorum, then for Ceph's health and paused VMs: a second more than it takes to detect a
# node that hangs
DETAIL_SECONDS: Final = 6.0
_MOST_CHECKED = 1000  # running VMs that are checked for being paused
# What a role for some resources sees of the options: the others name networks, hosts and tags
_OF_ANY_GUEST = ("keyboard", "language", "console", "mac_prefix")
_REST_HIDDEN = (
    f"Of these options a role for some resources sees {', '.join(_OF_ANY_GUEST)} only; the others "
    "look empty."
)
_CEPH_PLUGINS = {"rbd", "cephfs"}


class ClusterHealth(Row):
    """A cluster's health and the number of its guests and storages."""

    cluster: Annotated[str, Col("The name it is configured under")]
    cluster_name: Annotated[str | None, Col("The name Proxmox gives itself; none for one node")]
    quorate: Annotated[bool | None, Col("Whether enough nodes agree to change anything")]
    nodes_total: Annotated[int, Col("Nodes")]
    nodes_online: Annotated[int, Col("Members that are not offline, also without statistics")]
    nodes_offline: Annotated[int, Col("Nodes that have left the cluster")]
    offline_nodes: Annotated[list[str], Col("Names of those")]
    nodes_without_statistics: Annotated[
        list[str], Col("Online nodes whose state and use Proxmox reports as unknown")
    ]
    vms: Annotated[dict[str, int], Col("Virtual machines by state; templates are among stopped")]
    containers: Annotated[dict[str, int], Col("Containers by state; templates are among stopped")]
    storages: Annotated[dict[str, int], Col("Storages, a shared one counted once")]
    ceph: Annotated[dict[str, Any] | None, Col("Ceph's health, where there is Ceph")]


class ClusterOptions(Row):
    """Options of the whole cluster; options that are not set are empty."""

    cluster: Annotated[str, Col("The name it is configured under")]
    description: Annotated[str | None, Col("Notes of the administrators")]
    migration_type: Annotated[str | None, Col("How memory travels: secure or insecure")]
    migration_network: Annotated[str | None, Col("Network of migrations, in CIDR")]
    bandwidth_limits: Annotated[dict[str, Any], Col("Limits per operation, in KiB/s")]
    ha: Annotated[dict[str, Any], Col("High availability: what happens on shutdown")]
    crs: Annotated[dict[str, Any], Col("How guests are spread over the nodes")]
    console: Annotated[str | None, Col("Default console viewer")]
    keyboard: Annotated[str | None, Col("Default keyboard layout")]
    language: Annotated[str | None, Col("Default language of the web interface")]
    mac_prefix: Annotated[str | None, Col("Prefix of generated MAC addresses")]
    max_workers: Annotated[int | None, Col("Most workers of a bulk action")]
    email_from: Annotated[str | None, Col("Sender of notifications")]
    http_proxy: Annotated[str | None, Col("Proxy for downloads, without its password")]
    tag_style: Annotated[dict[str, Any], Col("How tags are shown")]
    allowed_tags: Annotated[list[str], Col("Tags known to the cluster")]


class BackupServerHealth(Row):
    """The answer of GetClusterStatus for a backup server."""

    cluster: Annotated[str, Col("The name it is configured under")]
    kind: Annotated[str, Col("pbs: a Proxmox Backup Server")]
    version: Annotated[str | None, Col("Version of Proxmox Backup Server")]
    datastores: Annotated[
        list[dict[str, Any]], Col("Use, growth and garbage collection of each datastore")
    ]
    failed_jobs: Annotated[list[str], Col("Jobs whose last run failed, with the reason")]
    jobs: Annotated[dict[str, int], Col("Jobs by type")]


@tool(
    "GetClusterStatus",
    view="topology",
    area=Area.CLUSTER,
    effect=Effect.READ,
    answer=ClusterHealth,
    needs=(needs.CLUSTER, needs.GUESTS, needs.STORAGES),
    kinds=EVERY_KIND,
)
async def get_cluster_status(call: Call, cluster_name: OneCluster = None) -> Document:
    """Summarize a cluster's health: quorum, nodes, guests by state, storages and Ceph."""
    cluster = await call.cluster(cluster_name)
    if cluster.kind is ClusterKind.PBS:
        return document(await _backup_server(call, cluster))
    with deadline(DETAIL_SECONDS):  # the rest of the answer is worth more than the quorum
        view, membership = await asyncio.gather(
            cluster.inventory_view(), cluster.membership("Quorum is not known")
        )
    is_silent = bool(view.stale) and not view.is_delayed
    # and more than these, of which a cluster that does not answer has none
    with deadline(cluster.inventory.retry_timeout if is_silent else DETAIL_SECONDS):
        ceph, paused_vmids = await asyncio.gather(
            _ceph(cluster, view), _paused(call, cluster, view)
        )
    for what, rows in {"node": view.nodes, "guest": view.guests, "storage": view.storages}.items():
        if not rows:
            cluster.note_narrow_scope(what)
    if cluster.scope.everything:  # a narrow grant explains empty lists by itself
        shown = {needs.GUESTS: view.guests, needs.STORAGES: view.storages}
        await note_missing_privileges(cluster, *(need for need, rows in shown.items() if not rows))
    offline = _offline(view, membership)
    blind = view.nodes_without_statistics - offline
    if blind:
        cluster.note_without_statistics(blind)
    return document(
        ClusterHealth(
            cluster=cluster.name,
            cluster_name=(membership.name or None) if membership else None,
            quorate=membership.quorate if membership else None,
            nodes_total=len(view.nodes),
            nodes_online=len(view.nodes) - len(offline),
            nodes_offline=len(offline),
            offline_nodes=sorted(offline),
            nodes_without_statistics=sorted(blind),
            vms=_states(view, "qemu", paused_vmids),
            containers=_states(view, "lxc", paused_vmids),
            storages=_storages(view.storages),
            ceph=ceph,
        )
    )


@tool(
    "GetClusterOptions",
    area=Area.CLUSTER,
    effect=Effect.READ,
    answer=ClusterOptions,
    needs=(needs.CLUSTER,),
)
async def get_cluster_options(call: Call, cluster_name: OneCluster = None) -> Document:
    """Get a cluster's options: migration, bandwidth limits, HA, console, tags."""
    cluster = await call.cluster(cluster_name)
    options = await cluster.pve.cluster.options()
    if not cluster.scope.everything:
        options = pve.ClusterOptions(**{name: getattr(options, name) for name in _OF_ANY_GUEST})
        call.notes.add(_REST_HIDDEN)
    elif options.mac_prefix is None:  # set, or Proxmox's default, for an account that may read it
        await note_missing_privileges(
            cluster, needs.CLUSTER, so="shows only console, tag style and tags of its options"
        )
    migration = options.group("migration")
    return document(
        ClusterOptions(
            cluster=cluster.name,
            description=options.description.strip() or None,
            migration_type=migration.get("type"),
            migration_network=migration.get("network"),
            bandwidth_limits={k: _number(v) for k, v in options.group("bwlimit").items()},
            ha=dict(options.group("ha")),
            crs=dict(options.group("crs")),
            console=options.console,
            keyboard=options.keyboard,
            language=options.language,
            mac_prefix=options.mac_prefix,
            max_workers=options.max_workers,
            email_from=options.email_from,
            http_proxy=_without_password(options.http_proxy),
            tag_style=dict(options.group("tag_style")),
            allowed_tags=list(options.allowed_tags or []),
        )
    )


async def _backup_server(call: Call, cluster: Cluster) -> BackupServerHealth:
    """Return the health of a backup server: its datastores, and its jobs that failed."""

    async def rows(table: Table) -> Sequence[Any]:
        """Return the rows that the tool of the table would show."""
        view = view_of(call.caller, table, cluster, call.tool)
        return [] if view is None else await load(table, view, with_budget(call))

    version, stores, jobs = await asyncio.gather(
        cluster.optional(cluster.pbs.version(), "Its version is not known"),
        rows(pbs_datastores),
        rows(pbs_jobs),
    )
    if not stores:
        cluster.note_narrow_scope("datastore")
    return BackupServerHealth(
        cluster=cluster.name,
        kind=cluster.kind.value,
        version=version.version if version else None,
        datastores=[
            {name: getattr(store, name) for name in PbsDatastore.minimal} for store in stores
        ],
        failed_jobs=[
            f"{job.type} {job.id}: {job.last_run_status}"
            for job in jobs
            if job.last_run_ok is False
        ],
        jobs=dict(sorted(Counter(job.type for job in jobs).items())),
    )


def _offline(view: InventoryView, membership: Membership | None) -> AbstractSet[str]:
    """Return the visible nodes that are offline; the membership is newer than the inventory."""
    members = {member.name: member for member in membership.members} if membership else {}
    return {
        node.node
        for node in view.nodes
        if (not member.online if (member := members.get(node.node)) else node.is_offline)
    }


async def _paused(call: Call, cluster: Cluster, view: InventoryView) -> AbstractSet[int]:
    """Return the VMIDs of paused VMs, which takes a request per node with running ones."""
    running = sum(guest.type == "qemu" and guest.status == "running" for guest in view.guests)
    if running > _MOST_CHECKED:
        call.notes.add(f"Paused VMs count as running here: {running} are too many to check.")
        return frozenset()
    return await paused(cluster, with_budget(call))


def _states(view: InventoryView, kind: str, paused_vmids: AbstractSet[int]) -> dict[str, int]:
    """Count the guests per state; running, stopped and paused are always present."""
    guests = [guest for guest in view.guests if guest.type == kind]
    counts = Counter("paused" if guest.vmid in paused_vmids else guest.status for guest in guests)
    usual = {state: counts.pop(state, 0) for state in ("running", "stopped", "paused")}
    templates = sum(1 for guest in guests if guest.template)
    return {"total": len(guests), **usual, **dict(sorted(counts.items())), "templates": templates}


def _storages(rows: Iterable[StorageResource]) -> dict[str, int]:
    """Count storages. A shared one has a row per node and is available if one of them is."""
    available: dict[tuple[str, str], bool] = {}
    for row in rows:
        key = (row.storage, "" if row.shared else row.node)
        available[key] = available.get(key, False) or row.is_available
    return {"total": len(available), "available": sum(available.values())}


async def _ceph(cluster: Cluster, view: InventoryView) -> dict[str, Any] | None:
    """Return Ceph's health if a storage is on Ceph; None for an external Ceph cluster.

    A role for a part of the cluster gets its state only.
    """
    if not any(row.plugin_type in _CEPH_PLUGINS for row in view.storages):
        return None
    try:
        health = (await cluster.pve.cluster.ceph_status()).health
    except NotFound:
        return None
    except ProxmoxError as error:
        cluster.notes.add(f"Ceph's health is not known: {await cluster.explain(error)}")
        return None
    if not cluster.scope.everything:  # its checks name any node
        return {"status": health.status}
    muted = checks(health, muted=True)
    shown = {"status": health.status, "checks": checks(health, muted=False)}
    return shown | ({"muted": muted} if muted else {})


def _number(text: str) -> int | str:
    number = whole_number(text)
    return text if number is None else number


def _without_password(url: str | None) -> str | None:
    """Return a proxy's URL without user name and password."""
    if not url or "@" not in url:
        return url
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"
