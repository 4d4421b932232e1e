"""Tables: the rows that clusters can be read as, declared once for tools and queries."""

from pvemcp_server.tables.backup_jobs import BackupJob, backup_jobs
from pvemcp_server.tables.clusters import clusters
from pvemcp_server.tables.guest_configs import lxc_configs, qemu_configs
from pvemcp_server.tables.guest_devices import Disk, Network, disks, networks
from pvemcp_server.tables.guests import Guest, described, guests
from pvemcp_server.tables.ha import HaResource, ha_resources
from pvemcp_server.tables.metrics import guest_metrics, node_metrics
from pvemcp_server.tables.node_disks import NodeDisk, node_disks
from pvemcp_server.tables.nodes import Node, nodes
from pvemcp_server.tables.permissions import Permission, permissions
from pvemcp_server.tables.pools import Pool, pools
from pvemcp_server.tables.registry import LoadRequest, Table, load, tables
from pvemcp_server.tables.replications import Replication, replications
from pvemcp_server.tables.snapshots import Snapshot, snapshots
from pvemcp_server.tables.storage_metrics import StorageMetric, storage_metrics
from pvemcp_server.tables.storages import Storage, storages
from pvemcp_server.tables.tasks import Task, tasks
from pvemcp_server.tables.volumes import Backup, Content, backups, storage_content

__all__ = [
    "Backup",
    "BackupJob",
    "Content",
    "Disk",
    "Guest",
    "HaResource",
    "LoadRequest",
    "Network",
    "Node",
    "NodeDisk",
    "Permission",
    "Pool",
    "Replication",
    "Snapshot",
    "Storage",
    "StorageMetric",
    "Table",
    "Task",
    "backup_jobs",
    "backups",
    "clusters",
    "described",
    "disks",
    "guest_metrics",
    "guests",
    "ha_resources",
    "load",
    "lxc_configs",
    "networks",
    "node_disks",
    "node_metrics",
    "nodes",
    "permissions",
    "pools",
    "qemu_configs",
    "replications",
    "snapshots",
    "storage_content",
    "storage_metrics",
    "storages",
    "tables",
    "tasks",
]
