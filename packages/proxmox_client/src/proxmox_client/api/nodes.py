"""A node: its state, disks, network, guests, tasks and backups."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import field

from proxmox_client.api.configs import LxcConfig, QemuConfig, read_config
from proxmox_client.api.firewall import Firewall
from proxmox_client.api.hardware import (
    BootInfo,
    CpuInfo,
    Disk,
    Kernel,
    NetworkInterface,
    PciDevice,
    Space,
    ZfsPool,
)
from proxmox_client.api.replication import ReplicationStatus
from proxmox_client.api.resources import NodeState
from proxmox_client.api.rrd import Consolidation, NodeRrd, TimeFrame
from proxmox_client.api.smart import Smart
from proxmox_client.api.software import Certificate, Package, Service, Subscription
from proxmox_client.api.status import GuestStatus
from proxmox_client.api.storage import StorageContentKind, StorageStatus
from proxmox_client.api.tasks import LogLine, Task, TaskRow, TaskSource
from proxmox_client.json_decoder import Answer
from proxmox_client.paths import join
from proxmox_client.transport import Parameter, Parameters, Transport, converted

BackupMode = Literal["snapshot", "suspend", "stop"]
Compression = Literal["0", "1", "gzip", "lzo", "zstd"]

_CURSOR = "s="
_NO_LINE = ("-- No entries --", "no content")  # what Proxmox answers where there is no line


class NodeRow(NodeState, frozen=True):
    """A node in the list of nodes; an offline node has configured values only."""

    level: str = ""
    uptime: int | None = None
    cpu: float | None = None
    cpu_count: float | None = field(name="maxcpu", default=None)
    memory: int | None = field(name="mem", default=None)
    memory_max: int | None = field(name="maxmem", default=None)
    disk: int | None = None
    disk_max: int | None = field(name="maxdisk", default=None)
    ssl_fingerprint: str | None = None


class NodeStatus(Answer, frozen=True):
    """A node's state; `cpu` and `io_delay` are fractions."""

    pve_version: str = field(name="pveversion", default="")
    kernel_version: str = field(name="kversion", default="")
    kernel: Kernel = field(name="current-kernel", default=Kernel())
    uptime: int = 0
    cpu: float | None = None
    io_delay: float | None = field(name="wait", default=None)
    load_average: list[float] = field(name="loadavg", default=[])
    cpu_info: CpuInfo = field(name="cpuinfo", default=CpuInfo())
    memory: Space = Space()
    swap: Space = Space()
    root: Space = field(name="rootfs", default=Space())
    boot: BootInfo = field(name="boot-info", default=BootInfo())


class NodeTime(Answer, frozen=True):
    """A node's clock (epoch); `local_time` is the epoch shifted by its zone."""

    time: int
    local_time: int = field(name="localtime", default=0)
    timezone: str | None = None


class UrlMetadata(Answer, frozen=True):
    """File name, size in bytes and type of a download, as its server reports them."""

    filename: str | None = None
    size: int | None = None
    mimetype: str | None = None


class Appliance(Answer, frozen=True):
    """A container template of the index of a node; `template` is the name of its file."""

    template: str
    package: str = ""
    version: str = ""
    os: str = ""
    section: str = ""
    architecture: str | None = None
    headline: str | None = None
    location: str | None = None
    infopage: str | None = None
    sha512: str | None = field(name="sha512sum", default=None)
    md5: str | None = field(name="md5sum", default=None)


class SystemLog(msgspec.Struct, frozen=True):
    """Some lines of a node's log, oldest first; `total` counts all that match."""

    lines: list[str]
    total: int


