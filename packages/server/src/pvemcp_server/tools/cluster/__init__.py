"""Tools for whole clusters."""

from pvemcp_server.tools.cluster import clusters, status

__all__ = ["clusters", "status"]
