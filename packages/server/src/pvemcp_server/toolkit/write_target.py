"""Checks on the target of a write, before anything is changed: protected, reachable, unlocked."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from proxmox_client import BadParameters, Lxc, ProxmoxError, Qemu
from proxmox_client.api.resources import GuestResource, NodeResource, StorageResource
from proxmox_client.api.status import GuestStatus
from proxmox_client.api.storage import StorageContentKind
from proxmox_client.properties import flag
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.errors import Precondition, UnknownName
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tables.registry import LoadRequest
from pvemcp_server.tables.rows import moment
from pvemcp_server.tables.tasks import CONSOLES
from pvemcp_server.tables.volumes import listed_volumes, unsupported_content
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import cluster_with
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.undo import LeftState, Undo

_NO_TARGET = "Writes may use the nodes and storages that a role names, also as targets."


@dataclass(frozen=True, slots=True)
class TargetGuest:
    """The guest of a write, with its live state and its API calls."""

    cluster: Cluster
    resource: GuestResource
    status: GuestStatus
    api: Qemu | Lxc

    @property
    def vmid(self) -> int:
        return self.resource.vmid

    @property
    def node(self) -> str:
        return self.api.node  # current after a migration, which the inventory may not know yet

    @property
    def state(self) -> str:
        """running, stopped or paused."""
        paused = self.status.is_paused and self.status.status == "running"
        return "paused" if paused else self.status.status

    @property
    def short_label(self) -> str:
        """The guest in a list of its cluster's: `101 (web)`."""
        name = self.status.name or self.resource.name
        return f"{self.vmid} ({shown_name(name) if name else 'no name'})"

    @property
    def label(self) -> str:
        """The guest in a sentence: `qemu 101 (web) on lab`."""
        return f"{self.resource.type} {self.short_label} on {self.cluster.name}"

    def undo(self, tool: str, left: LeftState | None = None, **arguments: Any) -> Undo:
        """Return how a write on it is undone, by a tool that takes `vmids`."""
        guest = {"cluster_name": self.cluster.name, "vmids": [self.vmid]}
        return Undo(NextCall(tool, guest | arguments), {self.vmid: left} if left else {})


async def writable_cluster(
    call: Call, name: str | None, *, vmids: Collection[int] = (), nodes: Collection[str] = ()
) -> Cluster:
    """Return the cluster of a write on a guest or node; raise Precondition if it is protected."""
    cluster = await cluster_with(call, name, vmids=vmids, nodes=nodes)
    refuse_protected(cluster)
    return cluster


def refuse_protected(cluster: Cluster) -> None:
    """Raise Precondition if the cluster is protected."""
    if cluster.protected:
        raise Precondition(
            f"Cluster {cluster.name} is protected: this server may not change anything on it.",
            hint="An administrator can remove the protection on the Clusters page.",
        )


async def target_guest(
    call: Call, name: str | None, vmid: int, *, locks: frozenset[str] | None = frozenset()
) -> TargetGuest:
    """Return the guest of a write.

    Raise Precondition if its cluster or one of its tags protects it, its node is offline, or it
    holds a lock that is not in `locks`; with None, every lock is allowed.
    """
    cluster = await writable_cluster(call, name, vmids=[vmid])
    resource = await cluster.guest(vmid)
    api = await cluster.handle(vmid)
    guest = TargetGuest(cluster, resource, await api.status(), api)
    tags = resource.tag_list + guest.status.tag_list
    await require_no_protected_tag(call, cluster, tags, guest.label)
    if guest.status.lock and locks is not None and guest.status.lock not in locks:
        command = "qm" if resource.type == "qemu" else "pct"
        raise Precondition(
            f"{guest.label} is locked ({shown_name(guest.status.lock)})"
            f"{await _lock_holder(guest)}: another operation is in progress.",
            hint="ListTasks with this vmid shows which; try again when it has ended. If none is "
            f"running, one that was aborted left the lock: UnlockVm, or an administrator on "
            f"{guest.node} with `{command} unlock {vmid}`, removes it.",
        )
    return guest


async def require_same_guest(call: Call, guest: TargetGuest) -> None:
    """Raise Precondition if the guest was renamed, replaced or protected since it was planned.

    For a write that has waited for others: its VMID may be that of another guest by now.
    """
    status = await guest.api.status()
    if status.name != guest.status.name:
        raise Precondition(
            f"{guest.label} has another name by now, so it may be another guest: not changed.",
            hint="Repeat the call if this guest is meant.",
        )
    await require_no_protected_tag(call, guest.cluster, status.tag_list, guest.label)


async def _lock_holder(guest: TargetGuest) -> str:
    """Return the task that works on a locked guest, and since when; empty if none is known."""
    try:
        rows = await guest.cluster.pve.cluster.tasks()
    except ProxmoxError:
        return ""
    own = (row for row in rows if row.running and row.id == str(guest.vmid))
    row = next((row for row in own if row.type not in CONSOLES), None)
    begun = moment(row.start_time) if row else None
    return f" since {begun:%Y-%m-%d %H:%MZ} by {shown_name(row.type)}" if row and begun else ""


