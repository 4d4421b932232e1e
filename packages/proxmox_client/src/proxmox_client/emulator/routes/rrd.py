"""RRD data of nodes, guests and storages."""

from typing import Any

from proxmox_client.emulator import rrd
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.power import both


@route("GET", "/nodes/{node}/rrddata")
def node_series(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/rrddata."""
    return _series(request, rrd.node_rows(request.node, request.state))


@route("GET", *both("/rrddata"))
def guest_series(request: ApiRequest) -> list[dict[str, Any]]:
    """GET …/rrddata of a guest."""
    vmid = request.vmid
    if vmid not in request.state.guests:
        raise _no_file(request, "pve-vm", str(vmid))
    return _series(request, rrd.guest_rows(request.state.guests[vmid], request.state))


@route("GET", "/nodes/{node}/storage/{storage}/rrddata")
def storage_series(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage/{storage}/rrddata."""
    name, node = request.params["storage"], request.node.name
    storage = request.state.storages.get(name)
    if storage is None or not storage.on(node) or storage.failure_on(node):
        raise _no_file(request, "pve-storage", f"{node}/{name}")
    return _series(request, rrd.storage_rows(storage, request.node.name, request.state))


def _no_file(request: ApiRequest, kind: str, name: str) -> ApiError:
    """Return the error for an object without measurements."""
    folder = f"{kind}-9.0" if request.state.release >= (9, 0) else f"{kind.replace('-', '2-', 1)}"
    file = f"/var/lib/rrdcached/db/{folder}/{name}"
    opening = f"rrd_fetch_r failed: opening '{file}': No such file or directory"
    return ApiError(f"RRD error: rrdcached@unix:/var/run/rrdcached.sock: {opening}")


def _series(request: ApiRequest, row_at: rrd.RowAt) -> list[dict[str, Any]]:
    return rrd.series(
        request.state, request.params["timeframe"], request.get("cf", "AVERAGE"), row_at
    )
