"""Whether a write can still be undone: what it left is read after it, and compared before."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from proxmox_client import Lxc, ProxmoxError, Qemu
from proxmox_client.api.configs import MOST_BYTES, MOST_OPTIONS
from proxmox_client.api.guests import BothConfigs
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.undo import KeptUndo, LeftState, LeftValues, LeftVolume
from pvemcp_server.toolkit.write_target import TargetGuest, target_guest


async def left_config(api: Qemu | Lxc) -> LeftState:
    """Return the present configuration as what a write left; nothing if it cannot be read."""
    try:
        return LeftState(digest=(await api.config()).digest)
    except ProxmoxError:
        return LeftState()


def left_options(after: BothConfigs[Any], names: Iterable[str]) -> LeftState:
    """Return options of the configuration after a write as what it left."""
    values = {name: after.pending.raw.get(name) for name in names}
    return LeftState(options={n: None if v is None else str(v) for n, v in values.items()})


async def values_at(cluster: Cluster, path: str, **parameters: Any) -> Mapping[str, Any]:
    """Return the values at a path of Proxmox's API; empty if it answers with no single object.

    A list with one row is the object only if parameters have chosen it: otherwise it may be an
    index of what is below the path. One that is larger than any configuration is noted, and none.
    """
    data = await cluster.pve.raw("GET", path, **parameters)
    if isinstance(data, list) and len(data) == 1 and parameters:
        data = data[0]
    if not isinstance(data, Mapping):
        return {}
    if len(data) > MOST_OPTIONS or len(msgspec.json.encode(data)) > MOST_BYTES:
        cluster.notes.add(f"What is at {path} of {cluster.name} is too large to be compared.")
        return {}
    return data


async def values_now(cluster: Cluster, left: LeftValues) -> Mapping[str, Any]:
    """Return the present values of what a request left; members of a pool as it is sent them."""
    now = await values_at(cluster, left.path, **left.parameters)
    members = now.get("members")
    if not isinstance(members, list):
        return now
    return {**now, "vms": _listed(members, "vmid"), "storage": _listed(members, "storage")}


def _listed(members: list[Any], name: str) -> str:
    rows = (row for row in members if isinstance(row, Mapping))
    return ",".join(sorted({str(row[name]) for row in rows if name in row}))


def text_of(value: Any) -> str | None:
    """Return a value as Proxmox takes it; None for one that is no single value."""
    if isinstance(value, bool):
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else None


async def require_unchanged(call: Call, kept: KeptUndo) -> None:
    """Raise Precondition, with what is different, if something has changed what the write left."""
    for vmid, left in kept.undo.left.items():
        guest = await target_guest(call, kept.cluster, vmid)
        if changed := await _changed(guest, left):
            _refuse(kept, f"{guest.label} was changed, {changed}")
    if kept.undo.volume is not None:
        await _require_same_volume(call, kept, kept.undo.volume)
    if kept.undo.values is not None:
        await _require_same_values(call, kept, kept.undo.values)


def _refuse(kept: KeptUndo, fact: str) -> None:
    raise Precondition(
        f"Not undone ({kept.done.rstrip('.')}): since then {fact}.",
        hint=f"If it is still right, call {kept.undo.call.text}",
    )


async def _changed(guest: TargetGuest, left: LeftState) -> str:
    """Return what of the guest is different from what the write left; empty if nothing is."""
    if left.node is not None and guest.node != left.node:
        return f"it is on {guest.node}, not on {left.node}"
    if left.state is not None and guest.state != left.state:
        return f"it is {guest.state}, not {left.state}"
    if left.pid is not None and guest.status.pid != left.pid:
        return "it was started again"
    if left.snapshots:
        existing = {each.name: each for each in await guest.api.snapshots()}
        for name, created in left.snapshots.items():
            if name not in existing:
                return f"its snapshot {name!r} is gone"
            if created is not None and existing[name].created != created:
                return f"its snapshot {name!r} is another one"
    if left.digest is not None and (await guest.api.config()).digest != left.digest:
        return "its configuration is another one"
    if left.options or left.storages:
        return await _changed_options(guest, left)
    return ""


async def _changed_options(guest: TargetGuest, left: LeftState) -> str:
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


async def _require_same_volume(call: Call, kept: KeptUndo, left: LeftVolume) -> None:
    cluster = await call.cluster(kept.cluster)
    storage = cluster.pve.storage(left.node, left.volid.partition(":")[0])
    volume = {each.volid: each for each in await storage.content()}.get(left.volid)
    if volume is None:
        _refuse(kept, f"{left.volid} was deleted")
    elif (volume.size, volume.created) != (left.size, left.created):
        _refuse(kept, f"{left.volid} was replaced")


async def _require_same_values(call: Call, kept: KeptUndo, left: LeftValues) -> None:
    cluster = await call.cluster(kept.cluster)
    now = await values_now(cluster, left)
    changed = [name for name, value in left.values.items() if text_of(now.get(name)) != value]
    if changed:
        _refuse(kept, f"{', '.join(changed)} of {left.path} has another value")
