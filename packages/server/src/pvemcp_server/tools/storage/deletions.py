"""Deletion of volumes on a storage, after checks that they are the right kind and unused."""

import re
from collections.abc import Sequence
from functools import partial
from time import monotonic

from proxmox_client import ProxmoxError
from proxmox_client.api.storage import Storage, StorageContentKind, Volume
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument, Precondition, UnknownName
from pvemcp_server.shown_names import MOST_NAMES, shown_name, shown_volume
from pvemcp_server.tables.registry import Budget, LoadRequest
from pvemcp_server.tables.rows import moment
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, NodeName, StorageName, Volid
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import readable
from pvemcp_server.toolkit.volume_users import VolumeUsers, users_of
from pvemcp_server.toolkit.write_target import (
    require_no_protected_owner,
    writable_cluster,
    writable_storage,
)

_CONFIGS = 1000  # configurations read to find users of a volume; a warning counts the others
_SHARE_OF_SEARCH = 0.4  # of the time left: the search for users ends then
_WORDS = {
    "backup": "backup",
    "iso": "ISO image",
    "vztmpl": "container template",
    "images": "disk image",
    "rootdir": "container volume",
    "snippets": "snippet",
    "import": "image to import",
}


@tool(
    "DeleteBackup", area=Area.STORAGE, effect=Effect.DESTROY, needs=(needs.STORAGES, needs.CONTENT)
)
async def delete_backup(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    node: NodeName,
    storage: StorageName,
    volid: Volid,
) -> Plan:
    """Delete a backup; refuses anything else."""
    return await _deletion_plan(call, cluster_name, node, storage, volid, "backup")


@tool(
    "DeleteIso",
    title="Delete ISO",
    area=Area.STORAGE,
    effect=Effect.DESTROY,
    toolset=Toolset.CONTENT,
    needs=(needs.STORAGES, needs.CONTENT, needs.GUESTS),
)
async def delete_iso(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    node: NodeName,
    storage: StorageName,
    volid: Volid,
) -> Plan:
    """Delete an ISO image; refuses anything else and what is in a guest's drive."""
    return await _deletion_plan(call, cluster_name, node, storage, volid, "iso")


@tool(
    "DeleteStorageContent",
    area=Area.STORAGE,
    effect=Effect.DESTROY,
    toolset=Toolset.CONTENT,
    needs=(needs.STORAGES, needs.CONTENT, needs.GUESTS),
)
async def delete_storage_content(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    node: NodeName,
    storage: StorageName,
    volid: Volid,
) -> Plan:
    """Delete a volume of any kind; refuses what a guest still uses."""
    return await _deletion_plan(call, cluster_name, node, storage, volid, None)


async def _deletion_plan(
    call: Call,
    cluster_name: str | None,
    node: str,
    storage: str,
    volid: str,
    kind: StorageContentKind | None,
) -> Plan:
    """Check the volume and plan its deletion; with `kind`, other kinds are refused."""
    cluster = await writable_cluster(call, cluster_name, nodes=[node])
    prefix, colon, name = volid.partition(":")
    if colon and (prefix != storage or not name):
        raise BadArgument("volid", f"{volid!r} is not on storage {storage}.")
    api = cluster.pve.storage(node, storage)
    if cluster.scope.covers_storage(storage, node=node):
        await writable_storage(cluster, storage, node)
        visible = volumes = await api.content()
    else:
        volumes = await _hidden_content(cluster, api)
        guests = (await cluster.inventory_view()).by_vmid
        visible = [volume for volume in volumes if volume.vmid in guests]
    volume = _named(volid, visible, storage, kind)
    await _require_unprotected_volume(call, cluster, volume)
    budget = Budget(_CONFIGS, monotonic() + call.seconds_left * _SHARE_OF_SEARCH)
    request = LoadRequest(nodes=frozenset({node}), budget=budget)
    users = await users_of(cluster, volume, visible, volumes, request)
    if users.named:
        more = len(users.named) - MOST_NAMES
        rest = f" and {more} more" if more > 0 else ""
        raise Precondition(f"{volid} is still used by {', '.join(users.named[:MOST_NAMES])}{rest}.")
    if users.hidden:
        raise Precondition(f"{volid} is still in use.")
    return Plan(
        cluster=cluster,
        would=f"Delete {_word(volume)} {shown_volume(volid)} from {node}.",
        loses=_loss(volume, visible),
        warnings=tuple(_warnings(cluster, volid, users)),
        ids={"node": node, "storage": storage, "volid": volid},
        act=partial(api.delete, volid),
    )


async def _hidden_content(cluster: Cluster, api: Storage) -> list[Volume]:
    """List the volumes of a storage that is not granted; the caller sees those of its guests only.

    A storage that does not exist or does not answer has none: any other answer would confirm which
    storages and nodes there are.
    """
    places = {(row.node, row.storage) for row in (await cluster.inventory.view()).storages}
    if (api.node, api.name) not in places:
        return []
    try:
        return await api.content()
    except ProxmoxError:
        return []


def _named(
    volid: str, volumes: list[Volume], storage: str, kind: StorageContentKind | None
) -> Volume:
    """Return the volume with that id; raise if there is none or it is of another kind."""
    volume = next((v for v in volumes if v.volid == volid), None)
    if volume is None:
        candidates = [v.volid for v in volumes if kind in (None, v.content)]
        same_file = [c for c in candidates if re.split("[:/]", c)[-1] == volid]
        candidates = same_file or candidates
        raise UnknownName("volume", volid, candidates, where=f"on {storage}")
    if kind is not None and kind != volume.content:
        word = _word(volume)
        article = "an" if word[0].lower() in "aeiou" else "a"
        raise Precondition(
            f"{volid} is no {_WORDS[kind]} but {article} {word}.",
            hint="DeleteStorageContent deletes volumes of any kind.",
        )
    return volume


async def _require_unprotected_volume(call: Call, cluster: Cluster, volume: Volume) -> None:
    """Raise Precondition if the volume, or a tag of the guest it belongs to, protects it."""
    if volume.protected:
        raise Precondition(
            f"{volume.volid} is protected.", hint="Remove its protection in Proxmox first."
        )
    if volume.vmid is not None:
        await require_no_protected_owner(call, cluster, volume.vmid, "which it belongs to")


def _warnings(cluster: Cluster, volid: str, users: VolumeUsers) -> list[str]:
    """Return warnings about guests that were not checked for using the volume."""
    warnings, volume = [], shown_volume(volid)
    if users.unread:
        guests = cluster.counted(users.unread, "guest")
        warnings.append(f"{guests[0].upper()}{guests[1:]} could not be checked for using {volume}.")
    if users.blind:
        warnings.append(
            f"{cluster.account} does not see all guests: one that it does not see may still use "
            f"{volume}."
        )
    return warnings


def _loss(volume: Volume, volumes: Sequence[Volume]) -> str:
    """Describe what is lost, and warn if it is the guest's last backup on the storage."""
    created = moment(volume.created)
    time = f" of {created:%Y-%m-%d %H:%M} UTC" if created else ""
    guest = f" of guest {volume.vmid}" if volume.vmid else ""
    size = f", {readable(volume.size)}," if volume.size else ""
    loss = f"This {_word(volume)}{guest}{time}{size} cannot be restored."
    backups = [v for v in volumes if (v.content, v.vmid) == ("backup", volume.vmid)]
    is_last = volume.vmid is not None and backups == [volume]
    return f"{loss} It is the guest's last backup there." if is_last else loss


def _word(volume: Volume) -> str:
    return _WORDS.get(volume.content) or shown_name(volume.content)
