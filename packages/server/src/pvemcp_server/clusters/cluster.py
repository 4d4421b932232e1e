"""A configured cluster, as far as the caller of one call may see it, and its notes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Final, NamedTuple, TypeVar

import proxmox_client
from proxmox_client import BackupServer, Client, Lxc, ProxmoxError, Qemu, deadline
from proxmox_client.api.cluster import ClusterStatus
from proxmox_client.api.resources import GuestResource, NodeResource, StorageResource
from pvemcp_server.access.freezes import Freeze
from pvemcp_server.access.model import Resources
from pvemcp_server.clusters.acl import Acl
from pvemcp_server.clusters.explain import explain
from pvemcp_server.clusters.inventory import Inventory, InventoryView
from pvemcp_server.errors import (
    CallError,
    Precondition,
    StateUnavailable,
    UnknownName,
    counted,
    plural,
)
from pvemcp_server.shown_names import listed_names, shown_volume
from pvemcp_server.store.database import is_outage
from pvemcp_server.store.history_repository import History
from pvemcp_server.store.records import ClusterKind

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_AT_ONCE: Final = 1_000  # requests of one question; the client itself holds fewer open
MANY: Final = 2000  # items; about five milliseconds of work
_NAMED = 3  # missing answers that are noted one by one
# Without these privileges Proxmox leaves the resources out silently
_VISIBILITY = {"guest": ("/vms", "VM.Audit"), "storage": ("/storage", "Datastore.Audit")}

log = logging.getLogger(__name__)


def backup_server_hint(name: str) -> str:
    """Return what a tool that reads Proxmox VE only answers about a backup server."""
    return (
        f"{name} is a Proxmox Backup Server: ExecuteQuery reads it by the tables pbs_datastores, "
        "pbs_snapshots and pbs_jobs."
    )


def datastores_hint(names: Sequence[str]) -> str:
    """Return where the datastores of backup servers are, as they are no storages."""
    return f"ExecuteQuery has the datastores of {' and '.join(names)} in the table pbs_datastores."


def jobs_hint(names: Sequence[str]) -> str:
    """Return where the jobs of backup servers are, as Proxmox VE has no tasks of them."""
    return (
        f"ExecuteQuery has the last runs of jobs of {' and '.join(names)} (sync, prune, verify, "
        "garbage collection) in the table pbs_jobs."
    )


class Cut(NamedTuple):
    """A part of a read on one cluster that a budget left out: `number` of `total`."""

    cluster: str
    number: int
    total: int
    what: str
    predicate: str  # not read
    why: str  # with the next step


class NoteKind(NamedTuple):
    """What a note is about, if it isn't a part of the read that failed."""

    advice: bool  # it explains what an account doesn't see
    offline: AbstractSet[str]  # the nodes that it names, if it only says that they are offline
    fact: bool  # it says what the rows, or their absence, say as well
    cut: Cut | None = None


class Notes(dict[str, NoteKind]):
    """Sentences beside an answer's data, about missing, cut or old data, in order, each once."""

    def add(
        self,
        sentence: str,
        *,
        advice: bool = False,
        offline: AbstractSet[str] = frozenset(),
        fact: bool = False,
    ) -> None:
        self[sentence] = NoteKind(advice, offline, fact)

    def add_cut(self, cut: Cut) -> None:
        """Add a note of a read that left out a part of one cluster."""
        parts = f"{cut.number} of {counted(cut.total, cut.what)} on {cut.cluster}"
        sentence = f"Incomplete: {parts} {cut.predicate}: {cut.why}"
        self[sentence] = NoteKind(advice=False, offline=frozenset(), fact=False, cut=cut)

    def fold_cuts(self) -> None:
        """Make one note of those that say the same of more than a few clusters."""
        alike: dict[tuple[str, str, str], dict[str, Cut]] = {}
        for sentence, kind in self.items():
            if cut := kind.cut:
                alike.setdefault((cut.what, cut.predicate, cut.why), {})[sentence] = cut
        for (what, predicate, why), cuts in alike.items():
            if len(cuts) <= _NAMED:
                continue
            for sentence in cuts:
                del self[sentence]
            number = sum(cut.number for cut in cuts.values())
            total = counted(sum(cut.total for cut in cuts.values()), what)
            every = [f"{cut.cluster} {cut.number} of {cut.total}" for cut in cuts.values()]
            named = f"{', '.join(every[:_NAMED])} and {len(every) - _NAMED} more"
            self.add(
                f"Incomplete: {number} of {total} on {len(every)} clusters {predicate} ({named}): "
                f"{why} Or read one cluster alone: cluster_name."
            )


