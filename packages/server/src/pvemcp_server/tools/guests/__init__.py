"""Tools for virtual machines and containers."""

from pvemcp_server.tools.guests import config, migration, power, snapshots, status, vms

__all__ = ["config", "migration", "power", "snapshots", "status", "vms"]
