"""Fixed inventory of virtual machines with unrounded values, like those from Proxmox."""

import random
from typing import Any

MINIMAL = ("vmid", "name", "node", "status", "type", "tags")
ROLES = ("web", "db", "mail", "proxy", "build", "backup", "monitor", "git", "wiki", "dns")
TAGS = (None, None, "prod", "test", "prod;web", "prod;db", "lab")
GIB = 2**30


def vm_rows(count: int) -> list[dict[str, Any]]:
    """Return the first rows of the inventory, with 19 fields each."""
    source = random.Random(9_006)
    return [_row(source, number) for number in range(count)]


def minimal(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the six default fields of ListVms."""
    return [{name: row[name] for name in MINIMAL} for row in rows]


def _row(source: random.Random, number: int) -> dict[str, Any]:
    running = source.random() < 0.8
    memory_max = source.choice((1, 2, 4, 8, 16)) * GIB
    memory = source.randrange(memory_max // 5, memory_max) if running else 0
    counters = [source.randrange(10**6, 10**11) if running else 0 for _ in range(4)]
    return {
        "vmid": 100 + number,
        "name": f"{source.choice(ROLES)}-{number:02}",
        "node": f"pve{source.randrange(1, 6)}",
        "status": "running" if running else "stopped",
        "type": source.choice(("qemu", "qemu", "lxc")),
        "tags": source.choice(TAGS),
        "is_template": False,
        "uptime": source.randrange(60, 10**7) if running else 0,
        "cpu_usage": source.betavariate(1, 8) * 100 if running else 0.0,
        "cpu_count": source.choice((1, 2, 4, 8)),
        "memory_usage": memory,
        "memory_max": memory_max,
        "memory_usage_percentage": memory / memory_max * 100,
        "disk_usage": 0,
        "disk_max": source.choice((8, 16, 32, 64, 100)) * GIB,
        **dict(
            zip(("disk_read", "disk_write", "network_in", "network_out"), counters, strict=True)
        ),
    }
