"""The configured clusters."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from proxmox_client.api.backup_server import DatastoreUsage
from pvemcp_server.clusters import Cluster, outcome_of
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.reach import of_any
from pvemcp_server.tables.registry import EVERY_KIND, Cost, LoadRequest, table
from pvemcp_server.tables.rows import Col, Row, Unit, percent

Tls = Literal["verified", "pinned", "insecure"]


class ClusterRow(Row):
    """A configured cluster."""

    minimal: ClassVar[tuple[str, ...]] = (
        "name",
        "description",
        "kind",
        "reachable",
        "version",
        "nodes",
        "tls",
        "last_seen",
    )

    name: Annotated[str, Col("Name it is configured under: what cluster_name takes")]
    description: Annotated[str, Col("What it is for")]
    reachable: Annotated[bool, Col("Whether it answers now")]
    kind: Annotated[
        str,
        Col(
            "pve: Proxmox VE; pbs: Proxmox Backup Server",
            values=tuple(ClusterKind),
            meanings={"pbs": "backup_server"},
        ),
    ]
    version: Annotated[
        str | None, Col("Version of Proxmox VE or Backup Server", aliases=("pve_version",))
    ]
    nodes: Annotated[
        int | None, Col("Nodes, as far as they may be seen; null: backup server", Unit.COUNT)
    ]
    datastores: Annotated[
        list[str], Col("Datastores of a backup server, each with the space in use")
    ]
    quorate: Annotated[
        bool | None,
        Col("Whether enough nodes agree to change anything; the account needs Sys.Audit"),
    ]
    frozen: Annotated[
        str | None, Col("Since when, by whom and why writes are frozen; null: they are not")
    ]
    tls: Annotated[Tls, Col("How its certificate is checked")]
    last_seen: Annotated[datetime | None, Col("When it last answered", Unit.TIME)]


def datastore_use(store: DatastoreUsage) -> str:
    """Return a datastore with the space in use: `main 74%`."""
    used = percent(store.used, store.total)
    if used is None:
        return f"{store.store} {'not readable' if store.error else 'unknown'}"
    return f"{store.store} {used:g}%"


_TLS: dict[str, Tls] = {"pinned": "pinned", "insecure": "insecure"}


@table("clusters", tool="ListClusters", cost=Cost.ONE, covered=of_any, kinds=EVERY_KIND)
async def clusters(cluster: Cluster, request: LoadRequest) -> list[ClusterRow]:
    """The clusters that can be reached, with their version and whether they answer."""
    version, nodes, quorate, datastores = None, None, None, list[str]()
    is_pve = cluster.kind is ClusterKind.PVE

    async def read() -> None:
        nonlocal version, nodes, quorate, datastores
        if request.wants_column("reachable", "version"):
            version = (await cluster.client.version()).version
        if request.wants_column("reachable", "nodes", "datastores", "last_seen"):
            view = await cluster.inventory_view()
            nodes = len(view.nodes) if is_pve else None
            datastores = [datastore_use(store) for store in view.datastores]
        if is_pve and request.wants_column("quorate"):
            membership = await cluster.membership(f"Quorum of {cluster.name} is not known")
            quorate = membership.quorate if membership else None

    failure = await outcome_of(read(), f"cluster {cluster.name}")
    if failure is not None:
        cluster.notes.add(f"{cluster.name}: {await cluster.explain(failure)}")
    last_seen = cluster.inventory.last_seen
    freeze = await cluster.read_freeze()
    return [
        ClusterRow(
            name=cluster.name,
            description=cluster.description,
            kind=cluster.kind.value,
            reachable=version is not None,
            version=version,
            nodes=nodes,
            datastores=datastores,
            quorate=quorate,
            frozen=str(freeze) if freeze else None,
            tls=_TLS.get(cluster.tls, "verified"),
            last_seen=last_seen.replace(microsecond=0) if last_seen else None,
        )
    ]
