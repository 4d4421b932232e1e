"""The tool Undo: makes the call that reverses the key's last write."""

from typing import Any

from proxmox_client.api.guests import BothConfigs
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import AnyVm, ItsCluster
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.undo import KeptUndo, LeftState
from pvemcp_server.toolkit.write_target import TargetGuest, target_guest


@tool(
    "Undo",
    title="Undo last write",
    area=Area.VMS,
    effect=Effect.WRITE,
    may_lose_data=True,
    needs=(needs.GUESTS,),
)
async def undo_last_write(
    call: Call, *, cluster_name: ItsCluster = None, vmid: AnyVm = None
) -> KeptUndo:
    """Reverse this key's last write, or its last one on a cluster or guest."""
    cluster = None if cluster_name is None else (await call.cluster(cluster_name)).name
    kept = await call.undo_log.last(call.caller.key_id, cluster, vmid)
    if kept is None:
        raise Precondition(
            "No write of this key can be undone here.",
            hint="Only writes whose answer has `undo` can, for a week.",
        )
    undo = kept.undo
    if kept.newer:
        raise Precondition(
            f"No call undoes the last write ({kept.newer.rstrip('.')}).",
            hint=f"An older one ({kept.done.rstrip('.')}) is undone by {undo.call.text}",
        )
    for number, left in undo.left.items():
        guest = await target_guest(call, kept.cluster, number)
        if changed := await _changed(guest, left):
            raise Precondition(
                f"Not undone ({kept.done.rstrip('.')}): since then {guest.label} was changed, "
                f"{changed}.",
                hint=f"If it is still right, call {undo.call.text}",
            )
    return kept


async def _changed(guest: TargetGuest, left: LeftState) -> str:
    """Return what of the guest is different from what the write left; empty if nothing is."""
    if left.node is not None and guest.node != left.node:
        return f"it is on {guest.node}, no longer on {left.node}"
    if not (left.options or left.storages):
        return ""
    configs: BothConfigs[Any] = await guest.api.configs()
    for name, value in left.options.items():
        now = configs.pending.raw.get(name)
        if value != (None if now is None else str(now)):
            return f"its option {name} has another value"
    storages = {disk.id: disk.storage for disk in configs.current.disks}
    for disk, storage in left.storages.items():
        if storages.get(disk) != storage:
            return f"its disk {disk} is no longer on {storage}"
    return ""
