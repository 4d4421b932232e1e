"""Import this module to declare every tool."""

from pvemcp_server.tools import access, api, cluster, guests, metrics, nodes, query, storage

__all__ = ["access", "api", "cluster", "guests", "metrics", "nodes", "query", "storage"]
