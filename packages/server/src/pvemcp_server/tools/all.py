"""Import this module to declare every tool."""

from pvemcp_server.tools import (
    access,
    api,
    attention,
    cluster,
    guests,
    maintenance,
    metrics,
    nodes,
    query,
    storage,
    undo,
)

__all__ = [
    "access",
    "api",
    "attention",
    "cluster",
    "guests",
    "maintenance",
    "metrics",
    "nodes",
    "query",
    "storage",
    "undo",
]
