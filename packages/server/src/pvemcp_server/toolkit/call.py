"""One tool call in progress: caller, reachable clusters, deadline, and notes for the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum, auto
from time import monotonic
from typing import Protocol, TypeVar

from proxmox_client import deadline
from proxmox_client.properties import whole_number
from pvemcp_server.access.limits import CallLimits
from pvemcp_server.access.model import Caller, Effect
from pvemcp_server.clusters import (
    Cluster,
    Clusters,
    InventoryView,
    Notes,
    backup_server_hint,
    datastores_hint,
    explain,
    jobs_hint,
    outcome_of,
)
from pvemcp_server.errors import BadArgument, CallError, UnknownName
from pvemcp_server.settings import Values
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.registry import Shares
from pvemcp_server.toolkit.charts import Chart
from pvemcp_server.toolkit.undo import Undo, UndoLog

T = TypeVar("T")

NO_CLUSTER = (
    "No cluster is available: none is configured, or your role and key grant none. "
    "An administrator adds clusters and grants them in roles and keys."
)
_LOOKUP_SECONDS = 5.0  # for a guest or node on each cluster
_SHARE_OF_CLUSTERS = 0.9  # of the time left: the rest is for the answer of the other clusters


class Decision(Enum):
    """The outcome of a question to the user."""

    YES = auto()
    NO = auto()
    OUTDATED = auto()  # agreed to, and the configuration was changed since it was asked
    NOT_TICKED = auto()  # accepted, but without the tick that means consent
    DISMISSED = auto()  # closed without a decision, by a user or by a client without one
    CANNOT_ASK = auto()  # the client never said that it could
    NO_ANSWER = auto()  # the client was asked, and gave no decision


class Conversation(Protocol):
    """The client while a call runs; package `mcp` implements it for each protocol era."""

    @property
    def client(self) -> str:
        """Name and version of the client program, for the audit."""

    @property
    def wants_progress(self) -> bool:
        """Whether the client asked for progress."""

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Report how far the call is; nothing happens if the client did not ask for it."""

    async def ask(self, question: str, beside: str = "", digest: str = "") -> Decision:
        """Ask the user for consent; `beside` are facts that may change before the answer.

        `digest` is of the configuration that the plan was made from, which may not.
        """


