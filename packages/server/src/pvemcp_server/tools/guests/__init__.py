"""Tools for virtual machines and containers."""

from pvemcp_server.tools.guests import backup, config, migrate, power, snapshots, status, vms

__all__ = ["backup", "config", "migrate", "power", "snapshots", "status", "vms"]
