"""The health of a cluster's Ceph."""

from typing import Annotated, ClassVar

from proxmox_client import NotFound
from proxmox_client.api.cluster import CephHealth as Health
from proxmox_client.api.cluster import CephStatus
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.reach import of_everything
from pvemcp_server.tables.registry import Cost, LoadRequest, made, never_filtered, table
from pvemcp_server.tables.rows import Col, Row, Unit, percent


class CephHealth(Row):
    """The state of Ceph."""

    minimal: ClassVar[tuple[str, ...]] = (
        "status",
        "checks",
        "osds",
        "osds_up",
        "osds_in",
        "usage_percentage",
    )

    status: Annotated[str, Col("HEALTH_OK, HEALTH_WARN or HEALTH_ERR", aliases=("health",))]
    checks: Annotated[list[str], Col("What is not well: OSD_DOWN: 4 osds down")]
    muted: Annotated[list[str], Col("Checks that an administrator has muted")]
    osds: Annotated[int | None, Col("Object storage daemons (OSDs)", Unit.COUNT)]
    osds_up: Annotated[int | None, Col("OSDs that run", Unit.COUNT)]
    osds_in: Annotated[int | None, Col("OSDs that hold data", Unit.COUNT)]
    monitors: Annotated[list[str], Col("Monitors in quorum")]
    pools: Annotated[int | None, Col("Pools", Unit.COUNT)]
    placement_groups: Annotated[int | None, Col("Placement groups", Unit.COUNT, ("pgs",))]
    used: Annotated[int | None, Col("In use, with all copies", Unit.BYTES)]
    available: Annotated[int | None, Col("Not in use", Unit.BYTES)]
    total: Annotated[int | None, Col("Size of all OSDs", Unit.BYTES)]
    usage_percentage: Annotated[
        float | None, Col("In use", Unit.PERCENT, ("disk_usage_percentage",))
    ]
    fsid: Annotated[str | None, Col("Id of the Ceph cluster")]


@table(
    "ceph_health",
    tool="GetClusterStatus",
    cost=Cost.ONE,
    covered=of_everything,
    pushdown={},
    looks_filtered=never_filtered,
    rare=True,
)
async def ceph_health(cluster: Cluster, _request: LoadRequest) -> list[CephHealth]:
    """Health of Ceph in its own words, one row per cluster; for roles on the whole cluster."""
    try:
        status = await cluster.pve.cluster.ceph_status()
    except NotFound:
        cluster.notes.add(f"Ceph is not installed on {cluster.name}.", fact=True)
        return []
    return await made(cluster, [status], lambda status: [_row(status)])


def checks(health: Health, *, muted: bool) -> list[str]:
    """Return the checks that are muted or not, by name, each with Ceph's summary of it."""
    return [
        f"{name}: {check.summary.message}" if check.summary.message else name
        for name, check in sorted(health.checks.items())
        if check.muted == muted
    ]


def _row(status: CephStatus) -> CephHealth:
    osds, data = status.osds, status.placement
    return CephHealth(
        status=status.health.status,
        checks=checks(status.health, muted=False),
        muted=checks(status.health, muted=True),
        osds=osds.total,
        osds_up=osds.up,
        osds_in=osds.holding,
        monitors=sorted(status.monitors),
        pools=data.pools,
        placement_groups=data.groups,
        used=data.used,
        available=data.available,
        total=data.total,
        usage_percentage=percent(data.used, data.total),
        fsid=status.fsid,
    )
