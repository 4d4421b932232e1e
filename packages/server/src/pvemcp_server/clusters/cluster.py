"""A configured cluster, as far as the caller of one call may reach it."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

import proxmox_client
from proxmox_client import Client, Lxc, Qemu, deadline
from proxmox_client.api.resources import GuestResource, NodeResource, StorageResource
from pvemcp_server.access.model import Resources
from pvemcp_server.clusters.acl import Acl
from pvemcp_server.clusters.explain import explain
from pvemcp_server.clusters.inventory import Inventory, InventoryView
from pvemcp_server.clusters.notes import Notes
from pvemcp_server.clusters.offload import offload
from pvemcp_server.errors import UnknownName

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

# without these an account is shown none: Proxmox leaves them out and says nothing
_BLIND = {"guest": ("/vms", "VM.Audit"), "storage": ("/storage", "Datastore.Audit")}


@dataclass
class Cluster:
    """Handed to loaders and tools. `pve` is the client of the caller's Proxmox identity."""

    name: str
    description: str
    pve: Client
    account: str  # the token or user that Proxmox sees
    inventory: Inventory
    scope: Resources
    notes: Notes
    protected: bool = False
    tls: str = ""  # how its certificate is judged: system, ca, pinned or insecure
    _view: InventoryView | None = None
    _acl: list[Acl] = field(default_factory=list)  # shared by the copies of one call

    @property
    def acl(self) -> Acl:
        """The grants of the account, read when a sentence needs them."""
        if not self._acl:
            self._acl.append(Acl(self.pve, self.account))
        return self._acl[0]

    async def explain(self, error: BaseException) -> str:
        """Return what happened and what to do, with the line that adds a missing privilege."""
        missing = isinstance(error, proxmox_client.Forbidden) and error.privileges
        return explain(error, self.account, await self.acl.grants() if missing else None)

    async def inventory_view(self) -> InventoryView:
        """Guests, nodes, storages and pools that the caller may see; the same during one call."""
        if self._view is None:
            whole = await self.inventory.view()
            if whole.stale:
                self.notes.add(
                    f"{self.name} does not answer ({whole.stale}); "
                    f"this is what it said {whole.age:.0f} s ago."
                )
            size = 0 if self.scope.everything else len(whole.guests)
            self._view = await offload(size, lambda: whole.within(self.scope))
        return self._view

    def patience(self) -> AbstractContextManager[None]:
        """Little time for a cluster that is silent: the answers of the others wait for it."""
        silent = self.inventory.silent
        return deadline(self.inventory.short_patience) if silent else nullcontext()

    def within(self, scope: Resources) -> "Cluster":
        """The same cluster for the same caller, reaching no more than `scope`."""
        return replace(self, scope=scope, _view=None)

    async def guest(self, vmid: int) -> GuestResource:
        """The guest with that number, when there is one that the caller may see."""
        known = (await self.inventory_view()).by_vmid
        if vmid not in known:
            raise self.unknown("guest", vmid, _near(vmid, known))
        return known[vmid]

    async def handle(self, vmid: int) -> Qemu | Lxc:
        """The calls on that guest, at the node where it is now."""
        guest = await self.guest(vmid)
        calls = self.pve.qemu if guest.type == "qemu" else self.pve.lxc
        return calls(guest.node, vmid)

    async def node(self, name: str) -> NodeResource:
        known = (await self.inventory_view()).by_node
        if name not in known:
            raise self.unknown("node", name, known)
        return known[name]

    async def storage(self, name: str, node: str) -> StorageResource:
        """The storage as that node has it."""
        known = (await self.inventory_view()).storages
        for one in known:
            if (one.storage, one.node) == (name, node):
                return one
        here = {one.storage for one in known if one.node == node}
        raise self.unknown("storage", name, here, node=node)

    def unknown(
        self, kind: str, name: object, known: Iterable[object], *, node: str = ""
    ) -> UnknownName:
        """The error for what is not there; it says so when the account sees nothing at all."""
        where = f"on {node} of {self.name}" if node else f"on {self.name}"
        blind = _BLIND.get(kind) if self.scope.everything else None
        if blind is None:
            return UnknownName(kind, name, known, where=where)
        path, privilege = blind
        told = (
            f"{self.account} sees no {kind} there; if it lacks {privilege} on {path}, "
            "ExplainAccess says how to add it."
        )
        return UnknownName(kind, name, known, where=where, blind=told)

    async def online(self) -> list[str]:
        """Names of the visible nodes that are online; the others are noted as missing."""
        nodes = (await self.inventory_view()).nodes
        if offline := [one.node for one in nodes if one.status != "online"]:
            self.notes.add(f"Offline on {self.name}, so missing here: {', '.join(offline)}.")
        return [one.node for one in nodes if one.status == "online"]

    async def each(
        self, keys: Iterable[K], ask: Callable[[K], Awaitable[T]], *, what: str = ""
    ) -> dict[K, T]:
        """Ask for every key at once; one that fails is left out and noted, saying why."""
        found, missing = await self.answers(keys, ask)
        self.note_missing(missing, what)
        return found

    async def answers(
        self, keys: Iterable[K], ask: Callable[[K], Awaitable[T]]
    ) -> tuple[dict[K, T], dict[K, str]]:
        """Ask for every key at once: what was answered, and why the others were not."""
        wanted = list(keys)
        answers = await asyncio.gather(*(ask(key) for key in wanted), return_exceptions=True)
        found: dict[K, T] = {}
        missing: dict[K, str] = {}
        for key, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, proxmox_client.ProxmoxError | TimeoutError):
                missing[key] = await self.explain(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found[key] = answer
        return found, missing

    def note_missing(self, missing: Mapping[K, str], what: str) -> None:
        """Say what was not answered and why."""
        told = list(missing.items())[:3]  # hundreds of like reasons would bury the answer
        for key, reason in told:
            place = " at ".join(map(str, key)) if isinstance(key, tuple) else key
            name = f"{what} {place}".strip()
            self.notes.add(f"Missing from {self.name}: {name}. {reason}")
        if more := len(missing) - len(told):
            self.notes.add(f"Missing from {self.name} likewise: {more} more {what}s.")

    def changed(self) -> None:
        """Something was changed on this cluster: the next read asks Proxmox again."""
        self.inventory.invalidate()
        self._view = None


def _near(vmid: int, known: Iterable[int]) -> list[int]:
    return sorted(known, key=lambda one: abs(one - vmid))[:5]
