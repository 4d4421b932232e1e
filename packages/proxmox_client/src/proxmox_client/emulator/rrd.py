"""RRD series, computed from the load functions for any time."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from proxmox_client.emulator.state import metrics
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.load import Load, unevenness
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.state.storage import Storage

FRAMES_8: Final = {
    "hour": (60, 70),
    "day": (1800, 70),
    "week": (10800, 70),
    "month": (43200, 70),
    "year": (604800, 70),
}
"""Seconds between two rows and number of rows, by time frame."""

FRAMES_9: Final = {
    "hour": (60, 60),
    "day": (60, 1440),
    "week": (1800, 336),
    "month": (1800, 1440),
    "year": (21600, 1440),
    "decade": (604800, 570),
}
GROWTH: Final = 0.0011
"""The growth of a storage per day, of what it holds now."""

PEAK: Final = 1.25
"""The ratio of the maximum of an interval to its average."""

Row = dict[str, Any]
RowAt = Callable[[int, float], Row | None]


def times(state: ClusterState, frame: str) -> Iterator[int]:
    """Return the times of a frame's rows, the oldest first."""
    step, count = (FRAMES_9 if state.release >= (9, 0) else FRAMES_8)[frame]
    last = int(state.now) // step * step - step
    return iter(range(last - (count - 1) * step, last + 1, step))


def series(state: ClusterState, frame: str, consolidation: str, row_at: RowAt) -> list[Row]:
    """Return the rows of a time frame; a row without measurement has its time only."""
    factor = PEAK if consolidation == "MAX" else 1.0
    return [{"time": when, **(row_at(when, factor) or {})} for when in times(state, frame)]


def guest_rows(guest: Guest, state: ClusterState) -> RowAt:
    """Return the row function of a guest; it has no rows before its creation or in an outage."""
    is_new = state.release >= (9, 0)
    is_container = guest.kind is Kind.LXC

    node = state.nodes.get(guest.node)
    memory, disk_size = guest.sizes
    limits: Row = {"maxcpu": state.cpus_of(guest), "maxmem": memory, "maxdisk": disk_size}
    limits["disk"] = int(disk_size * guest.disk_used) if is_container else 0

    def row_at(when: int, factor: float) -> Row | None:
        if when < guest.created or (node and _is_lost(node, when)):
            return None
        row = dict(limits)
        if not guest.ran_at(when):
            return row
        row |= _activity(guest.load, when, factor)
        row["mem"] = memory * guest.load.memory_at(when)
        if is_new:
            row["memhost"] = 0 if is_container else row["mem"] * 1.04
            row |= _pressures(guest.load, when, factor, full_cpu=True)
        return row

    return row_at


def node_rows(node: Node, state: ClusterState) -> RowAt:
    """Return the row function of a node; it has no rows before its boot or while offline."""
    load = metrics.node_load(node, state)
    is_new = state.release >= (9, 0)

    def row_at(when: int, factor: float) -> Row | None:
        if when < node.booted or _is_lost(node, when):
            return None
        cpu = min(0.999, load.cpu_at(when) * factor)
        used = node.memory * load.memory_at(when)
        row: Row = {
            "cpu": cpu,
            "maxcpu": node.cpus,
            "loadavg": round(cpu * node.cpus * (0.9 + 0.2 * load.noise(when)), 2),
            "iowait": load.pressure_at(when) / 400,
            "memtotal": node.memory,
            "memused": used,
            "swaptotal": node.swap,
            "swapused": 0,
            "roottotal": node.root_total,
            "rootused": int(node.root_total * node.root_used),
            "netin": load.rate_at(load.net_in + 9000, when) * factor,
            "netout": load.rate_at(load.net_out + 12000, when) * factor,
        }
        if is_new:
            row |= {"memavailable": node.memory - used, "arcsize": 0}
            row |= _pressures(load, when, factor, full_cpu=False)
        return row

    return row_at


def _is_lost(node: Node, when: int) -> bool:
    """Return whether a node was offline at a time, so that nothing was recorded."""
    return not node.online and when > node.lost


def storage_rows(storage: Storage, node: str, state: ClusterState) -> RowAt:
    """Return the row function of a storage, which fills slowly up to its current usage."""
    now, used = state.now, storage.used(node)

    def row_at(when: int, _factor: float) -> Row:
        days = max(0.0, now - when) / 86400
        grown = GROWTH * days * unevenness(when, storage.name)
        return {"total": storage.total, "used": used * max(0.25, 1 - grown)}

    return row_at


def _activity(load: Load, when: int, factor: float) -> Row:
    return {
        "cpu": min(0.999, load.cpu_at(when) * factor),
        "netin": load.rate_at(load.net_in, when) * factor,
        "netout": load.rate_at(load.net_out, when) * factor,
        "diskread": load.rate_at(load.disk_read, when) * factor,
        "diskwrite": load.rate_at(load.disk_write, when) * factor,
    }


def _pressures(load: Load, when: int, factor: float, *, full_cpu: bool) -> Row:
    """Return the pressure metrics: percent of the time in which some or all tasks waited."""
    some = {
        "cpu": load.pressure_at(when),
        "io": load.pressure_at(when + 7) * 0.7,
        "memory": load.pressure_at(when + 14) * 0.15,
    }
    row: Row = {f"pressure{name}some": value * factor for name, value in some.items()}
    row |= {f"pressure{name}full": some[name] * 0.55 * factor for name in ("io", "memory")}
    return row | ({"pressurecpufull": some["cpu"] * 0.4 * factor} if full_cpu else {})
