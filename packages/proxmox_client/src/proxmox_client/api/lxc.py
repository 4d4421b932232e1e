"""Containers."""

from typing import Any, ClassVar, Literal

from msgspec import field

from proxmox_client.api.agent import ContainerInterface
from proxmox_client.api.configs import LxcConfig
from proxmox_client.api.guests import Guest, MigrateCheck
from proxmox_client.api.resources import GuestType
from proxmox_client.api.tasks import Task
from proxmox_client.json_decoder import Answer
from proxmox_client.transport import Parameters

LxcAction = Literal["start", "stop", "shutdown", "reboot", "suspend", "resume"]


class LxcPreconditions(Answer, frozen=True):
    """Proxmox's check of a container's migration (from 9.0)."""

    running: bool = False
    allowed_nodes: list[str] = field(name="allowed-nodes", default=[])
    not_allowed_nodes: dict[str, dict[str, Any]] = field(name="not-allowed-nodes", default={})


class Lxc(Guest[LxcConfig]):
    """Calls about one container."""

    type: ClassVar[GuestType] = "lxc"
    _config = LxcConfig
    _name_option = "hostname"

    async def power(
        self,
        action: LxcAction,
        *,
        timeout: int | None = None,  # noqa: ASYNC109 - a parameter for Proxmox
        force_stop: bool | None = None,
    ) -> Task:
        """POST …/status/{action}. Needs VM.PowerMgmt.

        `timeout` is in seconds, for shutdown and reboot; `force_stop` kills the container when a
        shutdown fails.

        Source: PVE/API2/LXC/Status.pm.
        """
        return await self._power(action, {"timeout": timeout, "forceStop": force_stop})

    async def create_snapshot(self, name: str, *, description: str | None = None) -> Task:
        """POST …/snapshot. Needs VM.Snapshot. For a name in use the task fails.

        Source: PVE/API2/LXC/Snapshot.pm.
        """
        path = self._path("snapshot")
        return self._task(await self._transport.post(path, snapname=name, description=description))

    async def migrate_check(self, target: str | None = None) -> MigrateCheck:
        """GET …/migrate (from 9.0; MethodMissing before). Needs VM.Migrate.

        Source: PVE/API2/LXC.pm.
        """
        check = await self._read(LxcPreconditions, "migrate", target=target)
        # reasons have dashes here, underscores for a virtual machine
        refused = {
            node: {name.replace("-", "_"): value for name, value in reasons.items()}
            for node, reasons in check.not_allowed_nodes.items()
        }
        return MigrateCheck(
            running=check.running, allowed_nodes=check.allowed_nodes, refused=refused
        )

    async def migrate(
        self, target: str, *, restart: bool | None = None, target_storage: str | None = None
    ) -> Task:
        """POST …/migrate. Needs VM.Migrate. A running container needs `restart`.

        Source: PVE/API2/LXC.pm.
        """
        parameters: Parameters = {
            "target": target,
            "restart": restart,
            "target-storage": target_storage,
        }
        return self._task(await self._transport.post(self._path("migrate"), **parameters))

    async def move_disk(
        self, disk: str, storage: str, *, delete: bool | None = None, digest: str | None = None
    ) -> Task:
        """POST …/move_volume. Needs VM.Config.Disk, and Datastore.AllocateSpace on the storage.

        The container has to be stopped. Without `delete` the old volume becomes unused.

        Source: PVE/API2/LXC.pm.
        """
        parameters: Parameters = {
            "volume": disk,
            "storage": storage,
            "delete": delete,
            "digest": digest,
        }
        return self._task(await self._transport.post(self._path("move_volume"), **parameters))

    async def interfaces(self) -> list[ContainerInterface]:
        """GET …/interfaces. Needs VM.Audit, and a running container.

        Source: PVE/API2/LXC.pm.
        """
        return await self._read(list[ContainerInterface], "interfaces")
