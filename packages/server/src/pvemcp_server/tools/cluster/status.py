"""The cluster as a whole: its state and its options."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Annotated, Any

from proxmox_client import Forbidden, NotFound, ProxmoxError
from proxmox_client.api.cluster import ClusterStatus as Membership
from proxmox_client.api.resources import StorageResource
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster, InventoryView
from pvemcp_server.tables.guests import paused
from pvemcp_server.tables.registry import Col, Row
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import OneCluster
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import budgeted
from pvemcp_server.toolkit.missing_privileges import note_lacks
from pvemcp_server.toolkit.needs import RequiredPrivilege
from pvemcp_server.toolkit.registry import Document, document, tool

_MOST_ASKED = 1000  # running machines
_CEPH_PLUGINS = {"rbd", "cephfs"}


class ClusterHealth(Row):
    """What a cluster holds and how it is."""

    cluster: Annotated[str, Col("The name it is configured under")]
    cluster_name: Annotated[str | None, Col("The name Proxmox gives itself; none for one node")]
    quorate: Annotated[bool | None, Col("Whether enough nodes agree to change anything")]
    nodes_total: Annotated[int, Col("Nodes")]
    nodes_online: Annotated[int, Col("Nodes that answer")]
    nodes_offline: Annotated[int, Col("Nodes that don't")]
    vms: Annotated[dict[str, int], Col("Virtual machines by state; templates are among stopped")]
    containers: Annotated[dict[str, int], Col("Containers by state; templates are among stopped")]
    storages: Annotated[dict[str, int], Col("Storages, a shared one counted once")]
    ceph: Annotated[dict[str, Any] | None, Col("Ceph's health, where there is Ceph")]


class ClusterOptions(Row):
    """Options that hold for the whole cluster; what is not set is empty."""

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


@tool(
    "GetClusterStatus",
    area=Area.CLUSTER,
    effect=Effect.READ,
    answer=ClusterHealth,
    needs=(needs.CLUSTER, needs.GUESTS, needs.STORAGES),
)
async def get_cluster_status(call: Call, cluster_name: OneCluster = None) -> Document:
    """Summarise a cluster's health: quorum, nodes, guests by state, storages and Ceph."""
    cluster = await call.cluster(cluster_name)
    snapshot, membership = await asyncio.gather(cluster.inventory_view(), _membership(cluster))
    ceph, held = await asyncio.gather(_ceph(cluster, snapshot), _held(call, cluster, snapshot))
    await note_lacks(cluster, *_unseen(cluster, snapshot))
    online = [one for one in snapshot.nodes if one.status == "online"]
    return document(
        ClusterHealth(
            cluster=cluster.name,
            cluster_name=(membership.name or None) if membership else None,
            quorate=membership.quorate if membership else None,
            nodes_total=len(snapshot.nodes),
            nodes_online=len(online),
            nodes_offline=len(snapshot.nodes) - len(online),
            vms=_states(snapshot, "qemu", held),
            containers=_states(snapshot, "lxc", held),
            storages=_storages(snapshot.storages),
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


async def _membership(cluster: Cluster) -> Membership | None:
    try:
        return await cluster.pve.cluster.status()
    except Forbidden as error:
        cluster.notes.add(f"Quorum is not known: {await cluster.explain(error)}")
        return None


def _unseen(cluster: Cluster, snapshot: InventoryView) -> list[RequiredPrivilege]:
    """What would show what there is none of here; a narrow grant is reason enough for none."""
    if not cluster.scope.everything:
        return []
    shown = {needs.GUESTS: snapshot.guests, needs.STORAGES: snapshot.storages}
    return [need for need, rows in shown.items() if not rows]


async def _held(call: Call, cluster: Cluster, snapshot: InventoryView) -> AbstractSet[int]:
    """The paused machines, which takes QEMU's answer for every one that runs."""
    running = sum(1 for one in snapshot.guests if one.type == "qemu" and one.status == "running")
    if running > _MOST_ASKED:
        call.notes.add(f"Paused machines count as running here: {running} are too many to ask.")
        return frozenset()
    return await paused(cluster, budgeted(call))


def _states(snapshot: InventoryView, kind: str, held: AbstractSet[int]) -> dict[str, int]:
    """How many are in each state; the three that everybody asks for are always there."""
    guests = [one for one in snapshot.guests if one.type == kind]
    counted = Counter("paused" if one.vmid in held else one.status for one in guests)
    known = {state: counted.pop(state, 0) for state in ("running", "stopped", "paused")}
    templates = sum(1 for one in guests if one.template)
    return {"total": len(guests), **known, **dict(sorted(counted.items())), "templates": templates}


def _storages(rows: Iterable[StorageResource]) -> dict[str, int]:
    """A shared storage has a row per node and is available when one of them says so."""
    available: dict[tuple[str, str], bool] = {}
    for one in rows:
        key = (one.storage, "" if one.shared else one.node)
        available[key] = available.get(key, False) or one.status == "available"
    return {"total": len(available), "available": sum(available.values())}


async def _ceph(cluster: Cluster, snapshot: InventoryView) -> dict[str, Any] | None:
    """Ceph is asked only where a storage is on Ceph; an external one is not this cluster's."""
    if not any(one.plugin_type in _CEPH_PLUGINS for one in snapshot.storages):
        return None
    try:
        health = (await cluster.pve.cluster.ceph_status()).health
    except NotFound:
        return None
    except ProxmoxError as error:
        cluster.notes.add(f"Ceph's health is not known: {await cluster.explain(error)}")
        return None
    return {"status": health.status, "checks": sorted(health.checks)}


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _without_password(url: str | None) -> str | None:
    """A proxy's address without the account in it, which may hold a password."""
    if not url or "@" not in url:
        return url
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"
