"""Tools for virtual machines and containers."""

from pvemcp_server.tools.guests import (
    config,
    explanation,
    migration,
    power,
    snapshots,
    status,
    vms,
)

__all__ = ["config", "explanation", "migration", "power", "snapshots", "status", "vms"]
