"""What a write is about, looked at before it is touched: protected, reachable, unlocked."""

from collections.abc import Iterable
from dataclasses import dataclass

from proxmox_client import Lxc, Qemu
from proxmox_client.api.resources import GuestResource, NodeResource, StorageResource
from proxmox_client.api.status import GuestStatus
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.locate import unsupported_content


@dataclass(frozen=True, slots=True)
class Target:
    """The guest of a write, with its live state and the calls on it."""

    cluster: Cluster
    resource: GuestResource
    status: GuestStatus
    calls: Qemu | Lxc

    @property
    def vmid(self) -> int:
        return self.resource.vmid

    @property
    def node(self) -> str:
        return self.calls.node  # follows a migration, which the inventory may not know yet

    @property
    def state(self) -> str:
        """running, stopped or paused."""
        paused = self.status.qmp_status in ("paused", "suspended")
        return "paused" if paused and self.status.status == "running" else self.status.status

    @property
    def said(self) -> str:
        """The guest in words: `qemu 101 (web) on lab`."""
        name = self.status.name or self.resource.name
        return f"{self.resource.type} {self.vmid} ({name or 'no name'}) on {self.cluster.name}"


async def writable(call: Call, name: str | None) -> Cluster:
    """The cluster of a write, unless it is protected."""
    cluster = await call.cluster(name)
    if cluster.protected:
        raise Precondition(
            f"Cluster {cluster.name} is protected: nothing may be changed on it through this.",
            hint="An administrator can lift that under Clusters.",
        )
    return cluster


async def target(
    call: Call, name: str | None, vmid: int, *, locks: frozenset[str] = frozenset()
) -> Target:
    """The guest of a write: not protected, its node online, no lock but those in `locks`."""
    cluster = await writable(call, name)
    resource = await cluster.guest(vmid)
    whole = await cluster.inventory.view()
    if (node := whole.by_node.get(resource.node)) is not None:
        _refuse_offline(cluster, node)
    calls = await cluster.handle(vmid)
    found = Target(cluster, resource, await calls.status(), calls)
    tags = resource.tag_list + found.status.tags.replace(",", ";").split(";")
    require_no_protected_tag(call, tags, found.said)
    if found.status.lock and found.status.lock not in locks:
        raise Precondition(
            f"{found.said} is locked ({found.status.lock}): another operation is at work on it.",
            hint="ListTasks with this vmid shows which; try again when it has ended.",
        )
    return found


async def require_unprotected(found: Target) -> None:
    """Refuse to lose data of a guest that Proxmox itself protects."""
    if (await found.calls.configs()).protection:
        raise Precondition(
            f"{found.said} has Proxmox's protection switched on.",
            hint="Someone has to switch it off in its options first.",
        )


def refuse_template(found: Target, what: str) -> None:
    if found.resource.template or found.status.template:
        raise Precondition(f"{found.said} is a template, and a template cannot {what}.")


async def online_node(cluster: Cluster, name: str) -> NodeResource:
    """A node that is there, may be used by this caller, and answers.

    Guests granted by tag, pool or number bring no nodes with them, yet move between them; so
    only a grant that names nodes narrows them.
    """
    scope = cluster.scope
    free = scope.everything or not scope.nodes
    every = (await cluster.inventory.view()).by_node
    known = {one: every[one] for one in every if free or scope.covers_node(one)}
    if name not in known:
        raise cluster.unknown("node", name, known)
    _refuse_offline(cluster, known[name])
    return known[name]


def _refuse_offline(cluster: Cluster, node: NodeResource) -> None:
    if node.status != "online":
        raise Precondition(f"Node {node.node} on {cluster.name} is {node.status}.")


async def usable_storage(cluster: Cluster, name: str, node: str, content: str) -> StorageResource:
    """A storage that is available on the node and takes this kind of content."""
    found = {one.storage: one for one in await storages_on(cluster, node)}
    if name not in found:
        raise cluster.unknown("storage", name, found, node=node)
    storage = found[name]
    if storage.status != "available":
        raise Precondition(f"Storage {name} is {storage.status} on {node}.")
    if content not in storage.content_list:
        message, hint = unsupported_content(storage, content, found.values())
        raise Precondition(message, hint=hint)
    return storage


async def storages_on(cluster: Cluster, node: str) -> list[StorageResource]:
    """The storages of a node that a write of this caller may use.

    As with nodes, only a grant that names storages narrows them.
    """
    rows = (await cluster.inventory.view()).storages
    scope = cluster.scope
    free = scope.everything or not scope.storages
    return [
        one
        for one in rows
        if one.node == node and (free or scope.covers_storage(one.storage, node=node))
    ]


def require_no_protected_tag(call: Call, tags: Iterable[str], whose: str) -> None:
    """Refuse to touch a guest with a tag that protects it."""
    if marks := set(tags) & set(call.settings.protected_tags):
        raise Precondition(
            f"{whose} is protected by its tag {', '.join(sorted(marks))}.",
            hint="Someone has to take the tag off in Proxmox first.",
        )