async def offload(size: int, work: Callable[[], T]) -> T:
    """Run work on `size` items: in a thread if they would block the event loop, else directly."""
    return await asyncio.to_thread(work) if size > MANY else work()


async def outcome_of(read: Awaitable[T], what: str) -> T | Exception:
    """Return the result of a read, or the error that ended it.

    Any error counts: an answer that we cannot handle must not cost the rows of other clusters. An
    unexpected one is logged with its traceback; `explain` refers to the log. Raise
    StateUnavailable and other errors of a database that is away: the whole call waits for it.
    """
    try:
        return await read
    except StateUnavailable:
        raise
    except (CallError, ProxmoxError, TimeoutError) as error:
        return error
    except Exception as error:
        if is_outage(error):
            raise
        log.exception("Reading %s failed", what)
        return error


async def _not_frozen() -> None:
    """Return that writes are not frozen."""


@dataclass
class Cluster:
    """A cluster as loaders and tools get it. Its client uses the caller's Proxmox account."""

    name: str
    description: str
    client: Client | BackupServer
    account: str  # the token or user that Proxmox sees
    inventory: Inventory
    scope: Resources
    notes: Notes
    protected: bool = False
    read_freeze: Callable[[], Awaitable[Freeze | None]] = _not_frozen
    tls: str = ""  # how its certificate is checked: system, ca, pinned or insecure
    history: History | None = None  # what the server noted as this account
    on_write: Callable[[], None] = lambda: None  # marks all inventories of the cluster as outdated
    _view: InventoryView | None = None
    _acl: list[Acl] = field(default_factory=list)  # one list for all copies in a call

    @property
    def kind(self) -> ClusterKind:
        """Whether it is a cluster of Proxmox VE or a backup server."""
        return ClusterKind.PBS if isinstance(self.client, BackupServer) else ClusterKind.PVE

    @property
    def pve(self) -> Client:
        """The client of a Proxmox VE cluster; raise CallError for a backup server."""
        if isinstance(self.client, BackupServer):
            raise CallError(backup_server_hint(self.name))
        return self.client

    @property
    def pbs(self) -> BackupServer:
        """The client of a backup server; raise CallError for a Proxmox VE cluster."""
        if not isinstance(self.client, BackupServer):
            raise CallError(f"{self.name} is no Proxmox Backup Server.")
        return self.client

    @property
    def acl(self) -> Acl:
        """The account's grants, read on first use."""
        if not self._acl:
            self._acl.append(Acl(self.pve, self.account))
        return self._acl[0]

    async def explain(self, error: BaseException) -> str:
        """Return what happened and what to do, with the line that adds a missing privilege."""
        missing = isinstance(error, proxmox_client.Forbidden) and error.privileges
        return explain(error, self.account, await self.acl.grants() if missing else None)

    async def inventory_view(self) -> InventoryView:
        """Return the visible guests, nodes, storages and pools; the same view during one call."""
        if self._view is None:
            whole = await self.inventory.view()
            if whole.stale:
                silent = f"{self.name} does not answer ({whole.stale})"
                self.notes.add(
                    f"{whole.stale if whole.is_delayed else silent}; "
                    f"this is its state from {monotonic() - whole.taken:.0f} s ago."
                )
            if self.scope.everything:
                self._view = whole
            else:
                self._view = await offload(len(whole.guests), lambda: whole.within(self.scope))
            if whole.malformed:
                self.note_malformed(whole.malformed)
        return self._view

    def short_deadline(self) -> AbstractContextManager[None]:
        """Set a short deadline for a cluster that just failed, so that it does not delay others."""
        failure = self.inventory.failure
        silent = failure is not None and not isinstance(failure, proxmox_client.Delayed)
        return deadline(self.inventory.short_timeout) if silent else nullcontext()

    def within(self, scope: Resources) -> "Cluster":
        """Return the same cluster for the same caller, with a narrower scope."""
        return replace(self, scope=scope, _view=None)

    async def guest(self, vmid: int) -> GuestResource:
        """Return the visible guest with that VMID; raise UnknownName."""
        guests = (await self.inventory_view()).by_vmid
        if vmid not in guests:
            near = sorted(guests, key=lambda other: abs(other - vmid))[:5]
            raise self.unknown("guest", vmid, near, more=len(guests) - len(near))
        return guests[vmid]

    async def handle(self, vmid: int) -> Qemu | Lxc:
        """Return the client's handle of a guest, at the node where it is now.

        Raise Precondition if that node is offline, or malformed in the inventory.
        """
        guest = await self.guest(vmid)
        await self.require_not_offline(guest.node)
        return self.api_of(guest)

    async def readable(self, vmid: int) -> Qemu | Lxc:
        """Return the handle of a guest to read: the nodes are asked if its row is malformed.

        Raise UnknownName, and Precondition as `handle` does.
        """
        view = await self.inventory_view()
        guest = view.by_vmid.get(vmid)
        # a row without its number may be that of any guest: a narrow scope can't be applied to it
        is_lost = guest is None and bool(view.malformed) and self.scope.everything
        if (guest and not guest.node) or is_lost:
            for api in await self._found(vmid, guest.type if guest else ""):
                self.notes.add(
                    f"Guest {vmid} was found on {api.node} of {self.name} by asking all nodes: its "
                    "row in Proxmox's inventory is malformed, so lists may lack it."
                )
                return api
        return await self.handle(vmid)

    async def _found(self, vmid: int, kind: str) -> list[Qemu | Lxc]:
        """Ask all nodes that are not offline for a guest; without `kind`, for both."""
        view = await self.inventory.view()
        nodes = view.by_node.keys() - view.offline_nodes
        kinds = [kind] if kind else ["qemu", "lxc"]
        places = [(node, each) for node in sorted(nodes) for each in kinds]
        paths = {place: f"/nodes/{place[0]}/{place[1]}/{vmid}/status/current" for place in places}
        answers, _ = await self.ask_all(paths, lambda p: self.pve.transport.get(paths[p], object))
        return [
            (self.pve.qemu if each == "qemu" else self.pve.lxc)(node, vmid)
            for node, each in answers
        ]

    def api_of(self, guest: GuestResource) -> Qemu | Lxc:
        """Return the client's handle of a guest, whether the caller may see it or not.

        Raise Precondition if its node is malformed in the inventory.
        """
        if not guest.node:
            raise Precondition(
                f"The node of guest {guest.vmid} on {self.name} is unknown: its row in Proxmox's "
                "inventory is malformed.",
                hint="GetVmStatus looks for it on all nodes.",
            )
        handle = self.pve.qemu if guest.type == "qemu" else self.pve.lxc
        return handle(guest.node, guest.vmid)

    async def node(self, name: str) -> NodeResource:
        """Return the visible node of that name; raise UnknownName."""
        nodes = (await self.inventory_view()).by_node
        if name not in nodes:
            raise self.unknown("node", name, nodes)
        return nodes[name]

    async def require_not_offline(self, node: str) -> None:
        """Raise Precondition if the node has left the cluster: asking it would only wait.

        A node without statistics is asked.
        """
        if node in (await self.inventory.view()).offline_nodes:
            raise Precondition(
                f"Node {node} on {self.name} is offline. ListNodeRrdData shows until when it ran."
            )

    async def storage(self, name: str, node: str) -> StorageResource:
        """Return the storage as that node has it; raise UnknownName."""
        storages = (await self.inventory_view()).storages
        for storage in storages:
            if (storage.storage, storage.node) == (name, node):
                return storage
        here = {storage.storage for storage in storages if storage.node == node}
        raise self.unknown("storage", name, here, node=node)

    def unknown(
        self, kind: str, name: object, known: Iterable[object], *, node: str = "", more: int = 0
    ) -> UnknownName:
        """Build the error for an unknown name; `more` counts names that `known` leaves out.

        When the account sees no resource of this kind at all, the error names the privilege that
        it may lack. A caller with a narrow scope doesn't get that: it would reveal hidden
        resources.
        """
        where = f"on {node} of {self.name}" if node else f"on {self.name}"
        where += self._view.doubt if self._view else ""
        needed = _VISIBILITY.get(kind) if self.scope.everything else None
        if needed is None:
            return UnknownName(kind, name, known, where=where, more=more)
        path, privilege = needed
        hint = (
            f"{self.account} sees no {kind} there; if it lacks {privilege} on {path}, "
            "ExplainAccess says how to add it."
        )
        return UnknownName(kind, name, known, where=where, blind=hint, more=more)

    def note_without_statistics(self, nodes: AbstractSet[str]) -> None:
        """Note the nodes whose statistics are missing, though they are members and are asked."""
        self.notes.add(
            f"Proxmox has no current statistics of {listed_names(sorted(nodes))} on {self.name}: "
            "the state and use of what is there is unknown, not offline."
        )

    async def ask_all(
        self, keys: Iterable[K], ask: Callable[[K], Awaitable[T]]
    ) -> tuple[dict[K, T], dict[K, str]]:
        """Call `ask` for every key concurrently; return the answers and the reasons of failures.

        An unexpected error is a reason too, and is logged. No more than _AT_ONCE calls have begun:
        a host can list hundreds of thousands of nodes.
        """
        every = list(keys)

        async def answer(key: K) -> T:  # also an error that is raised before anything is awaited
            return await ask(key)

        outcomes: list[T | Exception] = []
        for start in range(0, len(every), _AT_ONCE):
            some = every[start : start + _AT_ONCE]
            outcomes += await asyncio.gather(
                *(outcome_of(answer(key), f"{key} on {self.name}") for key in some)
            )
        answers: dict[K, T] = {}
        missing: dict[K, str] = {}
        for key, outcome in zip(every, outcomes, strict=True):
            if isinstance(outcome, Exception):
                missing[key] = await self.explain(outcome)
            else:
                answers[key] = outcome
        return answers, missing

    async def optional(self, answer: Awaitable[T], failure: str) -> T | None:
        """Await a part of an answer; if it fails, note `failure` with the reason, return None."""
        try:
            return await answer
        except ProxmoxError as error:
            self.notes.add(f"{failure}: {await self.explain(error)}")
            return None

    async def membership(self, failure: str) -> ClusterStatus | None:
        """Return name, quorum and members; note failures, and a partition without quorum."""
        membership = await self.optional(self.pve.cluster.status(), failure)
        if membership and membership.cut_off:
            visible = filter(self.scope.covers_node, membership.cut_off)
            nodes = listed_names(visible) or "some nodes"
            self.notes.add(
                f"{self.name} is split: {nodes} without quorum, where nothing can be changed; this "
                "answer is of the other nodes, which have it."
            )
        return membership

    def note_missing(self, missing: Mapping[K, str], what: str) -> None:
        """Note missing answers with their reasons; hundreds of them would bury the answer."""
        named = list(missing.items())[:_NAMED]
        for key, reason in named:
            keys = key if isinstance(key, tuple) else (key,)
            named_by_host = (shown_volume(k) if isinstance(k, str) else str(k) for k in keys)
            place = " at ".join(filter(None, named_by_host))
            name = f"{what} {place}".strip()
            self.notes.add(f"Missing from {self.name}: {name}. {reason}")
        if more := len(missing) - len(named):
            rest = counted(more, f"more {what or 'part'}")
            self.notes.add(f"Missing from {self.name} likewise: {rest}.")

    def note_malformed(self, left_out: Sequence[str]) -> None:
        """Note rows and values that could not be read; they may be about hidden resources."""
        left_out = list(dict.fromkeys(left_out))  # an option in force and pending is there twice
        named, more = ", ".join(left_out[:_NAMED]), len(left_out) - _NAMED
        rest = f" and {more} more" if more > 0 else ""
        what = f"{named}{rest}" if self.scope.everything else "some rows or values"
        self.notes.add(f"Malformed on {self.name}, so missing here: {what}.")

    def counted(self, number: int, what: str) -> str:
        """Return a number of things that may be hidden, for a note: a narrow scope gets none."""
        return counted(number, what) if self.scope.everything else f"some {plural(what)}"

    def note_narrow_scope(self, what: str) -> None:
        """Note that an empty answer may be due to the role, which covers a part of the cluster."""
        if not self.scope.everything:
            self.notes.add(
                f"The role of this key covers a part of {self.name} only, and no {what} in it."
            )

    def changed(self) -> None:
        """Drop the cached inventories after a write, so that the next read asks Proxmox.

        Those of all accounts, and in all processes within a second.
        """
        self.on_write()
        self.read_again()

    def read_again(self) -> None:
        """Drop the cached inventory of this account, so that the next read asks Proxmox."""
        self.inventory.invalidate()
        self._view = None
