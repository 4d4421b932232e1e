"""Import this module to declare every tool."""

from pvemcp_server.tools import access, attention, cluster, guests, metrics, nodes, query, storage

__all__ = ["access", "attention", "cluster", "guests", "metrics", "nodes", "query", "storage"]
