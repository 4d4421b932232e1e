"""RRD data of nodes, guests and storages."""

from typing import Any

from proxmox_client.emulator import rrd
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.routes.power import both
from proxmox_client.emulator.routes.storage import available


@route("GET", "/nodes/{node}/rrddata")
def node_series(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/rrddata."""
    return _series(request, rrd.node_rows(request.node, request.state))


@route("GET", *both("/rrddata"))
def guest_series(request: ApiRequest) -> list[dict[str, Any]]:
    """GET …/rrddata of a guest."""
    return _series(request, rrd.guest_rows(request.guest, request.state))


@route("GET", "/nodes/{node}/storage/{storage}/rrddata")
def storage_series(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage/{storage}/rrddata."""
    storage = available(request)
    return _series(request, rrd.storage_rows(storage, request.node.name, request.state))


def _series(request: ApiRequest, row_at: rrd.RowAt) -> list[dict[str, Any]]:
    return rrd.series(
        request.state, request.params["timeframe"], request.get("cf", "AVERAGE"), row_at
    )
