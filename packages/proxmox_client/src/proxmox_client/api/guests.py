"""Calls that virtual machines and containers share."""

import builtins
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec
from msgspec import field

from proxmox_client.api.configs import GuestConfig, GuestDisk
from proxmox_client.api.firewall import Firewall
from proxmox_client.api.resources import GuestType
from proxmox_client.api.rrd import Consolidation, GuestRrd, TimeFrame
from proxmox_client.api.status import GuestStatus
from proxmox_client.api.tasks import Task
from proxmox_client.errors import NotFound, UnexpectedAnswer
from proxmox_client.json_decoder import Answer
from proxmox_client.paths import join
from proxmox_client.transport import Parameter, Parameters, Transport, converted

T = TypeVar("T")
C = TypeVar("C", bound=GuestConfig)
Locate = Callable[[int], Awaitable[str]]

MOST_SNAPSHOTS: Final = 1_000
"""Snapshots of a guest: callers ask for the configuration of each."""


class Snapshot(Answer, frozen=True):
    """A snapshot; `created` is an epoch, `with_memory` says whether RAM was saved.

    `state` is set while it is made or deleted, and stays set when that fails: it is incomplete.
    """

    name: str
    description: str = ""
    parent: str | None = None
    created: int | None = field(name="snaptime", default=None)
    with_memory: bool = field(name="vmstate", default=False)
    state: str | None = field(name="snapstate", default=None)


class SnapshotRow(Snapshot, frozen=True):
    """A row of the snapshot list, which also has the pseudo entry `current`."""

    running: bool | None = None
    digest: str | None = None


class Pending(Answer, frozen=True):
    """An option; `pending` is its value after a restart, `delete` is set if it will be removed."""

    key: str
    value: Any = None
    pending: Any = None
    delete: int | None = None


class PendingChange(msgspec.Struct, frozen=True):
    """An option that the guest's next start changes; None on either side where it is not set."""

    option: str
    current: Any
    pending: Any


class BothConfigs(msgspec.Struct, Generic[C], frozen=True):
    """A guest's running configuration, and the pending one that applies after its next start.

    Check both before a write: a running guest still uses devices whose removal is pending, and will
    use devices whose addition is pending. Raw `lxc.*` lines of containers are in neither.
    """

    current: C
    pending: C

    @property
    def changes(self) -> list[PendingChange]:
        """The options that differ, by name."""
        current, pending = self.current.raw, self.pending.raw
        changes = (
            PendingChange(option, current.get(option), pending.get(option))
            for option in sorted(current.keys() | pending.keys())
        )
        return [change for change in changes if str(change.current) != str(change.pending)]

    @property
    def disks(self) -> list[GuestDisk]:
        """The disks of both; an option whose volume will change is listed twice."""
        disks = self.current.disks
        current = {(disk.id, disk.volume) for disk in disks}
        return disks + [
            disk for disk in self.pending.disks if (disk.id, disk.volume) not in current
        ]


class MigrateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Obstacles to a migration.

    `refused` has the reasons by node; `local_disks` have to be copied; `local_resources` (devices,
    drives) prevent the migration.
    """

    running: bool
    allowed_nodes: list[str]
    refused: dict[str, dict[str, Any]]
    local_disks: list[dict[str, Any]] = field(default_factory=list)
    local_resources: list[str] = field(default_factory=list)
    mapped_resources: list[str] = field(default_factory=list)


class Guest(Generic[C]):
    """Calls about one guest on one node.

    If the guest has moved to another node, reads follow it; writes fail and are never repeated.
    """

    type: ClassVar[GuestType]
    _config: builtins.type[C]
    _name_option: ClassVar[str]

    def __init__(
        self, transport: Transport, node: str, vmid: int, locate: Locate | None = None
    ) -> None:
        self._transport = transport
        self._locate = locate
        self.node = node
        self.vmid = vmid

    async def config(self, *, snapshot: str | None = None, current: bool = False) -> C:
        """GET …/config. Needs VM.Audit. Includes pending changes unless `current`.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC/Config.pm.
        """
        config = await self._read(
            dict[str, Any], "config", snapshot=snapshot, current=current or None
        )
        return converted(self._path("config"), config, self._config.of)

    async def pending(self) -> list[Pending]:
        """GET …/pending. Needs VM.Audit.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC/Config.pm.
        """
        return await self._read(list[Pending], "pending")

    async def configs(self) -> BothConfigs[C]:
        """GET …/pending, as running and pending configuration. Needs VM.Audit.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC/Config.pm, PVE/GuestHelpers.pm.
        """
        rows = await self.pending()
        if not rows:
            await self._require_no_options()
        running = {row.key: row.value for row in rows if row.value is not None}
        pending = {row.key: row.pending for row in rows if row.pending is not None}
        removed = {row.key for row in rows if row.delete}
        kept = {key: value for key, value in running.items() if key not in removed}
        both = (running, kept | pending)
        path = self._path("pending")
        return BothConfigs(*(converted(path, options, self._config.of) for options in both))

    async def resize_disk(self, disk: str, size: str, *, digest: str | None = None) -> Task:
        """PUT …/resize. Needs VM.Config.Disk, and Datastore.AllocateSpace on its storage.

        `size` is absolute, or begins with `+`: `64G`, `+10G`. A disk cannot shrink.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC.pm.
        """
        parameters: Parameters = {"disk": disk, "size": size, "digest": digest}
        path = self._path("resize")
        return self._task(await self._transport.put(path, **parameters))

    async def _require_no_options(self) -> None:
        """Raise UnexpectedAnswer unless the guest has no options, as after a failed restore.

        An empty answer says that it uses no volume, and null is read as an empty answer.
        """
        if (await self.config()).raw.keys() != {"digest"}:
            raise UnexpectedAnswer(200, "OK", f"The answer of {self._path('pending')} is empty")

    async def status(self) -> GuestStatus:
        """GET …/status/current. Needs VM.Audit.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC/Status.pm.
        """
        return await self._read(GuestStatus, "status", "current")

    async def rrd(self, timeframe: TimeFrame, cf: Consolidation = "AVERAGE") -> list[GuestRrd]:
        """GET …/rrddata. Needs VM.Audit.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC.pm.
        """
        return await self._read(list[GuestRrd], "rrddata", timeframe=timeframe, cf=cf)

    @property
    def firewall(self) -> Firewall:
        """The calls about the guest's firewall."""
        return Firewall(self._transport, self._path("firewall"))

    async def snapshots(self) -> list[Snapshot]:
        """GET …/snapshot, without the pseudo entry `current`. Needs VM.Audit.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC/Snapshot.pm.
        """
        return [row for row in await self._snapshot_rows() if row.name != "current"]

    async def current_snapshot(self) -> str | None:
        """Return the snapshot that the current state descends from. Sends GET …/snapshot."""
        rows = await self._snapshot_rows()
        return next((row.parent for row in rows if row.name == "current"), None)

    async def delete_snapshot(self, name: str, *, force: bool | None = None) -> Task:
        """DELETE …/snapshot/{name}. Needs VM.Snapshot. For a missing snapshot the task fails.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC/Snapshot.pm.
        """
        path = self._path("snapshot", name)
        return self._task(await self._transport.delete(path, force=force))

    async def rollback(self, name: str, *, start: bool | None = None) -> Task:
        """POST …/snapshot/{name}/rollback. Needs VM.Snapshot.Rollback or VM.Snapshot.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC/Snapshot.pm.
        """
        path = self._path("snapshot", name, "rollback")
        return self._task(await self._transport.post(path, start=start))

    async def destroy(self, *, purge: bool | None = None) -> Task:
        """DELETE …. Needs VM.Allocate. The guest has to be stopped.

        Its firewall rules and the ACL entries about it go too; `purge` also removes it from backup
        jobs, replication and HA, without which Conflict. Volumes that it owns and that its
        configuration and snapshots don't name stay.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC.pm.
        """
        return self._task(await self._transport.delete(self._path(), purge=purge))

    async def clone(
        self,
        new_vmid: int,
        *,
        name: str | None = None,
        description: str | None = None,
        pool: str | None = None,
        target: str | None = None,
        storage: str | None = None,
        full: bool | None = None,
        snapshot: str | None = None,
    ) -> Task:
        """POST …/clone. Needs VM.Clone, and VM.Allocate on the new VMID or on the pool.

        A template is cloned linked unless `full`, which a `storage` requires. Conflict for a VMID
        in use; that of a guest on another node may fail in the task instead.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC.pm.
        """
        parameters: Parameters = {
            "newid": new_vmid,
            self._name_option: name,
            "description": description,
            "pool": pool,
            "target": target,
            "storage": storage,
            "full": full,
            "snapname": snapshot,
        }
        return self._task(await self._transport.post(self._path("clone"), **parameters))

    async def set_config(
        self,
        options: Mapping[str, Parameter],
        *,
        delete: Sequence[str] = (),
        revert: Sequence[str] = (),
        digest: str | None = None,
    ) -> None:
        """PUT …/config. Needs the privilege of each option: VM.Config.Options, VM.Config.CPU etc.

        What a running guest cannot take at once is pending; `revert` drops that. Conflict if the
        configuration no longer has the `digest`.

        Source: PVE/API2/Qemu.pm, PVE/API2/LXC/Config.pm.
        """
        parameters: Parameters = {
            **options,
            "delete": ",".join(delete) or None,
            "revert": ",".join(revert) or None,
            "digest": digest,
        }
        await self._transport.put(self._path("config"), **parameters)

    async def _snapshot_rows(self) -> list[SnapshotRow]:
        rows = await self._read(list[SnapshotRow], "snapshot")
        if not rows:  # Proxmox always lists `current`; null is read as an empty list
            raise UnexpectedAnswer(200, "OK", f"The answer of {self._path('snapshot')} is empty")
        if len(rows) > MOST_SNAPSHOTS:
            fact = f"The answer of {self._path('snapshot')} has {len(rows):,} snapshots"
            raise UnexpectedAnswer(200, "OK", f"{fact}, more than a guest can have")
        return rows

    async def _power(self, action: str, parameters: Parameters) -> Task:
        return self._task(await self._transport.post(self._path("status", action), **parameters))

    async def _read(self, answer: builtins.type[T], *rest: str, **parameters: Any) -> T:
        try:
            return await self._transport.get(self._path(*rest), answer, **parameters)
        except NotFound:
            # Proxmox gives the same error for a missing guest and for one on another node
            previous = self.node
            if self._locate is not None:
                self.node = await self._locate(self.vmid)
            if self.node == previous:
                raise
            return await self._transport.get(self._path(*rest), answer, **parameters)

    def _task(self, upid: Any) -> Task:
        return Task.started(self._transport, upid)

    def _path(self, *rest: str) -> str:
        return join("nodes", self.node, self.type, self.vmid, *rest)
