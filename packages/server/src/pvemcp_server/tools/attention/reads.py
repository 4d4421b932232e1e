"""The parts of tables that checks read; each is loaded once per cluster."""

from datetime import datetime, timedelta

from pvemcp_server import tables
from pvemcp_server.clusters import Cluster
from pvemcp_server.settings import Values
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.tools.attention.model import Read


async def _offline_nodes(cluster: Cluster, _limits: Values, _now: datetime) -> LoadRequest | None:
    """Ask for the last record of nodes that are offline, in hours and in weeks before."""
    offline = (await cluster.inventory_view()).offline_nodes
    frames = frozenset({"day", "month"})
    return LoadRequest(nodes=offline, frames=frames) if offline else None


async def _month(_cluster: Cluster, _limits: Values, _now: datetime) -> LoadRequest:
    return LoadRequest(frames=frozenset({"month"}))


async def _failed_lately(_cluster: Cluster, limits: Values, now: datetime) -> LoadRequest:
    since = now - timedelta(hours=limits.attention_task_hours)
    return LoadRequest(status=frozenset({"error"}), since=since)


CLUSTERS = Read(tables.clusters, ("reachable", "quorate", "last_seen"))
NODES = Read(
    tables.nodes,
    (
        *("node", "status", "memory_usage_percentage", "disk_usage_percentage"),
        *("cpu_total", "memory_usage", "memory_total"),
    ),
)
LAST_SEEN = Read(tables.node_metrics, ("node", "latest_time"), _offline_nodes)
SERVICES = Read(tables.services, ("node", "service", "running", "state", "active_state"))
CLOCKS = Read(tables.clocks, ("node", "offset", "uncertainty"))
HA_RESOURCES = Read(tables.ha_resources, ("sid", "vmid", "node", "state"))
CEPH = Read(tables.ceph_health, ("status", "checks"))
DISKS = Read(tables.node_disks, ("node", "device", "health", "wearout"))
ZFS_POOLS = Read(tables.zfs_pools, ("node", "name", "health"))
SMART = Read(
    tables.smart,
    (
        *("node", "device", "percentage_used", "reallocated_sectors", "pending_sectors"),
        *("media_errors", "critical_warning", "failing"),
    ),
)
STORAGES = Read(
    tables.storages,
    (
        *("storage", "node", "type", "shared", "is_available", "is_primary"),
        "disk_usage_percentage",
    ),
)
GROWTH = Read(tables.storage_metrics, ("storage", "node", "shared", "full_on"), _month)
GUESTS = Read(tables.guests, ("vmid", "node", "status", "is_template", "cpu_count", "memory_max"))
COVERAGE = Read(
    tables.backup_coverage,
    (
        *("vmid", "vm_name", "is_template", "backups", "last_backup", "last_backup_age"),
        *("last_backup_storage", "last_verified_backup", "last_verified_backup_age"),
    ),
)
BACKUP_JOBS = Read(tables.backup_jobs, ("id", "last_run", "last_run_ok", "last_run_status"))
REPLICATIONS = Read(tables.replications, ("id", "last_sync", "next_sync", "fail_count", "error"))
TASKS = Read(tables.tasks, ("type", "outcome", "start_time"), _failed_lately)
SNAPSHOTS = Read(tables.snapshots, ("vmid", "name", "date", "state"))
CERTIFICATES = Read(tables.certificates, ("node", "filename", "not_after", "days_left"))
SUBSCRIPTIONS = Read(tables.subscriptions, ("node", "status", "next_due", "days_left"))
UPDATES = Read(tables.updates, ("node", "package"))
VERSIONS = Read(tables.node_versions, ("node", "pve_version", "kernel", "reboot_needed"))
ADDRESSES = Read(tables.addresses, ("vmid", "vm_name", "type", "problem"))
DATASTORES = Read(tables.pbs_datastores, ("datastore", "disk_usage_percentage", "full_on", "error"))
SERVER_JOBS = Read(
    tables.pbs_jobs, ("type", "id", "datastore", "last_run", "last_run_ok", "last_run_status")
)
SERVER_SNAPSHOTS = Read(
    tables.pbs_snapshots,
    (
        *("datastore", "namespace", "backup_type", "backup_id", "backup_time"),
        *("verification", "verification_time", "verification_age"),
    ),
)
