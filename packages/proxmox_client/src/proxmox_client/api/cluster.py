"""The cluster as a whole."""

import re
from typing import Any, ClassVar, Final, Literal

import msgspec
from msgspec import field

from proxmox_client.api.backups import BackupJob, IncludedVolumes, UncoveredGuest
from proxmox_client.api.firewall import Firewall, SecurityGroup
from proxmox_client.api.ha import HaGroup, HaResource, HaRule, HaStatus
from proxmox_client.api.replication import ReplicationJob
from proxmox_client.api.resources import Resources
from proxmox_client.api.tasks import TaskRow
from proxmox_client.json_decoder import Answer
from proxmox_client.names import Name
from proxmox_client.paths import join
from proxmox_client.properties import Properties, parse, require_version, whole_number
from proxmox_client.transport import Transport, converted

_RELEASE: Final = re.compile(r"\d{1,3}\.\d{1,3}(\.\d{1,3})?", re.ASCII)
ResourceType = Literal["vm", "storage", "node", "sdn"]


class Version(Answer, frozen=True):
    """The version of Proxmox VE."""

    version: str
    release: str = ""
    repoid: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a text that is no version."""
        require_version(self.version)
        if self.release:
            require_version(self.release, _RELEASE)

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers for comparison: `(9, 2, 11)`."""
        digits = self.version.replace("-", ".").split(".")
        numbers = map(whole_number, digits)
        return tuple(number for number in numbers if number is not None)


class Member(Answer, tag_field="type", tag="node", frozen=True):
    """A node in the view of the cluster stack."""

    type: ClassVar[str] = "node"

    name: Name
    id: str = ""
    node_id: int = field(name="nodeid", default=0)
    ip: str = ""
    online: bool = False
    local: bool = False
    level: str = ""


class ClusterRow(Answer, tag_field="type", tag="cluster", frozen=True):
    """The cluster's own row in its status; a single node without a cluster has none."""

    type: ClassVar[str] = "cluster"

    name: str
    quorate: bool = False
    version: int | None = None
    nodes: int | None = None


class ClusterStatus(msgspec.Struct, frozen=True):
    """Name, quorum and members; a single node without a cluster is always quorate.

    `cut_off` names the nodes of a partition without quorum that a configured host is in, while
    another configured host has quorum.
    """

    name: str
    quorate: bool
    members: list[Member]
    cut_off: tuple[str, ...] = ()

    @property
    def online(self) -> set[str]:
        """The names of the members that take part."""
        return {member.name for member in self.members if member.online}

    @classmethod
    def of(cls, rows: "list[Member | ClusterRow]") -> "ClusterStatus":
        """Combine the rows of /cluster/status."""
        members = [row for row in rows if isinstance(row, Member)]
        cluster = next((row for row in rows if isinstance(row, ClusterRow)), None)
        if cluster is None:
            return cls(name="", quorate=True, members=members)
        return cls(name=cluster.name, quorate=cluster.quorate, members=members)


class ClusterOptions(Answer, frozen=True):
    """Options of the whole cluster; groups are mappings or property strings."""

    description: str = ""
    keyboard: str | None = None
    language: str | None = None
    console: str | None = None
    email_from: str | None = None
    http_proxy: str | None = None
    mac_prefix: str | None = None
    max_workers: int | None = None
    fencing: str | None = None
    migration: dict[str, Any] | str | None = None
    bwlimit: dict[str, Any] | str | None = None
    ha: dict[str, Any] | str | None = None
    crs: dict[str, Any] | str | None = None
    next_id: dict[str, Any] | str | None = field(name="next-id", default=None)
    tag_style: dict[str, Any] | str | None = field(name="tag-style", default=None)
    user_tag_access: dict[str, Any] | str | None = field(name="user-tag-access", default=None)
    notify: dict[str, Any] | str | None = None
    replication: dict[str, Any] | str | None = None
    registered_tags: list[str] | str | None = field(name="registered-tags", default=None)
    allowed_tags: list[str] | None = field(name="allowed-tags", default=None)

    def group(self, name: str) -> Properties:
        """Parse a group of options by its field name: `options.group("migration")`."""
        default = "type" if name == "migration" else ""
        return parse(getattr(self, name), default)


class LogLine(Answer, frozen=True):
    """A line of the cluster log; `time` is an epoch, `priority` that of syslog, 0 to 7."""

    node: str = ""
    time: int | None = None
    user: str = ""
    tag: str = ""
    priority: int | None = field(name="pri", default=None)
    pid: int | None = None
    message: str = field(name="msg", default="")


class CephSummary(Answer, frozen=True):
    """The text of a check that failed."""

    message: str = ""
    count: int | None = None


class CephCheck(Answer, frozen=True):
    """A check of Ceph that failed; a muted one does not count for the status."""

    severity: str = ""
    summary: CephSummary = CephSummary()
    muted: bool = False


class CephHealth(Answer, frozen=True):
    """Ceph's health: `HEALTH_OK`, or another status and the checks that failed."""

    status: str = ""
    checks: dict[str, CephCheck] = field(default_factory=dict)


