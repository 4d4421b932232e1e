"""Storages and their content."""

from base64 import b64encode
from typing import Any, ClassVar, Literal

from msgspec import field

from proxmox_client.api.rrd import Consolidation, StorageRrd, TimeFrame
from proxmox_client.api.tasks import Task
from proxmox_client.json_decoder import Answer, convert
from proxmox_client.paths import join
from proxmox_client.transport import Parameters, Transport

StorageContentKind = Literal[
    "iso", "vztmpl", "backup", "images", "rootdir", "snippets", "import", "none"
]
DownloadKind = Literal["iso", "vztmpl", "import"]
ChecksumAlgorithm = Literal["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]


class StorageConfig(Answer, frozen=True):
    """The configuration of a storage in the cluster."""

    storage: str
    type: str = ""
    content: str = ""
    nodes: str | None = None
    shared: bool = False
    disable: bool = False
    path: str | None = None
    server: str | None = None
    export: str | None = None
    datastore: str | None = None
    namespace: str | None = None
    fingerprint: str | None = None
    pool: str | None = None
    prune_backups: str | None = field(name="prune-backups", default=None)
    snapshot_as_volume_chain: bool = field(name="snapshot-as-volume-chain", default=False)


class StorageStatus(Answer, frozen=True):
    """The state of a storage on one node; sizes in bytes."""

    storage: str
    type: str = ""
    content: str = ""
    active: bool = False
    enabled: bool = False
    shared: bool = False
    total: int | None = None
    used: int | None = None
    available: int | None = field(name="avail", default=None)
    used_fraction: float | None = None


class Verification(Answer, frozen=True):
    """The result of a backup's last verification on a backup server."""

    state: str = ""
    upid: str = ""


class Volume(Answer, frozen=True):
    """A volume on a storage; sizes in bytes, `created` an epoch.

    `encrypted` is a key's fingerprint, or "1", on a backup server.
    """

    are_many: ClassVar[bool] = True

    volid: str
    content: str = ""
    format: str = ""
    size: int = 0
    used: int | None = None
    created: int | None = field(name="ctime", default=None)
    vmid: int | None = None
    parent: str | None = None
    guest_type: str | None = field(name="subtype", default=None)
    notes: str | None = None
    protected: bool = False
    encrypted: str | None = None
    verification: Verification | None = None

    @property
    def name(self) -> str:
        """The last part of the volume ID: a file name, mostly."""
        return self.volid.partition(":")[2].rpartition("/")[2]


class VolumeDetails(Answer, frozen=True):
    """Details of one volume; sizes in bytes."""

    path: str = ""
    format: str = ""
    size: int = 0
    used: int | None = None
    notes: str | None = None
    protected: bool = False


class BackupFile(Answer, frozen=True):
    """An entry of a folder in a backup; size in bytes, `mtime` an epoch.

    `type` is d (folder), f (file), l (link) or another letter of the backup server's catalog; v is
    an archive, a disk or one of its partitions.
    """

    are_many: ClassVar[bool] = True

    name: str = field(name="text")
    type: str = ""
    leaf: bool = False
    size: int | None = None
    mtime: int | None = None


class Storage:
    """Calls about one storage on one node."""

    def __init__(self, transport: Transport, node: str, name: str) -> None:
        self._transport = transport
        self.node = node
        self.name = name

    async def status(self) -> StorageStatus:
        """GET /nodes/{node}/storage/{storage}/status. Needs Datastore.Audit or .AllocateSpace.

        Source: PVE/API2/Storage/Status.pm.
        """
        status = await self._transport.get(self._path("status"), dict[str, Any])
        return convert({**status, "storage": self.name}, StorageStatus)

    async def rrd(self, timeframe: TimeFrame, cf: Consolidation = "AVERAGE") -> list[StorageRrd]:
        """GET /nodes/{node}/storage/{storage}/rrddata. Needs Datastore.Audit or .AllocateSpace.

        Source: PVE/API2/Storage/Status.pm.
        """
        path = self._path("rrddata")
        return await self._transport.get(path, list[StorageRrd], timeframe=timeframe, cf=cf)

    async def content(
        self, kind: StorageContentKind | None = None, vmid: int | None = None
    ) -> list[Volume]:
        """GET /nodes/{node}/storage/{storage}/content. Needs Datastore.Audit or .AllocateSpace.

        Disks and backups of guests without privileges for the account are left out.

        Source: PVE/API2/Storage/Content.pm.
        """
        path = self._path("content")
        return await self._transport.get(path, list[Volume], content=kind, vmid=vmid)

    async def volume(self, volid: str) -> VolumeDetails:
        """GET /nodes/{node}/storage/{storage}/content/{volume}. Needs Datastore.Audit or VM.Backup.

        Source: PVE/API2/Storage/Content.pm.
        """
        return await self._transport.get(self._path("content", volid), VolumeDetails)

    async def backup_files(self, volid: str, folder: str = "/") -> list[BackupFile]:
        """GET /nodes/{node}/storage/{storage}/file-restore/list. Of a Proxmox Backup Server only.

        Needs VM.Backup on the guest and Datastore.AllocateSpace here, or Datastore.Allocate. Below
        a disk of a virtual machine the node starts a small one of its own to read it, which takes
        seconds and ends by itself.

        Source: PVE/API2/Storage/FileRestore.pm.
        """
        encoded = folder if folder == "/" else b64encode(folder.encode()).decode()
        path = self._path("file-restore", "list")
        return await self._transport.get(path, list[BackupFile], volume=volid, filepath=encoded)

    async def delete(self, volid: str) -> Task | None:
        """DELETE /nodes/{node}/storage/{storage}/content/{volume}. Needs Datastore.Allocate.

        For a guest's backup, Datastore.AllocateSpace with VM.Backup is enough. For a protected
        backup the task fails. Returns None if Proxmox deleted the volume without a task.

        Source: PVE/API2/Storage/Content.pm.
        """
        upid = await self._transport.delete(self._path("content", volid))
        return Task.started(self._transport, upid) if upid else None

    async def download_url(
        self,
        url: str,
        filename: str,
        *,
        content: DownloadKind = "iso",
        checksum: str | None = None,
        checksum_algorithm: ChecksumAlgorithm | None = None,
        verify_certificates: bool | None = None,
    ) -> Task:
        """POST /nodes/{node}/storage/{storage}/download-url.

        Needs Datastore.AllocateTemplate here, and Sys.AccessNetwork on the node or Sys.Audit
        with Sys.Modify on /.

        Source: PVE/API2/Storage/Status.pm.
        """
        parameters: Parameters = {
            "url": url,
            "filename": filename,
            "content": content,
            "checksum": checksum,
            "checksum-algorithm": checksum_algorithm,
            "verify-certificates": verify_certificates,
        }
        upid = await self._transport.post(self._path("download-url"), **parameters)
        return Task.started(self._transport, upid)

    async def pull_oci_image(self, reference: str, filename: str | None = None) -> Task:
        """POST /nodes/{node}/storage/{storage}/oci-registry-pull. Since 9.1.

        Needs Datastore.AllocateTemplate here and Sys.AccessNetwork on the node. The reference has a
        tag; Proxmox appends `.tar` to the file name, which is the last part of the reference if
        none is given.

        Source: PVE/API2/Storage/Status.pm.
        """
        upid = await self._transport.post(
            self._path("oci-registry-pull"), reference=reference, filename=filename
        )
        return Task.started(self._transport, upid)

    def _path(self, *rest: str) -> str:
        return join("nodes", self.node, "storage", self.name, *rest)
