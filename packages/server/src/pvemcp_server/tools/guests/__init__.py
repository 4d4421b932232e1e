"""Tools for virtual machines and containers."""

from pvemcp_server.tools.guests import (
    clone,
    config,
    deletion,
    explanation,
    migration,
    power,
    snapshots,
    status,
    vms,
)

__all__ = [
    "clone",
    "config",
    "deletion",
    "explanation",
    "migration",
    "power",
    "snapshots",
    "status",
    "vms",
]
