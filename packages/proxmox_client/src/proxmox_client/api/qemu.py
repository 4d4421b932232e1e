"""Virtual machines."""

import builtins
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from msgspec import field

from proxmox_client.api.agent import (
    AgentInterface,
    ExecStatus,
    FileContent,
    Filesystem,
    OsInfo,
    Reply,
)
from proxmox_client.api.configs import QemuConfig
from proxmox_client.api.guests import Guest, MigrateCheck
from proxmox_client.api.resources import GuestType
from proxmox_client.api.tasks import Task
from proxmox_client.errors import AgentRefused
from proxmox_client.json_decoder import Answer, convert, convert_rows
from proxmox_client.transport import Parameter, Parameters, converted

T = TypeVar("T")

QemuAction = Literal["start", "stop", "shutdown", "reset", "reboot", "suspend", "resume"]


class QemuPreconditions(Answer, frozen=True):
    """Proxmox's check of a virtual machine's migration."""

    running: bool = False
    allowed_nodes: list[str] = field(default_factory=list)
    not_allowed_nodes: dict[str, dict[str, object]] = field(default_factory=dict)
    local_disks: list[dict[str, object]] = field(default_factory=list)
    local_resources: list[str] = field(default_factory=list)
    mapped_resources: list[str] = field(name="mapped-resources", default=[])


