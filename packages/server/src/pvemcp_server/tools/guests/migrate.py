"""Moving guests to another node."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from proxmox_client import Lxc, Qemu, ResponseError, Task
from proxmox_client.api.configs import GuestDisk
from proxmox_client.api.guests import BothConfigs, MigrateCheck
from proxmox_client.api.resources import StorageResource
from proxmox_client.properties import flag, parse
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import NodeName, OneCluster, StorageName, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.write_target import Target, online_node, target, usable_storage

Online = Annotated[bool, Field(description="Move it running; a container is restarted")]
TargetStorage = Annotated[StorageName | None, Field(description="Storage for its local disks")]

_DEVICE = re.compile(r"(hostpci|usb|serial|parallel)\d+", re.ASCII)
_NO_SUCH_CALL = 501  # containers before Proxmox VE 9.0


@tool(
    "MigrateVm",
    title="Migrate guest",
    area=Area.VMS,
    effect=Effect.WRITE,
    needs=(needs.GUESTS, needs.MIGRATE),
)
async def migrate_vm(
    call: Call,
    *,
    cluster_name: OneCluster = None,
    vmid: VmId,
    target_node: NodeName,
    online: Online = False,
    target_storage: TargetStorage = None,
) -> Plan:
    """Move a VM or container to another node, live where it can be."""
    found = await target(call, cluster_name, vmid)
    await online_node(found.cluster, target_node)
    _state_allows_it(found, target_node, online)
    check = await _asked(found, target_node)
    configs = await found.calls.configs()
    _nothing_local(found, check, configs)
    local = await _disks_can_go(found, target_node, target_storage, check, configs.disks)
    live = online and found.state != "stopped"
    return Plan(
        cluster=found.cluster,
        would=f"Move {found.said} from {found.node} to {target_node}.",
        ids={"vmid": vmid, "target_node": target_node, "online": live},
        act=partial(_move, found, target_node, live, target_storage, bool(local)),
        warnings=tuple(_warnings(found, live, local, target_storage)),
    )


def _state_allows_it(found: Target, node: str, online: bool) -> None:
    if node == found.node:
        raise Precondition(f"{found.said} is on {node} already.")
    if found.state != "stopped" and not online:
        how = "restarted there" if found.resource.type == "lxc" else "moved while it runs"
        raise Precondition(f"{found.said} is {found.state}.", hint=f"With online=true it is {how}.")
    if found.status.ha.state == "error":
        raise Precondition(
            f"HA has {found.said} in state error and refuses commands.",
            hint="Someone has to disable it in HA, fix it, and enable it again.",
        )


async def _asked(found: Target, node: str) -> MigrateCheck | None:
    """What Proxmox sees in the way; nothing where this version does not say."""
    try:
        return await found.calls.migrate_check(node)
    except ResponseError as error:
        if error.status != _NO_SUCH_CALL:
            raise
        return None


def _nothing_local(found: Target, check: MigrateCheck | None, configs: BothConfigs[Any]) -> None:
    if check is not None and check.local_resources:
        raise Precondition(
            f"{found.said} uses devices of its node: {', '.join(check.local_resources)}.",
            hint="Detach them first.",
        )
    if waiting := _pending_devices(configs):
        raise Precondition(
            f"{found.said} will use devices of its node: {', '.join(waiting)}, "
            "pending until the guest restarts.",
            hint="Revert or detach them first.",
        )


def _pending_devices(configs: BothConfigs[Any]) -> list[str]:
    """Devices of the node that the guest gets at its next start; Proxmox checks present ones only.

    Mapped devices, sockets and SPICE are not bound to a node.
    """
    now, then = configs.current.raw, configs.pending.raw
    changed = [name for name in sorted(then) if then[name] != now.get(name)]
    devices = {name: parse(str(then[name]), "host") for name in changed if _DEVICE.fullmatch(name)}
    return [
        name
        for name, options in devices.items()
        if "mapping" not in options and options.get("host") not in ("socket", "spice")
    ]


async def _disks_can_go(
    found: Target,
    node: str,
    storage: str | None,
    check: MigrateCheck | None,
    attached: Sequence[GuestDisk],
) -> list[str]:
    """The disks that have to be copied, once it is known that there is a place for them."""
    content = "images" if found.resource.type == "qemu" else "rootdir"
    if storage is not None:
        await usable_storage(found.cluster, storage, node, content)
    here = {one.storage: one for one in await _storages(found, found.node)}
    _nothing_stays(found, attached, here)
    there = {one.storage for one in await _storages(found, node) if one.status == "available"}
    disks = [d for d in attached if d.storage and d.media != "cdrom"]
    local = [d for d in disks if d.storage in here and not here[d.storage].shared]
    if lost := [d for d in disks if d.storage not in there and not (storage and d in local)]:
        names = ", ".join(f"{one.id} on {one.storage}" for one in lost)
        raise Precondition(
            f"{node} cannot reach {names} of {found.said}.",
            hint="Name a target_storage that it has." if not storage else "",
        )
    _refused(found, node, storage, check)
    return list(dict.fromkeys(one.id for one in local))


def _nothing_stays(
    found: Target, disks: Sequence[GuestDisk], here: Mapping[str, StorageResource]
) -> None:
    """Refuse what Proxmox can neither copy nor find again: CDs and paths of the node."""
    for one in disks:
        storage = here.get(one.storage or "")
        shared = storage.shared if storage else flag(one.options.get("shared"))
        if shared:
            continue
        if one.volume == "cdrom" or (one.media == "cdrom" and _is_image(one)):
            raise Precondition(
                f"{found.said} has a local CD-ROM in its drive {one.id}: {one.volume}.",
                hint="Eject it first.",
            )
        if one.volume.startswith("/"):
            raise Precondition(
                f"{found.said} uses a path of its node: {one.id} is {one.volume}.",
                hint="Detach it first.",
            )


def _is_image(drive: GuestDisk) -> bool:
    """A CD somebody put in; the drive of cloud-init is made anew wherever the guest goes."""
    return drive.storage is not None and not drive.is_cloud_init


def _refused(found: Target, node: str, storage: str | None, check: MigrateCheck | None) -> None:
    """Proxmox lists the nodes that it allows; storages it misses may be made up for."""
    if check is None or not check.allowed_nodes or node in check.allowed_nodes:
        return
    why = {k: v for k, v in check.refused.get(node, {}).items() if k != "unavailable_storages"}
    if storage is None or why:
        raise Precondition(f"Proxmox does not allow {found.said} on {node}: {_reasons(why)}.")


def _reasons(why: dict[str, Any]) -> str:
    return (
        "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in why.items()) or "no reason"
    )


async def _storages(found: Target, node: str) -> list[StorageResource]:
    rows = (await found.cluster.inventory.view()).storages
    return [one for one in rows if one.node == node]


def _warnings(found: Target, live: bool, local: Sequence[str], storage: str | None) -> list[str]:
    said = []
    if live and found.resource.type == "lxc":
        said.append("Containers cannot move while they run: it is stopped and started there.")
    if local:
        where = f" to {storage}" if storage else ""
        said.append(f"Local disks are copied{where}, which may take long: {', '.join(local)}.")
    if found.status.ha.managed:
        said.append("HA manages this guest: its manager moves it, and the task ends before.")
    return said


async def _move(
    found: Target, node: str, live: bool, storage: str | None, with_local_disks: bool
) -> Task:
    if isinstance(found.calls, Qemu):
        copies = with_local_disks and live  # offline, Proxmox copies them without being told
        return await found.calls.migrate(
            node, online=live, target_storage=storage, with_local_disks=copies or None
        )
    calls: Lxc = found.calls
    return await calls.migrate(node, restart=live, target_storage=storage)
