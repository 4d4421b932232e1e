"""Nodes: list, status, time, DNS, disks, network and configuration."""

from typing import Any

from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state import metrics
from proxmox_client.emulator.state.cluster import RELEASES
from proxmox_client.emulator.state.node import Node, PhysicalDisk


@route("GET", "/nodes")
def nodes(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes."""
    rows, receiver = [], request.local_node
    for node in request.state.nodes.values():
        row: dict[str, Any] = {
            "node": node.name,
            "id": node.id,
            "type": "node",
            "status": node.status(receiver, request.now),
            "ssl_fingerprint": node.fingerprint,
        }
        if node.has_statistics(receiver, request.now):
            row["level"] = ""
        if request.rights.has(node.path, "Sys.Audit"):
            row |= metrics.node_metrics(node, request.state, receiver, request.now)
        rows.append(row)
    return rows


@route("GET", "/nodes/{node}/status")
def status(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/status."""
    node, now = request.node, request.now
    load = metrics.node_load(node, request.state)
    used, root = int(node.memory * load.memory_at(now)), int(node.root_total * node.root_used)
    cpu = load.cpu_at(now)
    memory = {"total": node.memory, "used": used, "free": int((node.memory - used) * 0.7)}
    if request.state.release >= (9, 0):
        memory["available"] = node.memory - used
    number, repository = RELEASES[request.state.version]
    build = "#1 SMP PREEMPT_DYNAMIC PMX"
    return {
        "pveversion": f"pve-manager/{number}/{repository}",
        "kversion": f"Linux {node.kernel} {build}",
        "current-kernel": {
            "sysname": "Linux",
            "release": node.kernel,
            "version": build,
            "machine": "x86_64",
        },
        "uptime": int(now - node.booted),
        "cpu": cpu,
        "wait": load.pressure_at(now) / 400,
        "idle": 0,
        "loadavg": [f"{cpu * node.cpus * factor:.2f}" for factor in (1.05, 1.0, 0.95)],
        "cpuinfo": _cpu(node, request.state.release),
        "memory": memory,
        "swap": {"total": node.swap, "used": 0, "free": node.swap},
        "rootfs": {
            "total": node.root_total,
            "used": root,
            "free": node.root_total - root,
            "avail": int((node.root_total - root) * 0.95),
        },
        "ksm": {"shared": 0},
        "boot-info": {"mode": "efi", "secureboot": 0},
    }


def _cpu(node: Node, release: tuple[int, int]) -> dict[str, Any]:
    vendor = "AuthenticAMD" if "AMD" in node.cpu_model else "GenuineIntel"
    since_9 = {"vendor": vendor, "family": "25"} if release >= (9, 0) else {}
    return {
        "model": node.cpu_model,
        **since_9,
        "sockets": node.sockets,
        "cores": max(1, node.cpus // node.sockets // 2),
        "cpus": node.cpus,
        "mhz": "2994.374",
        "hvm": "1",
        "user_hz": 100,
        "flags": "fpu vme de pse tsc msr pae cx8 apic sse sse2 ht lm svm aes avx avx2",
    }


@route("GET", "/nodes/{node}/time")
def time(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/time."""
    return {"time": int(request.now), "localtime": int(request.now), "timezone": "Etc/UTC"}


@route("GET", "/nodes/{node}/dns")
def dns(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/dns."""
    return {"dns1": "10.20.0.1", "search": f"{request.state.name}.example.test"}


@route("GET", "/nodes/{node}/disks/list")
def disks(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/disks/list."""
    return [_disk(disk) for disk in request.node.disks]


def _disk(disk: PhysicalDisk) -> dict[str, Any]:
    return {
        "devpath": disk.device,
        "type": disk.kind,
        "size": disk.size,
        "model": disk.model,
        "serial": disk.serial,
        "vendor": disk.vendor,
        "health": disk.health,
        "wearout": disk.wearout,
        "rpm": disk.rpm,
        "used": disk.used,
        "gpt": 1,
        "osdid": -1,
        "osdid-list": None,
        "wwn": "unknown",
        "mounted": int(disk.used == "mounted"),
    }


@route("GET", "/nodes/{node}/disks/zfs")
def zfs_pools(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/disks/zfs: one pool for each ZFS storage; a failed disk degrades it."""
    node = request.node
    failed = any(disk.health == "FAILED" for disk in node.disks)
    return [
        {
            "name": str(storage.options.get("pool", storage.name)).partition("/")[0],
            "size": storage.total,
            "alloc": storage.used(node.name),
            "free": storage.total - storage.used(node.name),
            "frag": 12,
            "dedup": 1,
            "health": "DEGRADED" if failed else "ONLINE",
        }
        for storage in request.state.storages_on(node.name)
        if storage.type == "zfspool"
    ]


@route("GET", "/nodes/{node}/hardware/pci")
def pci_devices(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/hardware/pci."""
    return [dict(device) for device in request.node.pci_devices]


@route("GET", "/nodes/{node}/network")
def network(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /nodes/{node}/network, with type those of a type."""
    address = request.node.address
    before_9 = {} if request.state.release >= (9, 0) else {"exists": 1}
    interfaces: list[dict[str, Any]] = [
        {
            "iface": "vmbr0",
            "type": "bridge",
            "method": "static",
            "method6": "manual",
            "families": ["inet"],
            "address": address,
            "netmask": "24",
            "cidr": f"{address}/24",
            "gateway": f"{address.rpartition('.')[0]}.254",
            "bridge_ports": "eno1",
            "bridge_stp": "off",
            "bridge_fd": "0",
            "active": 1,
            "autostart": 1,
            "priority": 4,
        },
        {
            "iface": "eno1",
            "type": "eth",
            "method": "manual",
            "method6": "manual",
            "families": ["inet"],
            "active": 1,
            "priority": 3,
            **before_9,
        },
    ]
    kind = str(request.get("type", "")).removeprefix("any_").removeprefix("local_")
    return [each for each in interfaces if kind in ("", each["type"])]


@route("GET", "/nodes/{node}/config")
def node_config(request: ApiRequest) -> dict[str, Any]:
    """GET /nodes/{node}/config."""
    return dict(request.node.config)
