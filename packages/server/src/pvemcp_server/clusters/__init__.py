"""Clusters: connections, the shared inventory, and each caller's view of them."""

from pvemcp_server.clusters.checks import Check, check
from pvemcp_server.clusters.cluster import (
    Cluster,
    Notes,
    is_backup_server,
    offload,
    outcome_of,
)
from pvemcp_server.clusters.connections import Clusters
from pvemcp_server.clusters.explain import explain, reason_of
from pvemcp_server.clusters.inventory import Inventory, InventoryView

__all__ = [
    "Check",
    "Cluster",
    "Clusters",
    "Inventory",
    "InventoryView",
    "Notes",
    "check",
    "explain",
    "is_backup_server",
    "offload",
    "outcome_of",
    "reason_of",
]
