"""Lists, state and configuration of guests."""

from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.resources import visibility
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.guest import Kind
from proxmox_client.emulator.views.guests import current_status, list_row, monitor


@route("GET", "/nodes/{node}/qemu", "/nodes/{node}/lxc")
def guests(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/qemu and /nodes/{node}/lxc."""
    may_see = visibility(call.rights, call.state)
    rows = []
    for guest in call.state.guests_on(call.node.name, call.kind):
        if may_see(guest):
            row = list_row(guest, call.state, call.now)
            if call.get("full") and guest.kind is Kind.QEMU:
                row |= monitor(guest, call.now)
            rows.append(row)
    return rows


@route("GET", "/nodes/{node}/qemu/{vmid}/status/current", "/nodes/{node}/lxc/{vmid}/status/current")
def status(call: Call) -> dict[str, Any]:
    """GET …/status/current."""
    return current_status(call.guest, call.state, call.now)


@route("GET", "/nodes/{node}/qemu/{vmid}/config", "/nodes/{node}/lxc/{vmid}/config")
def config(call: Call) -> dict[str, Any]:
    """GET …/config: as it will be, or with current=1 as it is."""
    guest = call.guest
    if name := call.get("snapshot"):
        from_snapshot = guest.snapshots.get(name)
        if from_snapshot is None:
            raise ApiError(f"snapshot '{name}' does not exist")
        return {**from_snapshot.config, "digest": guest.digest}
    shown = dict(guest.config) if call.get("current") else guest.next_config
    if guest.parent:
        shown["parent"] = guest.parent
    return shown | {"digest": guest.digest}


@route("GET", "/nodes/{node}/qemu/{vmid}/pending", "/nodes/{node}/lxc/{vmid}/pending")
def pending(call: Call) -> list[dict[str, Any]]:
    """GET …/pending."""
    guest = call.guest
    shown = guest.config | {"digest": guest.digest}
    if guest.parent:
        shown["parent"] = guest.parent
    rows = {key: {"key": key, "value": value} for key, value in shown.items()}
    for key, value in guest.pending.items():
        rows.setdefault(key, {"key": key})["pending"] = value
    for key, removal in guest.removals.items():
        rows.setdefault(key, {"key": key})["delete"] = removal
    return list(rows.values())


@route("GET", "/nodes/{node}/lxc/{vmid}/interfaces")
def interfaces(call: Call) -> list[dict[str, Any]]:
    """GET /nodes/{node}/lxc/{vmid}/interfaces."""
    guest = call.guest
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
    addresses = guest.agent.addresses if guest.agent else ()
    return [
        _interface("lo", "00:00:00:00:00:00", ("127.0.0.1",)),
        _interface("eth0", hardware, addresses),
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
