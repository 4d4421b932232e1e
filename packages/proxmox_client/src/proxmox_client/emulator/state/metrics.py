"""Metrics of guests and nodes at a time."""

from typing import Any, Final

from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.load import STEP, Load
from proxmox_client.emulator.state.node import Node

GUEST_METRICS: Final = (
    *("uptime", "cpu", "mem", "memhost", "disk"),
    *("netin", "netout", "diskread", "diskwrite"),
)


def guest_attributes(guest: Guest, state: ClusterState) -> dict[str, Any]:
    """Return the fields of a guest's resource row that do not depend on the time."""
    row: dict[str, Any] = {
        "id": f"{guest.kind}/{guest.vmid}",
        "vmid": guest.vmid,
        "type": guest.kind.value,
        "name": guest.name,
        "node": guest.node,
        "template": int(guest.template),
        "maxcpu": state.cpus_of(guest),
        "maxmem": guest.memory,
        "maxdisk": guest.disk_size,
    }
    return row | guest_labels(guest, state)


def guest_labels(guest: Guest, state: ClusterState) -> dict[str, Any]:
    """Return the fields of a guest's resource row that come from configuration files alone."""
    extra = {"tags": guest.config.get("tags"), "lock": guest.lock}
    if resource := state.ha_of(guest):
        extra["hastate"] = resource.state
    return {key: value for key, value in extra.items() if value}


def guest_metrics(guest: Guest, state: ClusterState, now: float) -> dict[str, Any]:
    """Return the fields of a guest's resource row that are measured."""
    row = guest_usage(guest, now)
    row["status"] = guest.status
    if state.release < (9, 0):
        row.pop("memhost")
    return row


def guest_usage(guest: Guest, now: float) -> dict[str, Any]:
    """Return a guest's usage; the counters are bytes since its start."""
    if not guest.running:
        return dict.fromkeys(GUEST_METRICS, 0)
    load, uptime = guest.load, guest.uptime(now)
    cpu, share = load.usage_at(now)
    size, disk = guest.sizes
    memory = int(size * share)
    is_container = guest.kind is Kind.LXC
    return {
        "uptime": uptime,
        "cpu": 0 if guest.paused else cpu,
        "mem": memory,
        "memhost": 0 if is_container else int(memory * 1.04),
        "disk": int(disk * guest.disk_used) if is_container else 0,
        "netin": int(load.net_in * uptime),
        "netout": int(load.net_out * uptime),
        "diskread": int(load.disk_read * uptime),
        "diskwrite": int(load.disk_write * uptime),
    }


def node_metrics(node: Node, state: ClusterState, receiver: Node, now: float) -> dict[str, Any]:
    """Return a node's size and usage as the receiving node has them.

    An offline node has its size only, and a node without statistics nothing.
    """
    if not node.has_statistics(receiver, now):
        return {}
    size = {"maxcpu": node.cpus, "maxmem": node.memory, "maxdisk": node.root_total}
    if not node.is_member:
        return size
    load = node_load(node, state)
    return size | {
        "cpu": load.cpu_at(now),
        "mem": int(node.memory * load.memory_at(now)),
        "disk": int(node.root_total * node.root_used),
        "uptime": int(now - node.booted),
    }


def node_load(node: Node, state: ClusterState) -> Load:
    """Return the load of a node, as last measured."""
    tick = int(state.now) // STEP
    if state.measured is None or state.measured[0] != tick:
        state.measured = (tick, _all_loads(state))
    return state.measured[1].get(node.name, node.load)


def _all_loads(state: ClusterState) -> dict[str, Load]:
    running: dict[str, list[Guest]] = {name: [] for name in state.nodes}
    for guest in state.guests.values():
        if guest.running and guest.node in running:
            running[guest.node].append(guest)
    return {name: _load(state.nodes[name], guests) for name, guests in running.items()}


def _load(node: Node, running: list[Guest]) -> Load:
    """Return the load of a node: its own and that of its running guests."""
    own = node.load
    cpu = own.cpu + sum(guest.load.cpu * guest.cpus(node.cpus) for guest in running) / node.cpus
    memory = own.memory + sum(guest.load.memory * guest.memory for guest in running) / node.memory
    return Load(
        phase=own.phase,
        cpu=min(0.97, cpu),
        swing=own.swing,
        memory=min(0.96, memory),
        net_in=own.net_in + sum(guest.load.net_in for guest in running),
        net_out=own.net_out + sum(guest.load.net_out for guest in running),
        disk_read=own.disk_read,
        disk_write=own.disk_write,
        pressure=own.pressure,
    )
