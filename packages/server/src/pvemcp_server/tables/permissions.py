"""What the Proxmox account of a cluster may do there."""

from typing import Annotated, ClassVar

from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.reach import Reach
from pvemcp_server.tables.registry import Col, Cost, LoadRequest, Row, table


class Permission(Row):
    """A privilege of this server's account on a path."""

    minimal: ClassVar[tuple[str, ...]] = ("path", "privilege", "propagate")

    path: Annotated[str, Col("Where: /, /vms/100, /storage/nfs, /nodes/pve1, /pool/web …")]
    privilege: Annotated[str, Col("What: VM.Audit, VM.PowerMgmt, Datastore.Allocate …")]
    propagate: Annotated[bool, Col("Whether it holds for what is below the path too")]
    account: Annotated[str, Col("User or API token that this server uses")]


def _covered(reach: Reach, row: Permission) -> Permission | None:
    """Paths of single things are shown with those things, all others to who reaches all."""
    area, _, name = row.path.strip("/").partition("/")
    seen = {
        "vms": lambda: name.isdecimal() and reach.guest(int(name)),
        "nodes": lambda: bool(name) and reach.node(name),
        "storage": lambda: bool(name) and reach.storage(name),
        "pool": lambda: bool(name) and reach.scope.covers_pool(name),
    }
    return row if area in seen and seen[area]() else None


@table("permissions", tool="ExplainAccess", cost=Cost.ONE, covered=_covered)
async def permissions(cluster: Cluster, _want: LoadRequest) -> list[Permission]:
    """Privileges that this server's own account has, by path."""
    found = await cluster.pve.access.permissions()
    return [
        Permission(path=path, privilege=privilege, propagate=propagate, account=cluster.account)
        for path, privileges in sorted(found.items())
        for privilege, propagate in sorted(privileges.items())
    ]
