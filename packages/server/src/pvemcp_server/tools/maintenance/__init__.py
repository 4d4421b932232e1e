"""The tool CheckMaintenance."""

from pvemcp_server.tools.maintenance import maintenance

__all__ = ["maintenance"]
