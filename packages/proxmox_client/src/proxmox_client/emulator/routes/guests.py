"""Lists, status, configuration and network interfaces of guests."""

from typing import Any

from proxmox_client.emulator.cluster_resources import guest_filter
from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.serializers.guests import current_status, list_row, monitor_status
from proxmox_client.emulator.state.guest import Kind
from proxmox_client.emulator.tasks.config_update import hidden


@route("GET", "/nodes/{node}/qemu", "/nodes/{node}/lxc")
def guests(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/qemu and /nodes/{node}/lxc."""
    may_see = guest_filter(request.rights, request.state)
    rows = []
    for guest in request.state.guests_on(request.node.name, request.kind):
        if may_see(guest):
            row = list_row(guest, request.state, request.now)
            if request.get("full") and guest.kind is Kind.QEMU:
                row |= monitor_status(guest, request.now)
            rows.append(row)
    return rows


@route("GET", "/nodes/{node}/qemu/{vmid}/status/current", "/nodes/{node}/lxc/{vmid}/status/current")
def status(request: ApiRequest) -> dict[str, Any]:
    """GET …/status/current."""
    return current_status(request.guest, request.state, request.now)


@route("GET", "/nodes/{node}/qemu/{vmid}/config", "/nodes/{node}/lxc/{vmid}/config")
def config(request: ApiRequest) -> dict[str, Any]:
    """GET …/config: with pending changes applied, or the running one with current=1."""
    guest = request.guest
    if request.get("snapshot") and request.get("current"):
        problem = "cannot use 'snapshot' parameter with 'current'"
        raise request.invalid(snapshot=problem, current=problem)
    if name := request.get("snapshot"):
        from_snapshot = guest.snapshots.get(name)
        if from_snapshot is None:
            raise ApiError(f"snapshot '{name}' does not exist")
        return {
            **hidden(from_snapshot.config),
            "snaptime": from_snapshot.time,
            "digest": guest.digest,
        }
    options = dict(guest.config) if request.get("current") else guest.next_config
    if guest.parent:
        options["parent"] = guest.parent
    return hidden(options) | {"digest": guest.digest}


@route("GET", "/nodes/{node}/qemu/{vmid}/pending", "/nodes/{node}/lxc/{vmid}/pending")
def pending(request: ApiRequest) -> list[dict[str, Any]]:
    """GET …/pending."""
    guest = request.guest
    options = hidden(guest.config) | {"digest": guest.digest}
    if guest.parent:
        options["parent"] = guest.parent
    rows = {key: {"key": key, "value": value} for key, value in options.items()}
    for key, value in hidden(guest.pending).items():
        rows.setdefault(key, {"key": key})["pending"] = value
    for key, removal in guest.removals.items():
        rows.setdefault(key, {"key": key})["delete"] = removal
    return list(rows.values())


@route("GET", "/nodes/{node}/lxc/{vmid}/interfaces")
def interfaces(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/lxc/{vmid}/interfaces."""
    guest = request.guest
    if not guest.running:
        return []
    hardware = next(
        (
            part[7:].lower()
            for part in str(guest.config.get("net0", "")).split(",")
            if part.startswith("hwaddr=")
        ),
        "00:00:00:00:00:00",
    )
    return [
        _interface("lo", "00:00:00:00:00:00", ("127.0.0.1",)),
        _interface("eth0", hardware, guest.addresses),
    ]


def _interface(name: str, hardware: str, addresses: tuple[str, ...]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "hwaddr": hardware,
        "hardware-address": hardware,
        "ip-addresses": [
            {"ip-address": address, "ip-address-type": "inet", "prefix": "24"}
            for address in addresses
        ],
    }
    return row | ({"inet": f"{addresses[0]}/24"} if addresses else {})
