"""Tools for virtual machines and containers."""

from pvemcp_server.tools.guests import (
    config,
    explanation,
    locks,
    migration,
    power,
    snapshots,
    status,
    vms,
)

__all__ = ["config", "explanation", "locks", "migration", "power", "snapshots", "status", "vms"]