@dataclass
class Call:
    """Handed to every tool: the caller, their clusters, the deadline, and what the audit needs."""

    caller: Caller
    tool: str
    effect: Effect
    source: Clusters
    settings: Values  # as of the start of the call
    conversation: Conversation
    undo_log: UndoLog
    deadline: float  # on the monotonic clock
    kinds: frozenset[ClusterKind] = frozenset(ClusterKind)  # those that the tool reads
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server stops
    dry_run: bool = False
    wait: bool = False
    wait_ends: float | None = None  # on the monotonic clock: of a bulk write, one for all its tasks
    fields: tuple[str, ...] = ()  # columns the caller picked, as spelt; empty: the tool's own
    page: slice = field(default_factory=lambda: slice(None))  # rows of a list that are shown
    notes: Notes = field(default_factory=Notes)
    upids: list[str] = field(default_factory=list)  # tasks started: for the audit
    undos: list[Undo] = field(default_factory=list)  # of the writes that were sent
    failures: dict[int, str] = field(
        default_factory=dict
    )  # by VMID, of a bulk write: for the audit
    draws: bool = False  # whether the caller wants the answer as a chart too
    chart: Chart | None = None  # of the answer, if it can be drawn
    result: str = ""  # what became of a program in a guest: for the audit
    touched: set[str] = field(default_factory=set)  # clusters used: for the audit
    opened: dict[str, Cluster] = field(default_factory=dict)  # by name: for error texts
    limits: CallLimits | None = None  # of concurrent calls on one cluster
    places: AsyncExitStack = field(default_factory=AsyncExitStack)  # on those, until the call ends

    @property
    def seconds_left(self) -> float:
        return max(0.0, self.deadline - monotonic())

    @property
    def task_wait_seconds(self) -> float:
        """The longest wait for a task that begins now."""
        if self.wait_ends is None:
            return self.settings.task_wait_max_seconds
        return max(0.0, self.wait_ends - monotonic())

    async def reachable(self) -> list[str]:
        """List the clusters that the tool reads and where the caller may use it, sorted by name."""
        return (await self._granted())[0]

    async def _granted(self) -> tuple[list[str], list[str]]:
        """Return the clusters where the tool is granted: those that it reads, and the others."""
        kinds = await self.source.kinds()
        names = [n for n in kinds if self.caller.resources(self.tool, self.effect, n)]
        others = [name for name in names if kinds[name] not in self.kinds]
        return [name for name in names if name not in others], others

    async def backup_servers(self, tool: str) -> list[str]:
        """List the backup servers where queries give the caller the rows that this tool grants."""
        kinds, needed = await self.source.kinds(), ("ExecuteQuery", tool)
        return [
            name
            for name, kind in kinds.items()
            if kind is ClusterKind.PBS
            and all(self.caller.resources(each, Effect.READ, name) for each in needed)
        ]

    async def note_datastores(self) -> None:
        """Note where the datastores of backup servers are: a list of storages lacks them."""
        if servers := await self.backup_servers("ListStorage"):
            self.notes.add(datastores_hint(servers))

    async def note_jobs(self) -> None:
        """Note where the jobs of backup servers are: tasks and backup jobs do not include them."""
        if servers := await self.backup_servers("ListBackupJobs"):
            self.notes.add(jobs_hint(servers))

    async def cluster(self, name: str | None) -> Cluster:
        """Open the named cluster, or the only reachable one; case does not matter.

        Raise BadArgument when no name is given and several are reachable, UnknownName when the
        caller cannot reach the named one.
        """
        names, others = await self._granted()
        if name is None:
            if len(names) == 1:
                return await self._open(names[0])
            if others and not names:
                raise BadArgument("cluster_name", backup_server_hint(others[0]))
            raise BadArgument(
                "cluster_name", f"say which cluster; you reach {', '.join(names) or 'none'}."
            )
        match = next((n for n in names if n.casefold() == name.casefold()), None)
        if match is None:
            if other := next((n for n in others if n.casefold() == name.casefold()), None):
                raise BadArgument("cluster_name", backup_server_hint(other))
            raise UnknownName("cluster", name, names)
        if len(names) > 1 and match not in self.opened and self.limits:
            most = self.settings.concurrent_calls_per_key
            place = self.limits.on_cluster(self.caller.holder, match, most)
            await self.places.enter_async_context(place)
        return await self._open(match)

    async def all_clusters(self, name: str | None) -> list[Cluster]:
        """Open the named cluster, or every one that the caller reaches with this tool.

        A cluster that cannot be opened becomes a note; when none can be, its error is raised.
        """
        if name is not None:
            return [await self.cluster(name)]
        clusters: list[Cluster] = []
        errors: list[Exception] = []
        names, others = await self._granted()
        for reachable in names:
            opened = await outcome_of(self._open(reachable), f"cluster {reachable}")
            if isinstance(opened, Exception):
                errors.append(opened)
                known = isinstance(opened, CallError)
                self.notes.add(explain(opened) if known else f"{reachable}: {explain(opened)}")
            else:
                clusters.append(opened)
        if errors and not clusters:
            raise errors[0]
        if not clusters:
            self.notes.add(backup_server_hint(others[0]) if others else NO_CLUSTER)
        return clusters

    async def explain(self, error: BaseException) -> str:
        """Return the text of an error; it names the account only if one cluster was opened."""
        opened = list(self.opened.values())
        text = await opened[0].explain(error) if len(opened) == 1 else explain(error)
        vmid = whole_number(error.name) if isinstance(error, UnknownName) else None
        if isinstance(error, UnknownName) and error.kind == "guest" and vmid is not None:
            places = await self._clusters_with(vmid)
            text += f" It is on {' and '.join(places)}: give cluster_name." if places else ""
        if isinstance(error, UnknownName) and error.kind == "storage":
            servers = await self.backup_servers("ListStorage")
            text += f" {datastores_hint(servers)}" if servers else ""
        return text

    async def _clusters_with(self, vmid: int) -> list[str]:
        """Return the other reachable clusters that have the guest, as far as they answer soon."""
        views, _silent = await self.inventory_views(others=True)
        return [name for name, view in views.items() if vmid in view.by_vmid]

    async def inventory_views(
        self, *, others: bool = False
    ) -> tuple[dict[str, InventoryView], list[str]]:
        """Return the view of each reachable cluster, and the names of those that don't answer soon.

        With `others`, only clusters that the call has not opened. They do not become clusters of
        the call: they get no notes and are not in its audit entry.
        """
        names = [n for n in await self.reachable() if not (others and n in self.opened)]
        outcomes = await asyncio.gather(
            *(outcome_of(self._inventory_of(name), f"the inventory of {name}") for name in names)
        )
        views = {
            name: view
            for name, view in zip(names, outcomes, strict=True)
            if not isinstance(view, Exception) and not view.stale
        }
        return views, [name for name in names if name not in views]

    async def _inventory_of(self, name: str) -> InventoryView:
        scope = self.caller.resources(self.tool, self.effect, name)
        cluster = await self.source.open(name, self.caller.identities, scope, Notes())
        with deadline(min(_LOOKUP_SECONDS, self.seconds_left)):
            return await cluster.inventory_view()

    async def each(
        self,
        clusters: Sequence[Cluster],
        read: Callable[[Cluster], Awaitable[T]],
        shares: Shares | None = None,
    ) -> list[tuple[Cluster, T]]:
        """Read from all clusters at once. A failure becomes a note; if all fail, the first raises.

        What a read leaves of its cluster's share of `shares` is for the other clusters.

        Each read times out before the call's own deadline, so one cluster that hangs leaves time
        to answer with the rows of the others. The client's deadline is the earlier of the two,
        because its error names the request that was slow. Notes come in the order of the clusters,
        whichever answers first.
        """
        for cluster in clusters:
            cluster.notes = Notes()

        async def attempt(cluster: Cluster) -> T:
            began, seconds = monotonic(), self.seconds_left * _SHARE_OF_CLUSTERS
            try:
                with deadline(seconds * _SHARE_OF_CLUSTERS):
                    async with asyncio.timeout(seconds):
                        return await read(cluster)
            except TimeoutError:
                delay = cluster.client.delay(began)
                fact = f"was not read in time: {delay}" if delay else "did not answer in time"
                raise CallError(
                    f"{cluster.name} {fact}.", hint="Read it alone: cluster_name."
                ) from None
            finally:
                if shares:
                    shares.end(cluster.name)

        results = await asyncio.gather(
            *(outcome_of(attempt(cluster), f"cluster {cluster.name}") for cluster in clusters)
        )
        for cluster in clusters:
            self.notes.update(cluster.notes)
            cluster.notes = self.notes
        if shares:
            self.notes.fold_cuts()
        failures = [result for result in results if isinstance(result, Exception)]
        if failures and len(failures) == len(clusters):
            raise failures[0]
        answered = []
        for cluster, result in zip(clusters, results, strict=True):
            if isinstance(result, Exception):
                reason = await cluster.explain(result)
                self.notes.add(f"Cluster {cluster.name} is missing here: {reason}")
            else:
                answered.append((cluster, result))
        return answered

    async def _open(self, name: str) -> Cluster:
        self.touched.add(name)
        scope = self.caller.resources(self.tool, self.effect, name)
        cluster = await self.source.open(name, self.caller.identities, scope, self.notes)
        self.opened[name] = cluster
        return cluster
