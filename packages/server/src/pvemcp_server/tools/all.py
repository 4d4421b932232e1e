"""Import this module to declare every tool."""

from pvemcp_server.tools import access, cluster, guests, metrics, nodes, query, storage

__all__ = ["access", "cluster", "guests", "metrics", "nodes", "query", "storage"]
