"""Resource pools."""

from typing import Annotated, ClassVar

from msgspec.structs import replace

from proxmox_client.api.pools import Pool as PoolAnswer
from proxmox_client.api.pools import PoolMember
from proxmox_client.properties import whole_number
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.reach import Reach
from pvemcp_server.tables.registry import Cost, LoadRequest, made, table
from pvemcp_server.tables.rows import Col, Row, Unit


class Pool(Row):
    """A pool of guests and storages."""

    minimal: ClassVar[tuple[str, ...]] = ("poolid", "description", "members")

    poolid: Annotated[str, Col("Name", aliases=("name", "pool"))]
    description: Annotated[str | None, Col("Comment")]
    members: Annotated[list[str], Col("Guests (qemu/100, lxc/200) and storages (storage/pve1/nfs)")]
    guest_count: Annotated[int, Col("Guests in it", Unit.COUNT)]
    storage_count: Annotated[int, Col("Storages in it", Unit.COUNT)]


def _covered(reach: Reach, row: Pool) -> Pool | None:
    """Return a visible pool with its visible members only."""
    if not reach.scope.covers_pool(row.poolid):
        return None
    return _counted(row, [member for member in row.members if _covers_member(reach, member)])


def _covers_member(reach: Reach, member: str) -> bool:
    kind, *rest = member.split("/")
    if kind == "storage":
        return reach.storage(rest[-1], rest[0])
    return reach.guest(whole_number(rest[0])) or reach.scope.everything


@table("pools", tool="ListPools", cost=Cost.ONE, covered=_covered)
async def pools(cluster: Cluster, request: LoadRequest) -> list[Pool]:
    """Resource pools and what is in them; members take a call per pool."""
    visible = {pool.pool for pool in (await cluster.inventory_view()).pools}
    every = [pool for pool in await cluster.pve.pools() if pool.pool_id in visible]
    detailed: dict[str, PoolAnswer] = {}
    if request.wants_column("members", "guest_count", "storage_count"):
        names = [pool.pool_id for pool in every]
        detailed = await fanout.each(cluster, names, cluster.pve.pool, request, "pool")
    return await made(cluster, every, lambda pool: [_row(pool, detailed.get(pool.pool_id, pool))])


def _row(pool: PoolAnswer, detailed: PoolAnswer) -> Pool:
    empty = Pool(
        poolid=pool.pool_id,
        description=pool.comment or None,
        members=[],
        guest_count=0,
        storage_count=0,
    )
    return _counted(empty, sorted({_name(member) for member in detailed.members}))


def _counted(row: Pool, members: list[str]) -> Pool:
    storages = sum(1 for member in members if member.startswith("storage/"))
    return replace(
        row, members=members, guest_count=len(members) - storages, storage_count=storages
    )


def _name(member: PoolMember) -> str:
    if member.storage is not None:
        return f"storage/{member.node}/{member.storage}"
    return f"{member.type}/{member.vmid}"
