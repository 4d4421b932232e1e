"""The privileges of a cluster's Proxmox account."""

from typing import Annotated, ClassVar

from proxmox_client.properties import whole_number
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.reach import Reach
from pvemcp_server.tables.registry import Cost, LoadRequest, table
from pvemcp_server.tables.rows import Col, Row


class Permission(Row):
    """A privilege of this server's account on a path."""

    minimal: ClassVar[tuple[str, ...]] = ("path", "privilege", "propagate")

    path: Annotated[str, Col("Where: /, /vms/100, /storage/nfs, /nodes/pve1, /pool/web …")]
    privilege: Annotated[str, Col("Privilege: VM.Audit, VM.PowerMgmt, Datastore.Allocate …")]
    propagate: Annotated[bool, Col("Whether it also holds below the path")]
    account: Annotated[str, Col("User or API token that this server uses")]


def covers_path(reach: Reach, path: str) -> bool:
    """Return whether it is the path of a visible resource; others need a scope of everything."""
    area, _, name = path.strip("/").partition("/")
    match area:
        case "vms":
            return (vmid := whole_number(name)) is not None and reach.guest(vmid)
        case "nodes":
            return bool(name) and reach.node(name)
        case "storage":
            return bool(name) and reach.storage(name)
        case "pool":
            return bool(name) and reach.scope.covers_pool(name)
        case _:
            return False


def _covered(reach: Reach, row: Permission) -> Permission | None:
    return row if covers_path(reach, row.path) else None


@table("permissions", tool="ExplainAccess", cost=Cost.ONE, covered=_covered)
async def permissions(cluster: Cluster, _request: LoadRequest) -> list[Permission]:
    """Privileges of this server's own account, by path."""
    permissions = await cluster.pve.access.permissions()
    cluster.notes.add(
        f"Privileges of {cluster.account}, the account of this server on {cluster.name}; the table "
        "acl has those of users."
    )
    return [
        Permission(path=path, privilege=privilege, propagate=propagate, account=cluster.account)
        for path, privileges in sorted(permissions.items())
        for privilege, propagate in sorted(privileges.items())
    ]
