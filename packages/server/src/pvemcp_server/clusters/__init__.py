"""Clusters: connections, the shared inventory, and each caller's view of them."""

from pvemcp_server.clusters.checks import Check, check
from pvemcp_server.clusters.cluster import (
    Cluster,
    Cut,
    Notes,
    backup_server_hint,
    datastores_hint,
    jobs_hint,
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
    "Cut",
    "Inventory",
    "InventoryView",
    "Notes",
    "backup_server_hint",
    "check",
    "datastores_hint",
    "explain",
    "jobs_hint",
    "offload",
    "outcome_of",
    "reason_of",
]