class Node:
    """Calls about one node."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self.name = name

    @property
    def firewall(self) -> Firewall:
        """The calls about the node's firewall."""
        return Firewall(self._transport, self._path("firewall"))

    async def status(self) -> NodeStatus:
        """GET /nodes/{node}/status. Needs Sys.Audit on the node.

        Source: PVE/API2/Nodes.pm.
        """
        return await self._transport.get(self._path("status"), NodeStatus)

    async def time(self) -> NodeTime:
        """GET /nodes/{node}/time. Needs Sys.Audit on the node.

        Source: PVE/API2/Nodes.pm.
        """
        return await self._transport.get(self._path("time"), NodeTime)

    async def journal(self, last: int) -> list[str]:
        """GET /nodes/{node}/journal. Needs Sys.Syslog on the node. Its last lines, oldest first.

        A line is `Nov 30 05:59:08 pve1 sshd[123]: text`, in the node's time zone.

        Source: PVE/API2/Nodes.pm.
        """
        lines = await self._transport.get(self._path("journal"), list[str], lastentries=last)
        # Proxmox puts the journal's cursors before and after the lines
        return [line for line in lines if not line.startswith(_CURSOR) and line not in _NO_LINE]

    async def syslog(
        self,
        *,
        start: int = 0,
        limit: int = 50,
        since: str | None = None,
        until: str | None = None,
        service: str | None = None,
    ) -> SystemLog:
        """GET /nodes/{node}/syslog. Needs Sys.Syslog on the node. Lines as those of `journal`.

        `start` counts from the oldest line; `since` and `until` are `2026-11-30 05:59:08` in the
        node's time zone, and `service` is a systemd unit.

        Source: PVE/API2/Nodes.pm.
        """
        page = await self._transport.get_page(
            self._path("syslog"),
            list[LogLine],
            start=start,
            limit=limit,
            since=since,
            until=until,
            service=service,
        )
        lines = [line.text for line in page.data if line.text not in _NO_LINE]
        return SystemLog(lines, (page.total or len(lines)) if lines or start else 0)

    async def rrd(self, timeframe: TimeFrame, cf: Consolidation = "AVERAGE") -> list[NodeRrd]:
        """GET /nodes/{node}/rrddata. Needs Sys.Audit on the node.

        Source: PVE/API2/Nodes.pm.
        """
        path = self._path("rrddata")
        return await self._transport.get(path, list[NodeRrd], timeframe=timeframe, cf=cf)

    async def disks(self, *, include_partitions: bool = False) -> list[Disk]:
        """GET /nodes/{node}/disks/list. Needs Sys.Audit on / or on the node.

        Source: PVE/API2/Disks.pm.
        """
        parameters: Parameters = {"include-partitions": include_partitions or None}
        return await self._transport.get(self._path("disks", "list"), list[Disk], **parameters)

    async def smart(self, disk: str) -> Smart:
        """GET /nodes/{node}/disks/smart. Needs Sys.Audit on /; `disk` is a device: /dev/sda.

        Source: PVE/API2/Disks.pm.
        """
        return await self._transport.get(self._path("disks", "smart"), Smart, disk=disk)

    async def zfs_pools(self) -> list[ZfsPool]:
        """GET /nodes/{node}/disks/zfs. Needs Sys.Audit on /.

        Source: PVE/API2/Disks/ZFS.pm.
        """
        return await self._transport.get(self._path("disks", "zfs"), list[ZfsPool])

    async def pci_devices(self) -> list[PciDevice]:
        """GET /nodes/{node}/hardware/pci. Needs Sys.Audit or Sys.Modify on /.

        Without memory, bridges and processors.

        Source: PVE/API2/Hardware/PCI.pm.
        """
        return await self._transport.get(self._path("hardware", "pci"), list[PciDevice])

    async def package_versions(self) -> list[Package]:
        """GET /nodes/{node}/apt/versions. Needs Sys.Audit on the node; Proxmox's own packages.

        Source: PVE/API2/APT.pm.
        """
        return await self._transport.get(self._path("apt", "versions"), list[Package])

    async def updates(self) -> list[Package]:
        """GET /nodes/{node}/apt/update. Needs Sys.Modify on the node; nothing is refreshed.

        Source: PVE/API2/APT.pm.
        """
        return await self._transport.get(self._path("apt", "update"), list[Package])

    async def services(self) -> list[Service]:
        """GET /nodes/{node}/services. Needs Sys.Audit on the node.

        Source: PVE/API2/Services.pm.
        """
        return await self._transport.get(self._path("services"), list[Service])

    async def certificates(self) -> list[Certificate]:
        """GET /nodes/{node}/certificates/info. Needs an account, but no privilege.

        Source: PVE/API2/Certificates.pm.
        """
        return await self._transport.get(self._path("certificates", "info"), list[Certificate])

    async def subscription(self) -> Subscription:
        """GET /nodes/{node}/subscription. Needs an account, but no privilege.

        Source: PVE/API2/Subscription.pm.
        """
        return await self._transport.get(self._path("subscription"), Subscription)

    async def network(self, kind: str | None = None) -> list[NetworkInterface]:
        """GET /nodes/{node}/network. Needs an account, but no privilege.

        `kind` is a type of interface; `any_bridge` also has the SDN's networks.

        Source: PVE/API2/Network.pm.
        """
        path = self._path("network")
        return await self._transport.get(path, list[NetworkInterface], type=kind)

    async def qemus(self, *, full: bool | None = None) -> list[GuestStatus]:
        """GET /nodes/{node}/qemu. Lists guests with VM.Audit; `full` queries each running QEMU.

        Source: PVE/API2/Qemu.pm.
        """
        return await self._transport.get(self._path("qemu"), list[GuestStatus], full=full)

    async def lxcs(self) -> list[GuestStatus]:
        """GET /nodes/{node}/lxc. Lists guests with VM.Audit.

        Source: PVE/API2/LXC.pm.
        """
        return await self._transport.get(self._path("lxc"), list[GuestStatus])

    async def storages(
        self, *, content: StorageContentKind | None = None, enabled: bool | None = None
    ) -> list[StorageStatus]:
        """GET /nodes/{node}/storage. Lists those with Datastore.Audit or .AllocateSpace; bytes.

        Source: PVE/API2/Storage/Status.pm.
        """
        path = self._path("storage")
        return await self._transport.get(
            path, list[StorageStatus], content=content, enabled=enabled
        )

    async def replications(self, guest: int | None = None) -> list[ReplicationStatus]:
        """GET /nodes/{node}/replication. Lists jobs whose source is this node, with VM.Audit.

        Source: PVE/API2/Replication.pm.
        """
        path = self._path("replication")
        return await self._transport.get(path, list[ReplicationStatus], guest=guest)

    async def tasks(
        self,
        *,
        source: TaskSource = "all",
        limit: int = 50,
        start: int = 0,
        vmid: int | None = None,
        type: str | None = None,  # noqa: A002 - the name of the field in TaskRow
        user: str | None = None,
        since: int | None = None,
        until: int | None = None,
        errors: bool | None = None,
        status: Sequence[str] | None = None,
    ) -> list[TaskRow]:
        """GET /nodes/{node}/tasks. Newest first; without Sys.Audit only own tasks.

        `status` filters by outcome: "ok", "warning", "error", "unknown"; times are epochs.

        Source: PVE/API2/Tasks.pm.
        """
        return await self._transport.get(
            self._path("tasks"),
            list[TaskRow],
            source=source,
            limit=limit,
            start=start,
            vmid=vmid,
            typefilter=type,
            userfilter=user,
            since=since,
            until=until,
            errors=errors,
            statusfilter=",".join(status) if status else None,
        )

    async def oldest_task(self) -> TaskRow | None:
        """GET /nodes/{node}/tasks, twice. The oldest ended task that the node has on record.

        Source: PVE/API2/Tasks.pm.
        """
        path, archive = self._path("tasks"), "archive"
        newest = await self._transport.get_page(path, list[TaskRow], source=archive, limit=1)
        last = max((newest.total or 0) - 1, 0)
        rows = await self._transport.get(path, list[TaskRow], source=archive, limit=1, start=last)
        return rows[0] if rows else None

    async def vzdump(
        self,
        vmids: Sequence[int],
        *,
        storage: str | None = None,
        mode: BackupMode | None = None,
        compress: Compression | None = None,
        protected: bool | None = None,
        bwlimit: int | None = None,
        notes: str | None = None,
        remove: bool | None = None,
    ) -> Task:
        """POST /nodes/{node}/vzdump. Needs VM.Backup, and Datastore.AllocateSpace on the storage.

        `bwlimit` is KiB/s and needs Sys.Modify on /. Unless `remove` is false, Proxmox removes
        older backups of the guests afterwards, by the retention of the storage.

        Source: PVE/API2/VZDump.pm.
        """
        parameters: Parameters = {
            "vmid": ",".join(str(vmid) for vmid in vmids),
            "storage": storage,
            "mode": mode,
            "compress": compress,
            "protected": protected,
            "bwlimit": bwlimit,
            "notes-template": notes,
            "remove": remove,
        }
        upid = await self._transport.post(self._path("vzdump"), **parameters)
        return Task.started(self._transport, upid)

    async def backup_config(self, volid: str) -> QemuConfig | LxcConfig:
        """GET /nodes/{node}/vzdump/extractconfig. The configuration of the guest in a backup.

        Needs VM.Backup on the guest and Datastore.AllocateSpace on the storage.

        Source: PVE/API2/VZDump.pm.
        """
        path = self._path("vzdump", "extractconfig")
        text = await self._transport.get(path, str, volume=volid)
        return converted(path, text, read_config)

    async def create_qemu(self, vmid: int, options: Mapping[str, Parameter]) -> Task:
        """POST /nodes/{node}/qemu. Needs VM.Allocate on the VMID or on the option `pool`.

        Conflict for a VMID that is in use anywhere in the cluster.

        Source: PVE/API2/Qemu.pm.
        """
        upid = await self._transport.post(self._path("qemu"), vmid=vmid, **options)
        return Task.started(self._transport, upid)

    async def create_lxc(self, vmid: int, options: Mapping[str, Parameter]) -> Task:
        """POST /nodes/{node}/lxc. Needs VM.Allocate on the VMID or on the option `pool`.

        Conflict for a VMID that is in use anywhere in the cluster.

        Source: PVE/API2/LXC.pm.
        """
        upid = await self._transport.post(self._path("lxc"), vmid=vmid, **options)
        return Task.started(self._transport, upid)

    async def url_metadata(
        self, url: str, *, verify_certificates: bool | None = None
    ) -> UrlMetadata:
        """GET /nodes/{node}/query-url-metadata. Needs Sys.Audit and Sys.Modify on /.

        Source: PVE/API2/Nodes.pm.
        """
        parameters: Parameters = {"url": url, "verify-certificates": verify_certificates}
        return await self._transport.get(
            self._path("query-url-metadata"), UrlMetadata, **parameters
        )

    async def appliances(self) -> list[Appliance]:
        """GET /nodes/{node}/aplinfo. Needs no privilege. Empty until the node has fetched it.

        Source: PVE/API2/Nodes.pm, PVE/APLInfo.pm.
        """
        return await self._transport.get(self._path("aplinfo"), list[Appliance])

    async def download_appliance(self, template: str, storage: str) -> Task:
        """POST /nodes/{node}/aplinfo. Needs Datastore.AllocateTemplate on the storage.

        The node compares the file with the checksum of its index.

        Source: PVE/API2/Nodes.pm.
        """
        upid = await self._transport.post(self._path("aplinfo"), template=template, storage=storage)
        return Task.started(self._transport, upid)

    async def oci_tags(self, reference: str) -> list[str]:
        """GET /nodes/{node}/query-oci-repo-tags. Needs Sys.AccessNetwork on the node. Since 9.1.

        The node asks the registry of the reference, which has no tag.

        Source: PVE/API2/Nodes.pm.
        """
        path = self._path("query-oci-repo-tags")
        return await self._transport.get(path, list[str], reference=reference)

    def _path(self, *rest: str) -> str:
        return join("nodes", self.name, *rest)