class CephOsds(Answer, frozen=True):
    """The number of object storage daemons; those `holding` data are `in`."""

    total: int | None = field(name="num_osds", default=None)
    up: int | None = field(name="num_up_osds", default=None)
    holding: int | None = field(name="num_in_osds", default=None)


class CephPlacement(Answer, frozen=True):
    """Placement groups, pools and bytes of Ceph."""

    groups: int | None = field(name="num_pgs", default=None)
    pools: int | None = field(name="num_pools", default=None)
    used: int | None = field(name="bytes_used", default=None)
    available: int | None = field(name="bytes_avail", default=None)
    total: int | None = field(name="bytes_total", default=None)


class CephStatus(Answer, frozen=True):
    """Ceph's status: its health, daemons and space."""

    fsid: str | None = None
    health: CephHealth = CephHealth()
    monitors: list[str] = field(name="quorum_names", default=[])
    osds: CephOsds = field(name="osdmap", default=CephOsds())
    placement: CephPlacement = field(name="pgmap", default=CephPlacement())


class CephDaemon(Answer, frozen=True):
    """A daemon of Ceph and the node that it is on."""

    hostname: str = ""


class CephMetadata(Answer, frozen=True):
    """The daemons of Ceph; monitors by their name and host."""

    osds: list[CephDaemon] = field(name="osd", default_factory=list)
    monitors: dict[str, CephDaemon] = field(name="mon", default_factory=dict)


class Voter(Answer, frozen=True):
    """A node in the configuration of the cluster stack, with its votes."""

    node: Name
    votes: int = field(name="quorum_votes", default=1)


class QuorumDevice(Answer, frozen=True):
    """The state of an external vote (QDevice); both fields are empty where there is none."""

    state: str = field(name="State", default="")
    algorithm: str = field(name="Algorithm", default="")

    @property
    def is_connected(self) -> bool:
        return self.state.casefold().startswith("connected")

    def votes(self, nodes: int) -> int:
        """Return its votes in a cluster of so many nodes, whether it is connected or not.

        One by the algorithm Fifty-Fifty split, and one fewer than there are nodes by the other,
        last man standing.
        """
        if not self.state:
            return 0
        return nodes - 1 if self.algorithm.casefold().startswith(("lms", "last")) else 1


class MetricSample(Answer, frozen=True):
    """A measured value. `id` is like qemu/100; a value of type derive counts up since a start."""

    id: str
    metric: str
    type: str
    value: float
    timestamp: int


class _Export(Answer, frozen=True):
    """The body of the export, a list in an object of its own."""

    data: list[MetricSample] = field(default_factory=list)


