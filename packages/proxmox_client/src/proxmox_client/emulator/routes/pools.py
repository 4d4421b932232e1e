"""Pools of guests and storages."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.serializers.storage import storage_status
from proxmox_client.emulator.state import metrics
from proxmox_client.emulator.state.jobs import Pool


@route("GET", "/pools")
def list_pools(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /pools; with poolid, the details of that pool."""
    if poolid := request.get("poolid"):
        return [_details(request, _find(request, poolid))]
    return [
        {"poolid": pool.poolid, **({"comment": pool.comment} if pool.comment else {})}
        for pool in request.state.pools.values()
        if request.rights.has(f"/pool/{pool.poolid}", "Pool.Audit")
    ]


@route("GET", "/pools/{poolid}")
def get_pool(request: ApiRequest) -> dict[str, Any]:
    """GET /pools/{poolid}."""
    return _details(request, _find(request, request.params["poolid"]))


@route("POST", "/pools")
def create(request: ApiRequest) -> None:
    """POST /pools."""
    name = request.params["poolid"]
    if name in request.state.pools:
        raise ApiError(f"create pool failed: pool '{name}' already exists")
    request.state.pools[name] = Pool(name, request.get("comment", ""))


@route("PUT", "/pools", "/pools/{poolid}")
def update(request: ApiRequest) -> None:
    """PUT /pools and /pools/{poolid}."""
    pool = _find(request, request.params["poolid"])
    pool.comment = request.get("comment", pool.comment)
    vmids = {int(vmid) for vmid in str(request.get("vms", "")).split(",") if vmid}
    storages = {name for name in str(request.get("storage", "")).split(",") if name}
    _require_members(pool, vmids, storages, removed=bool(request.get("delete")))
    if request.get("delete"):
        pool.vmids -= vmids
        pool.storages -= storages
    else:
        for vmid in vmids:
            _add(request, pool, vmid)
        pool.storages |= storages
    for vmid in vmids & request.state.guests.keys():
        request.state.guests[vmid].touch()


@route("DELETE", "/pools", "/pools/{poolid}")
def delete(request: ApiRequest) -> None:
    """DELETE /pools and /pools/{poolid}."""
    pool = _find(request, request.params["poolid"])
    if pool.vmids or pool.storages:
        member = f"VM {min(pool.vmids)}" if pool.vmids else f"storage '{min(pool.storages)}'"
        problem = f"pool '{pool.poolid}' is not empty (contains {member})"
        raise ApiError(f"delete pool failed: {problem}")
    del request.state.pools[pool.poolid]


def _require_members(pool: Pool, vmids: set[int], storages: set[str], *, removed: bool) -> None:
    """Raise ApiError for a removed one that is no member, or an added one that is."""
    names = [f"VM {vmid}" for vmid in sorted(vmids) if (vmid in pool.vmids) != removed]
    names += [
        f"Storage '{name}'" for name in sorted(storages) if (name in pool.storages) != removed
    ]
    if names:
        problem = "is not a pool member" if removed else "is already a pool member"
        raise ApiError(f"update pools failed: {names[0]} {problem}")


def _add(request: ApiRequest, pool: Pool, vmid: int) -> None:
    if vmid not in request.state.guests:
        raise ApiError(f"update pools failed: VM {vmid} does not exist")
    other = request.state.pool_of(vmid)
    if other not in ("", pool.poolid):
        if not request.get("allow-move"):
            problem = f"belongs already to pool '{other}' and 'allow-move' is not set"
            raise ApiError(f"update pools failed: VM {vmid} {problem}")
        request.state.pools[other].vmids.discard(vmid)
    pool.vmids.add(vmid)


def _find(request: ApiRequest, name: str) -> Pool:
    if name not in request.state.pools:
        raise ApiError(f"pool '{name}' does not exist")
    return request.state.pools[name]


def _details(request: ApiRequest, pool: Pool) -> dict[str, Any]:
    state = request.state
    members: list[dict[str, Any]] = [
        metrics.guest_attributes(state.guests[vmid], state)
        | metrics.guest_metrics(state.guests[vmid], state, request.now)
        for vmid in sorted(pool.vmids & state.guests.keys())
    ]
    members = [{key: value for key, value in row.items() if key != "tags"} for row in members]
    for name in sorted(pool.storages & state.storages.keys()):
        node = request.local_node.name
        status = storage_status(state.storages[name], node)
        members.append(
            {
                "id": f"storage/{node}/{name}",
                "type": "storage",
                "storage": name,
                "node": node,
                "status": "available",
                "disk": status["used"],
                "maxdisk": status["total"],
                "shared": status["shared"],
                "content": status["content"],
                "plugintype": status["type"],
            }
        )
    details = {"poolid": pool.poolid, "members": members}
    return details | ({"comment": pool.comment} if pool.comment else {})
