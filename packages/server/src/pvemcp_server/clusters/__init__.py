"""Opens clusters for callers: connections, shared inventory, and what a caller reaches of them."""

from pvemcp_server.clusters.aside import aside
from pvemcp_server.clusters.checks import Check, check
from pvemcp_server.clusters.cluster import Cluster
from pvemcp_server.clusters.connections import Clusters
from pvemcp_server.clusters.explain import explain
from pvemcp_server.clusters.inventory import Inventory, Snapshot
from pvemcp_server.clusters.notes import Notes

__all__ = [
    "Check",
    "Cluster",
    "Clusters",
    "Inventory",
    "Notes",
    "Snapshot",
    "aside",
    "check",
    "explain",
]
