"""Series of measurements."""

from typing import Any

from proxmox_client.emulator import rrd
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.routes.power import both
from proxmox_client.emulator.routes.storage import available


@route("GET", "/nodes/{node}/rrddata")
def node(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/rrddata."""
    return _series(call, rrd.of_node(call.node, call.state))


@route("GET", *both("/rrddata"))
def guest(call: Call) -> list[dict[str, Any]]:
    """GET …/rrddata of a guest."""
    return _series(call, rrd.of_guest(call.guest, call.state))


@route("GET", "/nodes/{node}/storage/{storage}/rrddata")
def storage(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/storage/{storage}/rrddata."""
    place = available(call)
    return _series(call, rrd.of_storage(place, call.node.name, call.state))


def _series(call: Call, row_at: rrd.RowAt) -> list[dict[str, Any]]:
    return rrd.series(call.state, call.params["timeframe"], call.get("cf", "AVERAGE"), row_at)
