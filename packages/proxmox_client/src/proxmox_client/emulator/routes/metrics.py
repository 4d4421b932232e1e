"""The export of metrics: what pvestatd measured last, and for half an hour before."""

from collections.abc import Iterator
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state import metrics
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.load import STEP
from proxmox_client.emulator.state.node import Node

GENERATIONS: Final = 180
"""Measurements that each node keeps."""

COUNTERS: Final = frozenset({"net_in", "net_out", "disk_read", "disk_write"})

Values = dict[str, float]


@route("GET", "/cluster/metrics/export")
def export(request: ApiRequest) -> dict[str, list[dict[str, Any]]]:
    """GET /cluster/metrics/export."""
    state, names = request.state, list(request.state.nodes)
    if picked := request.get("node-list"):
        names = [name.strip() for name in picked.split(",")]
        if unknown := [name for name in names if name not in state.nodes]:
            raise ApiError(f"Requested node-list contains unknown nodes - {', '.join(unknown)}")
    if request.get("local-only"):
        names = [request.local_node.name]
    nodes = [state.nodes[name] for name in names if state.nodes[name].online]
    generations = GENERATIONS if request.get("history") else 1
    since = request.get("start-time", 0)
    rows = [row for node in nodes for row in _samples(state, node, generations, since)]
    return {"data": sorted(rows, key=lambda row: row["timestamp"])}


def _samples(
    state: ClusterState, node: Node, generations: int, since: int
) -> Iterator[dict[str, Any]]:
    newest = int(state.now + node.skew) // STEP * STEP
    for generation in range(generations):
        time = newest - generation * STEP
        if time <= since:
            return
        for id_, values in _measured(state, node, time - node.skew):
            for metric, value in values.items():
                kind = "derive" if metric in COUNTERS else "gauge"
                yield {
                    "id": id_, "metric": metric, "type": kind, "timestamp": time, "value": value
                }  # fmt: skip


def _measured(state: ClusterState, node: Node, when: float) -> Iterator[tuple[str, Values]]:
    """Return the values of a node, its guests and its storages at a time."""
    load, uptime = metrics.node_load(node, state), max(0, when - node.booted)
    cpu, memory = load.usage_at(when)
    yield (
        node.id,
        {
            "uptime": int(uptime),
            "net_in": int((load.net_in + 9000) * uptime),
            "net_out": int((load.net_out + 12000) * uptime),
            **dict.fromkeys(("cpu_avg1", "cpu_avg5", "cpu_avg15"), round(cpu * node.cpus, 2)),
            "cpu_max": node.cpus,
            "cpu_current": cpu,
            "cpu_iowait": load.pressure_at(when) / 400,
            "mem_total": node.memory,
            "mem_used": int(node.memory * memory),
            "swap_total": node.swap,
            "swap_used": 0,
            "disk_total": node.root_total,
            "disk_used": int(node.root_total * node.root_used),
        },
    )
    for guest in state.guests_on(node.name):
        size, disk = guest.sizes
        usage = metrics.guest_usage(guest, when)
        values: Values = {"cpu_max": guest.cpus(node.cpus), "mem_total": size, "disk_total": disk}
        if guest.running:
            values |= {
                "cpu_current": usage["cpu"],
                "mem_used": usage["mem"],
                "disk_read": usage["diskread"],
                "disk_write": usage["diskwrite"],
                "net_in": usage["netin"],
                "net_out": usage["netout"],
            }
        yield f"{guest.kind}/{guest.vmid}", values | {"uptime": usage["uptime"]}
    for name, storage in state.storages.items():
        if storage.on(node.name) and not storage.failure_on(node.name):
            used = storage.used(node.name)
            yield f"storage/{node.name}/{name}", {"disk_total": storage.total, "disk_used": used}
