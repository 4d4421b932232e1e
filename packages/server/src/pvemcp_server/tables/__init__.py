"""Tables: the rows that clusters can be read as, declared once for tools and queries."""

from pvemcp_server.tables.accounts import AclEntry, ApiToken, User, acl, tokens, users
from pvemcp_server.tables.addresses import GuestAddress, addresses
from pvemcp_server.tables.available_templates import AvailableTemplate, available_templates
from pvemcp_server.tables.backup_coverage import BackupCoverage, backup_coverage
from pvemcp_server.tables.backup_jobs import BackupJob, backup_jobs
from pvemcp_server.tables.backup_server import (
    PbsDatastore,
    PbsJob,
    PbsSnapshot,
    pbs_datastores,
    pbs_jobs,
    pbs_snapshots,
)
from pvemcp_server.tables.ceph import CephHealth, ceph_health
from pvemcp_server.tables.changes import Change, changes
from pvemcp_server.tables.cluster_log import ClusterLogLine, cluster_log
from pvemcp_server.tables.clusters import clusters
from pvemcp_server.tables.filesystems import GuestFilesystem, filesystems
from pvemcp_server.tables.firewall import (
    FirewallOptions,
    FirewallRule,
    firewall_options,
    firewall_rules,
)
from pvemcp_server.tables.guest_configs import lxc_configs, qemu_configs
from pvemcp_server.tables.guest_devices import Disk, Network, disks, networks
from pvemcp_server.tables.guests import Guest, described, guests
from pvemcp_server.tables.ha import HaGroup, HaResource, HaRule, ha_groups, ha_resources, ha_rules
from pvemcp_server.tables.metrics import guest_metrics, node_metrics
from pvemcp_server.tables.node_disks import NodeDisk, node_disks
from pvemcp_server.tables.node_hardware import (
    Bridge,
    PciDeviceRow,
    ZfsPool,
    bridges,
    pci_devices,
    zfs_pools,
)
from pvemcp_server.tables.node_packages import NodeUpdate, NodeVersion, node_versions, updates
from pvemcp_server.tables.node_services import (
    NodeCertificate,
    NodeClock,
    NodeService,
    NodeSubscription,
    certificates,
    clocks,
    services,
    subscriptions,
)
from pvemcp_server.tables.nodes import Node, nodes
from pvemcp_server.tables.permissions import Permission, permissions
from pvemcp_server.tables.pools import Pool, pools
from pvemcp_server.tables.registry import LoadRequest, Table, load, tables
from pvemcp_server.tables.replications import Replication, replications
from pvemcp_server.tables.smart import SmartReport, smart
from pvemcp_server.tables.snapshots import Snapshot, snapshots
from pvemcp_server.tables.storage_metrics import StorageMetric, storage_metrics
from pvemcp_server.tables.storages import Storage, storages
from pvemcp_server.tables.tasks import Task, tasks
from pvemcp_server.tables.volumes import Backup, Content, backups, storage_content

__all__ = [
    "AclEntry",
    "ApiToken",
    "AvailableTemplate",
    "Backup",
    "BackupCoverage",
    "BackupJob",
    "Bridge",
    "CephHealth",
    "Change",
    "ClusterLogLine",
    "Content",
    "Disk",
    "FirewallOptions",
    "FirewallRule",
    "Guest",
    "GuestAddress",
    "GuestFilesystem",
    "HaGroup",
    "HaResource",
    "HaRule",
    "LoadRequest",
    "Network",
    "Node",
    "NodeCertificate",
    "NodeClock",
    "NodeDisk",
    "NodeService",
    "NodeSubscription",
    "NodeUpdate",
    "NodeVersion",
    "PbsDatastore",
    "PbsJob",
    "PbsSnapshot",
    "PciDeviceRow",
    "Permission",
    "Pool",
    "Replication",
    "SmartReport",
    "Snapshot",
    "Storage",
    "StorageMetric",
    "Table",
    "Task",
    "User",
    "ZfsPool",
    "acl",
    "addresses",
    "available_templates",
    "backup_coverage",
    "backup_jobs",
    "backups",
    "bridges",
    "ceph_health",
    "certificates",
    "changes",
    "clocks",
    "cluster_log",
    "clusters",
    "described",
    "disks",
    "filesystems",
    "firewall_options",
    "firewall_rules",
    "guest_metrics",
    "guests",
    "ha_groups",
    "ha_resources",
    "ha_rules",
    "load",
    "lxc_configs",
    "networks",
    "node_disks",
    "node_metrics",
    "node_versions",
    "nodes",
    "pbs_datastores",
    "pbs_jobs",
    "pbs_snapshots",
    "pci_devices",
    "permissions",
    "pools",
    "qemu_configs",
    "replications",
    "services",
    "smart",
    "snapshots",
    "storage_content",
    "storage_metrics",
    "storages",
    "subscriptions",
    "tables",
    "tasks",
    "tokens",
    "updates",
    "users",
    "zfs_pools",
]
