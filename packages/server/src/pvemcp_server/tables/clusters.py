"""The configured clusters."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pvemcp_server.clusters import Cluster, outcome_of
from pvemcp_server.tables.reach import of_any
from pvemcp_server.tables.registry import Cost, LoadRequest, table
from pvemcp_server.tables.rows import Col, Row, Unit

Tls = Literal["verified", "pinned", "insecure"]


class ClusterRow(Row):
    """A configured cluster."""

    minimal: ClassVar[tuple[str, ...]] = (
        "name",
        "description",
        "reachable",
        "pve_version",
        "nodes",
        "tls",
        "last_seen",
    )

    name: Annotated[str, Col("Name it is configured under: what cluster_name takes")]
    description: Annotated[str, Col("What it is for")]
    reachable: Annotated[bool, Col("Whether it answers now")]
    pve_version: Annotated[str | None, Col("Version of Proxmox VE")]
    nodes: Annotated[int | None, Col("Nodes, as far as they may be seen", Unit.COUNT)]
    quorate: Annotated[
        bool | None,
        Col("Whether enough nodes agree to change anything; the account needs Sys.Audit"),
    ]
    tls: Annotated[Tls, Col("How its certificate is checked")]
    last_seen: Annotated[datetime | None, Col("When it last answered", Unit.TIME)]


_TLS: dict[str, Tls] = {"pinned": "pinned", "insecure": "insecure"}


@table("clusters", tool="ListClusters", cost=Cost.ONE, covered=of_any)
async def clusters(cluster: Cluster, request: LoadRequest) -> list[ClusterRow]:
    """The clusters that can be reached, with their version and whether they answer."""
    version, nodes, quorate = None, None, None

    async def read() -> None:
        nonlocal version, nodes, quorate
        if request.wants_column("reachable", "pve_version"):
            version = (await cluster.pve.version()).version
        if request.wants_column("reachable", "nodes", "last_seen"):
            nodes = len((await cluster.inventory_view()).nodes)
        if request.wants_column("quorate"):
            membership = await cluster.membership(f"Quorum of {cluster.name} is not known")
            quorate = membership.quorate if membership else None

    failure = await outcome_of(read(), f"cluster {cluster.name}")
    if failure is not None:
        cluster.notes.add(f"{cluster.name}: {await cluster.explain(failure)}")
    last_seen = cluster.inventory.last_seen
    return [
        ClusterRow(
            name=cluster.name,
            description=cluster.description,
            reachable=version is not None,
            pve_version=version,
            nodes=nodes,
            quorate=quorate,
            tls=_TLS.get(cluster.tls, "verified"),
            last_seen=last_seen.replace(microsecond=0) if last_seen else None,
        )
    ]