class ClusterApi:
    """Calls about the cluster as a whole."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def resources(self, type: ResourceType | None = None) -> Resources:  # noqa: A002 - Proxmox's name for it
        """GET /cluster/resources. Rows without the audit privilege are left out.

        Source: PVE/API2/Cluster.pm.
        """
        path = "/cluster/resources"
        response = await self._transport.request("GET", path, {"type": type})
        return converted(path, response.body, Resources.read)

    async def status(self) -> ClusterStatus:
        """GET /cluster/status. Needs Sys.Audit on /.

        A host in a partition without quorum knows that partition only. If another configured host
        has quorum, its answer is returned, and later requests go there first.

        Source: PVE/API2/Cluster.pm.
        """
        path, pool = "/cluster/status", self._transport.pool
        own = ClusterStatus.of(await self._transport.get(path, list[Member | ClusterRow]))
        if pool.size == 1 or (own.quorate and not pool.is_split):
            return own
        others = await self._transport.get_of_others(path, list[Member | ClusterRow])
        views = {host: ClusterStatus.of(rows) for host, rows in others.items()}
        views = {host: view for host, view in views.items() if view.name == own.name}
        host = next((host for host, view in views.items() if view.quorate), "")
        if not own.quorate and not host:
            return own
        if not own.quorate:
            pool.prefer(host)
        best = own if own.quorate else views[host]
        blind = (view.online for view in (own, *views.values()) if not view.quorate)
        cut_off = {name for names in blind for name in names} - best.online
        pool.is_split = bool(cut_off)
        return ClusterStatus(best.name, best.quorate, best.members, tuple(sorted(cut_off)))

    async def find_quorum(self) -> bool:
        """Return whether requests go to another host now, because the first one lacks quorum."""
        pool = self._transport.pool
        first = pool.host(0)
        if pool.size > 1:
            await self.status()
        return pool.host(0) != first

    async def voters(self) -> list[Voter]:
        """GET /cluster/config/nodes. Needs Sys.Audit on /; empty for a node without a cluster.

        Source: PVE/API2/ClusterConfig.pm.
        """
        return await self._transport.get("/cluster/config/nodes", list[Voter])

    async def quorum_device(self) -> QuorumDevice:
        """GET /cluster/config/qdevice. Needs Sys.Audit on /; an empty object where there is none.

        Source: PVE/API2/ClusterConfig.pm.
        """
        return await self._transport.get("/cluster/config/qdevice", QuorumDevice)

    async def options(self) -> ClusterOptions:
        """GET /cluster/options. Needs Sys.Audit on /.

        Source: PVE/API2/Cluster.pm.
        """
        return await self._transport.get("/cluster/options", ClusterOptions)

    async def tasks(self) -> list[TaskRow]:
        """GET /cluster/tasks. At most the last 25 of each node; without Sys.Audit only own ones.

        Source: PVE/API2/Cluster.pm.
        """
        return await self._transport.get("/cluster/tasks", list[TaskRow])

    async def log(self, maximum: int | None = None) -> list[LogLine]:
        """GET /cluster/log. The newest lines, 50 by default; without Sys.Syslog on / only own ones.

        Source: PVE/API2/Cluster.pm.
        """
        return await self._transport.get("/cluster/log", list[LogLine], max=maximum)

    async def nextid(self, vmid: int | None = None) -> int:
        """GET /cluster/nextid. Needs an account; the VMID is free, but not reserved.

        Source: PVE/API2/Cluster.pm.
        """
        return await self._transport.get("/cluster/nextid", int, vmid=vmid)

    async def backup_jobs(self) -> list[BackupJob]:
        """GET /cluster/backup. Needs Sys.Audit on /.

        Source: PVE/API2/Backup.pm.
        """
        path = "/cluster/backup"
        rows = await self._transport.get(path, list[dict[str, Any]])
        return converted(path, rows, BackupJob.list_of)

    async def backup_job_volumes(self, job_id: str) -> IncludedVolumes:
        """GET /cluster/backup/{id}/included_volumes. Needs Sys.Audit on /.

        Source: PVE/API2/Backup.pm.
        """
        path = join("cluster", "backup", job_id, "included_volumes")
        return await self._transport.get(path, IncludedVolumes)

    async def not_backed_up(self) -> list[UncoveredGuest]:
        """GET /cluster/backup-info/not-backed-up. Needs Sys.Audit on /.

        Source: PVE/API2/Cluster/BackupInfo.pm.
        """
        path = "/cluster/backup-info/not-backed-up"
        return await self._transport.get(path, list[UncoveredGuest])

    async def ha_resources(self) -> list[HaResource]:
        """GET /cluster/ha/resources. Needs Sys.Audit on /.

        Source: PVE/API2/HA/Resources.pm.
        """
        return await self._transport.get("/cluster/ha/resources", list[HaResource])

    async def ha_status(self) -> list[HaStatus]:
        """GET /cluster/ha/status/current. Needs Sys.Audit on /.

        Source: PVE/API2/HA/Status.pm.
        """
        return await self._transport.get("/cluster/ha/status/current", list[HaStatus])

    async def ha_rules(self) -> list[HaRule]:
        """GET /cluster/ha/rules (from 9.0). Needs Sys.Audit on /.

        Source: PVE/API2/HA/Rules.pm.
        """
        return await self._transport.get("/cluster/ha/rules", list[HaRule])

    async def ha_groups(self) -> list[HaGroup]:
        """GET /cluster/ha/groups (until 8.4; an error once they are rules). Needs Sys.Audit on /.

        Source: PVE/API2/HA/Groups.pm.
        """
        return await self._transport.get("/cluster/ha/groups", list[HaGroup])

    def firewall(self, group: str | None = None) -> Firewall:
        """Return the calls about the cluster's firewall, or about a security group of it."""
        return Firewall(self._transport, "/cluster/firewall", group)

    async def firewall_groups(self) -> list[SecurityGroup]:
        """GET /cluster/firewall/groups. Needs an account, but no privilege.

        Source: PVE/API2/Firewall/Groups.pm.
        """
        return await self._transport.get("/cluster/firewall/groups", list[SecurityGroup])

    async def replications(self) -> list[ReplicationJob]:
        """GET /cluster/replication. Jobs of guests without VM.Audit are left out.

        Source: PVE/API2/ReplicationConfig.pm.
        """
        return await self._transport.get("/cluster/replication", list[ReplicationJob])

    async def metrics(
        self, *, since: int | None = None, local_only: bool = False
    ) -> list[MetricSample]:
        """GET /cluster/metrics/export (from 8.2; MethodMissing before). Needs Sys.Audit on /.

        The latest samples of all nodes, or those after `since`, by the clock of each node; they
        are ten seconds apart and kept for half an hour.

        Source: PVE/API2/Cluster/MetricServer.pm.
        """
        export = await self._transport.get(
            "/cluster/metrics/export",
            _Export,
            **{
                "history": since is not None or None,
                "start-time": since,
                "local-only": local_only or None,
            },
        )
        return export.data

    async def ceph_metadata(self) -> CephMetadata:
        """GET /cluster/ceph/metadata. Needs Sys.Audit on /; NotFound where Ceph is not installed.

        Source: PVE/API2/Cluster/Ceph.pm.
        """
        return await self._transport.get("/cluster/ceph/metadata", CephMetadata)

    async def ceph_status(self) -> CephStatus:
        """GET /cluster/ceph/status. Needs Sys.Audit on /; NotFound where Ceph is not installed.

        Source: PVE/API2/Cluster/Ceph.pm.
        """
        return await self._transport.get("/cluster/ceph/status", CephStatus)
