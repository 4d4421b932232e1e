"""One tool call in progress: who asks, what they reach, how long it may take, what to add."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol, TypeVar

from proxmox_client import ProxmoxError, deadline
from pvemcp_server.access.model import Caller, Effect
from pvemcp_server.clusters import Cluster, Clusters, Notes, explain
from pvemcp_server.errors import BadArgument, CallError, UnknownName
from pvemcp_server.settings import Values

T = TypeVar("T")

NO_CLUSTER = (
    "You reach no cluster here: none is configured, or your role and key name none that is. "
    "An administrator adds clusters, and says in roles and keys who reaches them."
)
_SHARE_OF_CLUSTERS = 0.9  # of the time left: the rest is for telling what the others said


class Conversation(Protocol):
    """What the protocol offers while a call runs; the endpoint provides it for each era."""

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Tell the client how far the call is; nothing when it did not ask."""

    @property
    def wants_progress(self) -> bool:
        """Whether the client asked for progress."""


@dataclass
class Call:
    """Handed to every tool. `clusters` are those where the tool is granted, by name."""

    caller: Caller
    tool: str
    effect: Effect
    source: Clusters
    settings: Values  # as they are when the call begins
    conversation: Conversation
    deadline: float  # on the monotonic clock
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server stops
    dry_run: bool = False
    wait: bool = False
    fields: tuple[str, ...] = ()  # columns the caller picked, as spelt; none: the tool's own
    page: slice = field(default_factory=lambda: slice(None))  # rows of a list that will be shown
    notes: Notes = field(default_factory=Notes)
    upids: list[str] = field(default_factory=list)  # tasks started: for the audit
    touched: set[str] = field(default_factory=set)  # clusters asked: for the audit
    opened: dict[str, Cluster] = field(default_factory=dict)  # by name: for error texts

    @property
    def seconds_left(self) -> float:
        return max(0.0, self.deadline - monotonic())

    async def reachable(self) -> list[str]:
        """The clusters on which this tool is granted to the caller, in order of their names."""
        names = await self.source.names()
        return [n for n in names if self.caller.resources(self.tool, self.effect, n)]

    async def cluster(self, name: str | None) -> Cluster:
        """The one cluster meant: by name, or the only one there is."""
        known = await self.reachable()
        if name is None:
            if len(known) == 1:
                return await self._open(known[0])
            names = ", ".join(known) or "none"
            raise BadArgument("cluster_name", f"say which cluster; you reach {names}.")
        found = next((one for one in known if one.casefold() == name.casefold()), None)
        if found is None:
            raise UnknownName("cluster", name, known)
        return await self._open(found)

    async def all_clusters(self, name: str | None) -> list[Cluster]:
        """The named cluster, or every one the caller reaches with this tool."""
        if name is not None:
            return [await self.cluster(name)]
        found, refused = [], []
        for one in await self.reachable():
            try:
                found.append(await self._open(one))
            except CallError as error:
                refused.append(error)
        if refused and not found:
            raise refused[0]
        for reason in refused:
            self.notes.add(str(reason))
        if not found:
            self.notes.add(NO_CLUSTER)
        return found

    async def explain(self, error: BaseException) -> str:
        """Return what to say of an error; only one asked cluster leaves no doubt whose it is."""
        opened = list(self.opened.values())
        return await opened[0].explain(error) if len(opened) == 1 else explain(error)

    async def each(
        self, clusters: Sequence[Cluster], ask: Callable[[Cluster], Awaitable[T]]
    ) -> list[tuple[Cluster, T]]:
        """Ask all at once. One that fails becomes a note; when all fail, the first error rises."""
        answers = await asyncio.gather(*(self._asked(one, ask) for one in clusters))
        failures = [one for one in answers if isinstance(one, BaseException)]
        if failures and len(failures) == len(clusters):
            raise failures[0]
        found = []
        for cluster, answer in zip(clusters, answers, strict=True):
            if isinstance(answer, BaseException):
                reason = await cluster.explain(answer)
                self.notes.add(f"Cluster {cluster.name} is missing here: {reason}")
            else:
                found.append((cluster, answer))
        return found

    async def _asked(
        self, cluster: Cluster, ask: Callable[[Cluster], Awaitable[T]]
    ) -> T | CallError | ProxmoxError:
        try:
            seconds = self.seconds_left * _SHARE_OF_CLUSTERS
            with deadline(seconds * _SHARE_OF_CLUSTERS):  # the client knows better what took long
                async with asyncio.timeout(seconds):
                    return await ask(cluster)
        except TimeoutError:
            return CallError(f"{cluster.name} did not answer in time.", hint="Ask for it alone.")
        except (CallError, ProxmoxError) as error:
            return error

    async def _open(self, name: str) -> Cluster:
        self.touched.add(name)
        scope = self.caller.resources(self.tool, self.effect, name)
        cluster = await self.source.open(name, self.caller, scope, self.notes)
        self.opened[name] = cluster
        return cluster