class Qemu(Guest[QemuConfig]):
    """Calls about one virtual machine."""

    type: ClassVar[GuestType] = "qemu"
    _config = QemuConfig
    _name_option = "name"

    async def power(
        self,
        action: QemuAction,
        *,
        timeout: int | None = None,  # noqa: ASYNC109 - a parameter for Proxmox
        force_stop: bool | None = None,
        to_disk: bool | None = None,
    ) -> Task:
        """POST …/status/{action}. Needs VM.PowerMgmt.

        `timeout` is in seconds, for start, stop, shutdown and reboot; `force_stop` stops the
        machine hard when a shutdown fails; `to_disk` suspends to disk.

        Source: PVE/API2/Qemu.pm.
        """
        parameters: Parameters = {"timeout": timeout, "forceStop": force_stop, "todisk": to_disk}
        return await self._power(action, parameters)

    async def create_snapshot(
        self, name: str, *, description: str | None = None, include_memory: bool | None = None
    ) -> Task:
        """POST …/snapshot. Needs VM.Snapshot. For a name in use the task fails.

        Source: PVE/API2/Qemu.pm.
        """
        parameters: Parameters = {
            "snapname": name,
            "description": description,
            "vmstate": include_memory,
        }
        return self._task(await self._transport.post(self._path("snapshot"), **parameters))

    async def migrate_check(self, target: str | None = None) -> MigrateCheck:
        """GET …/migrate. Needs VM.Migrate.

        Source: PVE/API2/Qemu.pm.
        """
        check = await self._read(QemuPreconditions, "migrate", target=target)
        return MigrateCheck(
            running=check.running,
            allowed_nodes=check.allowed_nodes,
            refused=check.not_allowed_nodes,
            local_disks=check.local_disks,
            local_resources=check.local_resources,
            mapped_resources=check.mapped_resources,
        )

    async def migrate(
        self,
        target: str,
        *,
        online: bool | None = None,
        target_storage: str | None = None,
        with_local_disks: bool | None = None,
    ) -> Task:
        """POST …/migrate. Needs VM.Migrate. A running machine needs `online`.

        Source: PVE/API2/Qemu.pm.
        """
        parameters: Parameters = {
            "target": target,
            "online": online,
            "targetstorage": target_storage,
            "with-local-disks": with_local_disks,
        }
        return self._task(await self._transport.post(self._path("migrate"), **parameters))

    async def set_config_by_task(
        self, options: Mapping[str, Parameter], *, digest: str | None = None
    ) -> Task:
        """POST …/config. Needs the privilege of each option: VM.Config.Disk etc.

        For what takes time, as a new disk does: what goes wrong with it is the task's failure.
        Conflict if the configuration no longer has the `digest`.

        Source: PVE/API2/Qemu.pm.
        """
        path = self._path("config")
        return self._task(await self._transport.post(path, **options, digest=digest))

    async def move_disk(
        self, disk: str, storage: str, *, delete: bool | None = None, digest: str | None = None
    ) -> Task:
        """POST …/move_disk. Needs VM.Config.Disk, and Datastore.AllocateSpace on the storage.

        Without `delete` the old volume becomes unused.

        Source: PVE/API2/Qemu.pm.
        """
        parameters: Parameters = {
            "disk": disk,
            "storage": storage,
            "delete": delete,
            "digest": digest,
        }
        return self._task(await self._transport.post(self._path("move_disk"), **parameters))

    async def unlock(self, *, digest: str | None = None) -> None:
        """PUT …/config, to remove the lock. Needs VM.Config.Options, as root@pam without a token.

        With `digest`, a configuration that changed since it was read is refused.

        Source: PVE/API2/Qemu.pm.
        """
        parameters: Parameters = {"delete": "lock", "skiplock": True, "digest": digest}
        await self._transport.put(self._path("config"), **parameters)

    async def agent_ping(self) -> None:
        """POST …/agent/ping. Needs VM.GuestAgent.Audit (VM.Monitor until 8.4).

        Source: PVE/API2/Qemu/Agent.pm.
        """
        await self._transport.post(self._path("agent", "ping"))

    async def agent_os_info(self) -> OsInfo:
        """GET …/agent/get-osinfo. Needs VM.GuestAgent.Audit (VM.Monitor until 8.4).

        Source: PVE/API2/Qemu/Agent.pm.
        """
        command = "get-osinfo"
        return converted(command, await self._agent(command), lambda info: convert(info, OsInfo))

    async def agent_network(self) -> list[AgentInterface]:
        """GET …/agent/network-get-interfaces. Needs VM.GuestAgent.Audit (VM.Monitor until 8.4).

        Source: PVE/API2/Qemu/Agent.pm.
        """
        return await self._agent_rows(AgentInterface, "network-get-interfaces")

    async def agent_filesystems(self) -> list[Filesystem]:
        """GET …/agent/get-fsinfo. Needs VM.GuestAgent.Audit (VM.Monitor until 8.4).

        Source: PVE/API2/Qemu/Agent.pm.
        """
        return await self._agent_rows(Filesystem, "get-fsinfo")

    async def agent_exec(self, command: Sequence[str]) -> int:
        """POST …/agent/exec. Needs VM.GuestAgent.Unrestricted (VM.Monitor until 8.4).

        Starts a program with its arguments, without a shell; returns its PID in the guest. For a
        program that does not exist, Proxmox breaks the connection (NodeUnreachable, 596).

        Source: PVE/API2/Qemu/Agent.pm.
        """
        started = await self._transport.post(self._path("agent", "exec"), command=list(command))
        return converted("exec", started, lambda answer: int(answer["pid"]))

    async def agent_exec_status(self, pid: int) -> ExecStatus:
        """GET …/agent/exec-status. Needs VM.GuestAgent.Unrestricted (VM.Monitor until 8.4).

        Source: PVE/API2/Qemu/Agent.pm.
        """
        return await self._read(ExecStatus, "agent", "exec-status", pid=pid)

    async def agent_read_file(self, file: str, *, count: int | None = None) -> FileContent:
        """GET …/agent/file-read. Needs VM.GuestAgent.FileRead (VM.Monitor until 8.4).

        `count` is the most bytes to read, from 9.1 on; it is 16 MiB without, as in older versions.

        Source: PVE/API2/Qemu/Agent.pm.
        """
        return await self._read(FileContent, "agent", "file-read", file=file, count=count)

    async def _agent_rows(self, row: builtins.type[T], command: str) -> list[T]:
        """Return the rows of the guest agent's answer; a malformed one costs itself."""
        result = await self._agent(command)
        return converted(command, result, lambda rows: convert_rows(rows, row))

    async def _agent(self, command: str) -> Any:
        """Return the guest agent's answer; raise AgentRefused if it refused the command."""
        reply = await self._read(Reply, "agent", command)
        if failure := reply.failure:
            raise AgentRefused(200, failure.kind, failure.description or failure.kind)
        return reply.result
