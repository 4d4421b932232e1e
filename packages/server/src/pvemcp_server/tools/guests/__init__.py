"""Tools for virtual machines and containers."""

from pvemcp_server.tools.guests import (
    agent,
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
    rollback,
    snapshots,
    status,
    vms,
)

__all__ = [
    "agent",
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
    "rollback",
    "snapshots",
    "status",
    "vms",
]
