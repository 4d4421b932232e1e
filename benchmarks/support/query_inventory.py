"""A fixed inventory of guests and nodes, in Proxmox's types, for the query benchmark."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime

from proxmox_client.api.resources import LxcResource, NodeResource, QemuResource
from pvemcp_server.clusters import InventoryView

ROLES = ("web", "db", "mail", "proxy", "build", "backup", "monitor", "git", "wiki", "dns")
TAGS = ("", "", "prod", "test", "prod;web", "prod;db", "lab")
POOLS = (None, "production", "staging", "lab")
GIB = 2**30
NODES = 32


def inventory_view(guests: int) -> InventoryView:
    """Return the inventory of a cluster with that many guests."""
    source = random.Random(4_711)
    nodes = tuple(_node(source, number) for number in range(NODES))
    return InventoryView(
        taken=0.0,
        taken_at=datetime(2026, 11, 22, tzinfo=UTC),
        guests=tuple(_guest(source, 100 + number, nodes) for number in range(guests)),
        nodes=nodes,
        storages=(),
        pools=(),
    )


def _node(source: random.Random, number: int) -> NodeResource:
    return NodeResource(
        node=f"pve{number:02}",
        status="online",
        uptime=source.randrange(10**7),
        cpu=source.random(),
        cpu_count=64,
        memory=source.randrange(64, 512) * GIB,
        memory_max=512 * GIB,
        disk=50 * GIB,
        disk_max=100 * GIB,
    )


def _guest(
    source: random.Random, vmid: int, nodes: Sequence[NodeResource]
) -> QemuResource | LxcResource:
    running = source.random() < 0.8
    memory = source.choice((1, 2, 4, 8, 16)) * GIB
    kind = source.choice((QemuResource, QemuResource, LxcResource))
    return kind(
        vmid=vmid,
        node=source.choice(nodes).node,
        name=f"{source.choice(ROLES)}-{vmid}",
        status="running" if running else "stopped",
        tags=source.choice(TAGS),
        pool=source.choice(POOLS),
        uptime=source.randrange(10**7) if running else 0,
        cpu=source.betavariate(1, 4) if running else 0.0,
        cpu_count=source.choice((1, 2, 4, 8)),
        memory=source.randrange(memory) if running else 0,
        memory_max=memory,
        disk=0,
        disk_max=source.choice((8, 32, 64)) * GIB,
        disk_read=source.randrange(10**12),
        disk_write=source.randrange(10**12),
        network_in=source.randrange(10**12),
        network_out=source.randrange(10**12),
    )