def refuse_template(guest: TargetGuest, action: str) -> None:
    """Raise Precondition if the guest is a template; `action` completes "a template cannot …"."""
    if guest.resource.template or guest.status.template:
        raise Precondition(f"{guest.label} is a template, and a template cannot {action}.")


def refuse_ha_error(guest: TargetGuest) -> None:
    """Raise Precondition if HA has the guest in state error: its manager then ignores commands."""
    if guest.status.ha.state == "error":
        raise Precondition(
            f"HA has {guest.label} in state error and refuses commands.",
            hint="Disable it in HA, fix the cause, and enable it again.",
        )


async def target_node(guest: TargetGuest, name: str) -> NodeResource:
    """Return a node that the guest may be moved to, also its own node; refuse an offline one."""
    cluster = guest.cluster
    nodes = (await cluster.inventory.view()).by_node
    allowed = {
        n: node
        for n, node in nodes.items()
        if n == guest.node or cluster.scope.covers_target_node(n)
    }
    if name not in allowed:
        others = allowed.keys() - {guest.node}
        raise UnknownName("node", name, others, where=f"on {cluster.name}", blind=_NO_TARGET)
    await cluster.require_not_offline(name)
    return allowed[name]


async def granted_node(cluster: Cluster, name: str) -> NodeResource:
    """Return a node that a write may make guests on; refuse an offline one."""
    nodes = (await cluster.inventory.view()).by_node
    allowed = {n: node for n, node in nodes.items() if cluster.scope.covers_target_node(n)}
    if name not in allowed:
        raise UnknownName("node", name, allowed, where=f"on {cluster.name}", blind=_NO_TARGET)
    await cluster.require_not_offline(name)
    return allowed[name]


async def granted_pool(cluster: Cluster, name: str) -> None:
    """Raise UnknownName for a pool that does not exist or is not granted."""
    pools = {pool.pool for pool in (await cluster.inventory_view()).pools}
    if name not in pools:
        raise cluster.unknown("pool", name, pools)


async def require_inside_grant(
    cluster: Cluster, *, vmid: int | None, node: str, pool: str | None, tags: Iterable[str]
) -> None:
    """Raise Precondition if the key could not see a new guest; `vmid` is one that is named."""
    scope = cluster.scope
    if scope.covers_guest(vmid or 0, node=node, pool=pool or "", tags=tags):
        return
    pools = sorted({pool.pool for pool in (await cluster.inventory_view()).pools})
    raise Precondition(
        "The new guest would be outside of what the role of this key covers.",
        hint=f"Give pool: {', '.join(pools)}."
        if pools
        else "Give a pool or a VMID that it covers.",
    )


async def free_vmid(
    cluster: Cluster, vmid: int | None, *, least: int = 0, former: int | None = None
) -> int:
    """Return the VMID, or the next free one from `least` on; raise Precondition if it is in use.

    It is not reserved. Whose it is stays unsaid: the guest may be hidden. Backups and disks that a
    deleted guest left belong to the next guest with its VMID, so a role for a part of the cluster
    gets no such VMID; but that of the `former` guest which is restored.
    """
    scope = cluster.scope
    if vmid is None:
        vmid = max(await cluster.pve.cluster.nextid(), least)
        if scope.everything:
            return vmid
        guests = (await cluster.inventory.view()).by_vmid
        used = guests.keys() | await _owners_of_volumes(cluster, frozenset())
        vmid = next(number for number in count(vmid) if number not in used)
    elif not (scope.covers_guest(vmid) or vmid == former) and (
        await _owners_of_volumes(cluster, frozenset({vmid}))
    ):
        raise _unusable(cluster, vmid, "a deleted guest left backups or disks with it")
    try:
        return await cluster.pve.cluster.nextid(vmid)
    except BadParameters as error:
        if "vmid" not in error.errors:
            raise
        raise _unusable(cluster, vmid, error.errors["vmid"]) from error


def _unusable(cluster: Cluster, vmid: int, reason: str) -> Precondition:
    return Precondition(
        f"VMID {vmid} on {cluster.name} cannot be used: {reason}.",
        hint="Leave it out for the next free one.",
    )


async def _owners_of_volumes(cluster: Cluster, vmids: frozenset[int]) -> set[int]:
    """Return the VMIDs, of these or of all, that volumes have; storages may be hidden."""
    quiet = replace(cluster, notes=Notes())  # notes would be about storages that the call lacks
    kinds = frozenset[StorageContentKind]({"backup", "images", "rootdir"})
    places = await listed_volumes(quiet, LoadRequest(vmids=vmids), kinds)
    volumes = (volume for some in places.values() for volume in some)
    return {v.vmid for v in volumes if v.vmid is not None and (not vmids or v.vmid in vmids)}


