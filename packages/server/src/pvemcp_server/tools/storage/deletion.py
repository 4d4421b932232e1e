"""Deleting what is on a storage, once it is known what it is and that nobody needs it."""

from collections.abc import Sequence
from functools import partial
from time import monotonic

from proxmox_client.api.storage import StorageContentKind, Volume
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument, Precondition, UnknownName
from pvemcp_server.tables.registry import Budget, LoadRequest
from pvemcp_server.tables.values import moment
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import NodeName, OneCluster, StorageName, Volid
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.volume_users import Uses, users_of
from pvemcp_server.toolkit.write_target import (
    online_node,
    require_no_protected_tag,
    storages_on,
    writable,
)

_LOOKS = 1000  # configurations read to find out whether a volume is in use
_SHARE_OF_LOOKS = 0.4  # of the time left: then a warning says how many are left
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
    cluster_name: OneCluster = None,
    node: NodeName,
    storage: StorageName,
    volid: Volid,
) -> Plan:
    """Delete a backup; refuses anything else."""
    return await _deletion(call, cluster_name, node, storage, volid, "backup")


@tool(
    "DeleteIso",
    title="Delete ISO",
    area=Area.STORAGE,
    effect=Effect.DESTROY,
    needs=(needs.STORAGES, needs.CONTENT, needs.GUESTS),
)
async def delete_iso(
    call: Call,
    *,
    cluster_name: OneCluster = None,
    node: NodeName,
    storage: StorageName,
    volid: Volid,
) -> Plan:
    """Delete an ISO image; refuses anything else and what is in a guest's drive."""
    return await _deletion(call, cluster_name, node, storage, volid, "iso")


@tool(
    "DeleteStorageContent",
    area=Area.STORAGE,
    effect=Effect.DESTROY,
    needs=(needs.STORAGES, needs.CONTENT, needs.GUESTS),
)
async def delete_storage_content(
    call: Call,
    *,
    cluster_name: OneCluster = None,
    node: NodeName,
    storage: StorageName,
    volid: Volid,
) -> Plan:
    """Delete a volume of any kind; refuses what a guest still uses."""
    return await _deletion(call, cluster_name, node, storage, volid, None)


async def _deletion(
    call: Call,
    cluster_name: str | None,
    node: str,
    storage: str,
    volid: str,
    kind: StorageContentKind | None,
) -> Plan:
    cluster = await writable(call, cluster_name)
    name = (await online_node(cluster, node)).node
    await _storage_is_there(cluster, storage, name)
    _refuse_elsewhere(volid, storage)
    calls = cluster.pve.storage(name, storage)
    known = await calls.content()
    visible = await _visible(cluster, storage, name, known)
    volume = _named(volid, visible, storage, kind)
    await _may_go(call, cluster, volume)
    budget = Budget(_LOOKS, monotonic() + call.seconds_left * _SHARE_OF_LOOKS)
    want = LoadRequest(nodes=frozenset({name}), budget=budget)
    uses = await users_of(cluster, volume, visible, known, want)
    _refuse_used(volume, uses)
    return Plan(
        cluster=cluster,
        would=f"Delete {_word(volume)} {volid} from {name}.",
        loses=_lost(volume, visible),
        warnings=_not_looked_at(cluster, volume, uses),
        ids={"node": name, "storage": storage, "volid": volid},
        act=partial(calls.delete, volid),
    )


def _refuse_elsewhere(volid: str, storage: str) -> None:
    place, _, name = volid.partition(":")
    if place != storage or not name:
        raise BadArgument("volid", f"{volid!r} is not on storage {storage}.")


async def _storage_is_there(cluster: Cluster, storage: str, node: str) -> None:
    found = {one.storage: one for one in await storages_on(cluster, node)}
    if storage not in found:
        seen = [one for one in found if cluster.scope.covers_storage(one, node=node)]
        raise cluster.unknown("storage", storage, seen, node=node)
    if found[storage].status != "available":
        raise Precondition(f"Storage {storage} is {found[storage].status} on {node}.")


async def _visible(cluster: Cluster, storage: str, node: str, known: list[Volume]) -> list[Volume]:
    """All of it for who may use the storage; else what belongs to guests that may be seen."""
    if cluster.scope.covers_storage(storage, node=node):
        return known
    guests = (await cluster.inventory_view()).by_vmid
    return [one for one in known if one.vmid in guests]


def _named(
    volid: str, known: list[Volume], storage: str, kind: StorageContentKind | None
) -> Volume:
    volume = next((one for one in known if one.volid == volid), None)
    if volume is None:
        alike = [one.volid for one in known if kind in (None, one.content)]
        raise UnknownName("volume", volid, alike, where=f"on {storage}")
    if kind is not None and kind != volume.content:
        raise Precondition(
            f"{volid} is no {_WORDS[kind]} but {_with_article(_word(volume))}.",
            hint="DeleteStorageContent deletes volumes of any kind.",
        )
    return volume


async def _may_go(call: Call, cluster: Cluster, volume: Volume) -> None:
    if volume.protected:
        raise Precondition(
            f"{volume.volid} is protected.", hint="Someone has to lift that in Proxmox first."
        )
    if volume.vmid is not None:
        known = (await cluster.inventory.view()).by_vmid
        if guest := known.get(volume.vmid):
            require_no_protected_tag(
                call, guest.tag_list, f"Guest {guest.vmid}, which it belongs to,"
            )


def _refuse_used(volume: Volume, uses: Uses) -> None:
    if uses.named:
        raise Precondition(f"{volume.volid} is still used by {', '.join(uses.named)}.")
    if uses.hidden:
        raise Precondition(f"{volume.volid} is still in use.")


def _not_looked_at(cluster: Cluster, volume: Volume, uses: Uses) -> tuple[str, ...]:
    warnings = []
    if uses.unread:
        guests = "1 guest" if uses.unread == 1 else f"{uses.unread} guests"
        warnings.append(f"{guests} could not be asked whether they still use {volume.volid}.")
    if uses.blind:
        warnings.append(
            f"{cluster.account} does not see all guests: one that it does not see may still use "
            f"{volume.volid}."
        )
    return tuple(warnings)


def _lost(volume: Volume, others: Sequence[Volume]) -> str:
    made = moment(volume.created)
    when = f" of {made:%Y-%m-%d %H:%M} UTC" if made else ""
    whose = f" of guest {volume.vmid}" if volume.vmid else ""
    size = f", {volume.size / 2**30:.1f} GiB," if volume.size else ""
    lost = f"This {_word(volume)}{whose}{when}{size} cannot be brought back."
    return f"{lost} It is the guest's last backup there." if _is_last(volume, others) else lost


def _is_last(volume: Volume, others: Sequence[Volume]) -> bool:
    alike = [one for one in others if (one.content, one.vmid) == ("backup", volume.vmid)]
    return volume.vmid is not None and alike == [volume]


def _with_article(word: str) -> str:
    return f"an {word}" if word[0].lower() in "aeiou" else f"a {word}"


def _word(volume: Volume) -> str:
    return _WORDS.get(volume.content, volume.content)
