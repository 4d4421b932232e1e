"""Tools for virtual machines and containers."""

from pvemcp_server.tools.guests import (
    clone,
    config,
    config_update,
    creation,
    deletion,
    disk_attachment,
    disks,
    explanation,
    locks,
    migration,
    power,
    snapshots,
    status,
    vms,
)

__all__ = [
    "clone",
    "config",
    "config_update",
    "creation",
    "deletion",
    "disk_attachment",
    "disks",
    "explanation",
    "locks",
    "migration",
    "power",
    "snapshots",
    "status",
    "vms",
]