async def volume_owners(cluster: Cluster, storages: Iterable[StorageResource]) -> set[int]:
    """Return the VMIDs that volumes of storages have, as far as their nodes list them."""
    kinds = frozenset[StorageContentKind]({"backup", "images", "rootdir"})
    holding = [row for row in storages if any(map(row.may_hold, kinds))]
    if not holding:
        return set()
    names = frozenset(row.storage for row in holding)
    request = LoadRequest(storages=names, nodes=frozenset(row.node for row in holding))
    places = await listed_volumes(cluster, request, kinds)
    return {v.vmid for some in places.values() for v in some if v.vmid is not None}


async def writable_storage(cluster: Cluster, name: str, node: str) -> StorageResource:
    """Return a storage that is granted itself, by its name or its node, and is available."""
    view = await cluster.inventory_view()
    nodes = {row.node for row in view.nodes} | {row.node for row in view.storages}
    if node not in nodes:
        raise cluster.unknown("node", node, nodes)
    await cluster.require_not_offline(node)
    storage = await cluster.storage(name, node)
    await _require_active(cluster, storage)
    return storage


async def _require_active(cluster: Cluster, storage: StorageResource) -> None:
    if not await is_active(cluster, storage):
        raise Precondition(f"Storage {storage.storage} is not active on {storage.node}.")


async def is_active(cluster: Cluster, storage: StorageResource) -> bool:
    """Return whether the storage can be used now; its node is asked if the inventory can't say."""
    if storage.is_available:
        return True
    return (await cluster.pve.storage(storage.node, storage.storage).status()).active


async def target_storage(cluster: Cluster, name: str, node: str, content: str) -> StorageResource:
    """Return a storage that a write for a guest may fill, is available and takes this content."""
    storages = {storage.storage: storage for storage in await target_storages(cluster, node)}
    if name not in storages:
        raise unknown_target_storage(cluster, name, node, storages)
    storage = storages[name]
    await _require_active(cluster, storage)
    require_content(storage, content, storages.values())
    return storage


def unknown_target_storage(
    cluster: Cluster, name: str, node: str, known: Iterable[str] = ()
) -> UnknownName:
    """Build the error for a storage that does not exist or that no write may fill."""
    if cluster.scope.everything:
        return cluster.unknown("storage", name, known, node=node)
    where = f"on {node} of {cluster.name}"
    return UnknownName("storage", name, known, where=where, blind=_NO_TARGET)


def require_content(
    storage: StorageResource, content: str, candidates: Iterable[StorageResource]
) -> None:
    """Raise Precondition if the storage does not accept the content; name candidates that do."""
    if not storage.may_hold(content):
        message, hint = unsupported_content(storage, content, candidates)
        raise Precondition(message, hint=hint)


async def all_storages(cluster: Cluster, node: str) -> list[StorageResource]:
    """List all storages of a node, also those not granted: checks of a guest's disks need them."""
    storages = (await cluster.inventory.view()).storages
    return [storage for storage in storages if storage.node == node]


async def target_storages(cluster: Cluster, node: str) -> list[StorageResource]:
    """List the storages of a node that a write for a guest of this caller may fill."""
    return [
        storage
        for storage in await all_storages(cluster, node)
        if cluster.scope.covers_target_storage(storage.storage, node=node)
    ]


async def require_no_protected_tag(
    call: Call, cluster: Cluster, tags: Iterable[str], guest: str
) -> None:
    """Raise Precondition if one of the tags is on the administrator's list of protected tags.

    Case counts only if it does on the cluster. Where that is unknown, the tag protects.
    """
    protected = set(call.settings.protected_tags)
    folded = {tag.casefold() for tag in protected}
    matches = {tag for tag in tags if tag.casefold() in folded}
    if matches and not matches & protected and await _is_tag_case_significant(cluster):
        return
    if matches:
        raise Precondition(
            f"{guest} is protected by its tag {', '.join(sorted(matches))}.",
            hint="Remove the tag in Proxmox first.",
        )


async def require_no_protected_owner(call: Call, cluster: Cluster, vmid: int, what: str) -> None:
    """Raise Precondition if a tag protects the guest of `what`; no tag of a hidden one is named."""
    guest = (await cluster.inventory.view()).by_vmid.get(vmid)
    if guest is None:
        return
    try:
        await require_no_protected_tag(call, cluster, guest.tag_list, f"Guest {vmid}, {what},")
    except Precondition:
        if vmid in (await cluster.inventory_view()).by_vmid:
            raise
        raise Precondition(f"Guest {vmid}, {what}, is protected.") from None


async def _is_tag_case_significant(cluster: Cluster) -> bool:
    """Return whether tags that differ only in case are different ones on the cluster."""
    try:
        options = await cluster.pve.cluster.options()
    except ProxmoxError:
        return False
    return flag(options.group("tag_style").get("case-sensitive"))
