"""Pools."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state import measure
from proxmox_client.emulator.state.jobs import Pool
from proxmox_client.emulator.views.storage import storage_status


@route("GET", "/pools")
def pools(call: Call) -> list[dict[str, Any]]:
    """GET /pools; with poolid, that one with its members."""
    if wanted := call.get("poolid"):
        return [_details(call, _find(call, wanted))]
    return [
        {"poolid": pool.poolid, **({"comment": pool.comment} if pool.comment else {})}
        for pool in call.state.pools.values()
        if call.rights.has(f"/pool/{pool.poolid}", "Pool.Audit")
    ]


@route("GET", "/pools/{poolid}")
def pool(call: Call) -> dict[str, Any]:
    """GET /pools/{poolid}."""
    return _details(call, _find(call, call.params["poolid"]))


@route("POST", "/pools")
def create(call: Call) -> None:
    """POST /pools."""
    name = call.params["poolid"]
    if name in call.state.pools:
        raise ApiError(f"create pool failed: pool '{name}' already exists")
    call.state.pools[name] = Pool(name, call.get("comment", ""))


@route("PUT", "/pools", "/pools/{poolid}")
def update(call: Call) -> None:
    """PUT /pools and /pools/{poolid}."""
    found = _find(call, call.params["poolid"])
    found.comment = call.get("comment", found.comment)
    vmids = {int(vmid) for vmid in str(call.get("vms", "")).split(",") if vmid}
    storages = {name for name in str(call.get("storage", "")).split(",") if name}
    if call.get("delete"):
        found.vmids -= vmids
        found.storages -= storages
    else:
        for vmid in vmids:
            _add(call, found, vmid)
        found.storages |= storages
    for vmid in vmids & call.state.guests.keys():
        call.state.guests[vmid].touch()
    call.state.changed()


@route("DELETE", "/pools", "/pools/{poolid}")
def delete(call: Call) -> None:
    """DELETE /pools and /pools/{poolid}."""
    found = _find(call, call.params["poolid"])
    if found.vmids or found.storages:
        what = f"VM {min(found.vmids)}" if found.vmids else f"storage '{min(found.storages)}'"
        problem = f"pool '{found.poolid}' is not empty (contains {what})"
        raise ApiError(f"delete pool failed: {problem}")
    del call.state.pools[found.poolid]


def _add(call: Call, pool: Pool, vmid: int) -> None:
    if vmid not in call.state.guests:
        raise ApiError(f"update pools failed: VM {vmid} does not exist")
    other = call.state.pool_of(vmid)
    if other not in ("", pool.poolid):
        if not call.get("allow-move"):
            raise ApiError(f"update pools failed: VM {vmid} already in pool '{other}'")
        call.state.pools[other].vmids.discard(vmid)
    pool.vmids.add(vmid)


def _find(call: Call, name: str) -> Pool:
    if name not in call.state.pools:
        raise ApiError(f"pool '{name}' does not exist")
    return call.state.pools[name]


def _details(call: Call, pool: Pool) -> dict[str, Any]:
    state = call.state
    members: list[dict[str, Any]] = [
        measure.fixed(state.guests[vmid], state)
        | measure.moving(state.guests[vmid], state, call.now)
        for vmid in sorted(pool.vmids & state.guests.keys())
    ]
    members = [{key: value for key, value in row.items() if key != "tags"} for row in members]
    for name in sorted(pool.storages & state.storages.keys()):
        node = call.here.name
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
    shown = {"poolid": pool.poolid, "members": members}
    return shown | ({"comment": pool.comment} if pool.comment else {})
