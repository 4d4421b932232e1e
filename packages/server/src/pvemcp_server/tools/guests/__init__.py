"""Tools for virtual machines and containers."""

from pvemcp_server.tools.guests import (
    config,
    config_update,
    disks,
    explanation,
    migration,
    power,
    snapshots,
    status,
    vms,
)

__all__ = [
    "config",
    "config_update",
    "disks",
    "explanation",
    "migration",
    "power",
    "snapshots",
    "status",
    "vms",
]
