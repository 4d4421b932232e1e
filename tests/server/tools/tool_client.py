"""A client that calls tools through the real pipeline, on emulated clusters."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from proxmox_client import ApiToken, BackupServer, Client, Tls
from proxmox_client.emulator import Clock, EmulatedBackupServer, Emulator, Scenario
from proxmox_client.emulator import EmulatedCluster as Emulated
from proxmox_client.responses import Response
from pvemcp_server.access.budgets import Budget
from pvemcp_server.access.freezes import Freeze
from pvemcp_server.access.limits import CallLimits
from pvemcp_server.access.model import ANY, EVERYTHING, Caller, Grant, Resources, Role, Toolset
from pvemcp_server.approvals import Approvals, PlannedCall
from pvemcp_server.audit import Event
from pvemcp_server.clusters import Cluster, Inventory, Notes
from pvemcp_server.errors import OverBudget
from pvemcp_server.mcp.elicitation import Decision
from pvemcp_server.pipeline.open_writes import OpenWrites
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.pipeline.shown_plans import ShownPlans
from pvemcp_server.pipeline.undo_log import StoredUndos
from pvemcp_server.settings import Values
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import ClusterKind, ShownPlan, UndoRecord
from pvemcp_server.toolkit.registry import tools

from .in_process import InProcess

Request = Callable[[str, str, Mapping[str, Any]], Awaitable[Response]]

PACE = 200.0  # how much faster than real time Proxmox's tasks run


@dataclass
class ConnectedCluster:
    """An emulated cluster, the server's client to it, and the requests it received."""

    emulated: Emulated | EmulatedBackupServer
    pve: Client | BackupServer
    inventory: Inventory
    account: str
    requests: list[str] = field(default_factory=list)
    protected: bool = False


@dataclass
class FakeFreezes:
    """Stands in for `Freezes`, without a store."""

    freeze: Freeze | None = None

    async def of(self, _cluster: str) -> Freeze | None:
        return self.freeze

    async def refuse(self, cluster: str) -> None:
        if freeze := await self.of(cluster):
            raise freeze.error


@dataclass
class FakeBudgets:
    """Stands in for `DestructiveBudgets`, without a store: counts what is sent, and limits it."""

    limit: int = 1_000_000
    used: int = 0

    async def of(self, _key_id: str, _default: int) -> Budget:
        return Budget(self.limit, self.used, datetime(2027, 2, 1, tzinfo=UTC))

    async def spend(self, key_id: str, default: int, count: int = 1) -> None:
        if self.used + count > self.limit:
            raise self.error(await self.of(key_id, default), count)
        self.used += count

    def error(self, budget: Budget, needed: int) -> OverBudget:
        return OverBudget(budget.fact(needed))


@dataclass
class FakeClusters:
    """Stands in for `Clusters` in the pipeline, without a store."""

    freezes: FakeFreezes = field(default_factory=FakeFreezes, kw_only=True)
    connected: dict[str, ConnectedCluster] = field(default_factory=dict)

    async def kinds(self) -> dict[str, ClusterKind]:
        return {
            name: ClusterKind.PBS if isinstance(each.pve, BackupServer) else ClusterKind.PVE
            for name, each in sorted(self.connected.items())
        }

    async def open(
        self, name: str, identities: Mapping[str, int], scope: Resources, notes: Notes
    ) -> Cluster:
        connected = self.connected[name]
        return Cluster(
            name=name,
            description=f"The cluster {name}",
            client=connected.pve,
            account=connected.account,
            inventory=connected.inventory,
            scope=scope,
            notes=notes,
            protected=connected.protected,
            read_freeze=partial(self.freezes.of, name),
            tls="ca",
        )


@dataclass
class FakeAudit:
    """Stands in for the audit; records its events in order."""

    events: list[tuple[str, Event]] = field(default_factory=list)

    async def intent(self, event: Event, _call_id: str) -> str:
        self.events.append(("intent", event))
        return str(len(self.events))

    async def outcome(self, call_id: str, event: Event) -> None:
        self.events.append(("outcome", event))

    async def call(self, event: Event) -> None:
        self.events.append(("call", event))

    async def decision(self, event: Event) -> None:
        self.events.append(("decision", event))

    async def refused(self, event: Event) -> None:
        self.events.append(("refused", event))


@dataclass
class FakeUndos:
    """Stands in for the repository of writes that can be undone; values are kept as JSON."""

    kept: list[UndoRecord] = field(default_factory=list)

    async def keep(self, key_id: str, *, undo: Any, **values: Any) -> None:
        number, undo = len(self.kept) + 1, json.loads(json.dumps(undo))
        record = UndoRecord(id=number, key_id=key_id, undo=undo, created=utc_now(), **values)
        self.kept.append(record)

    async def of_key(self, key_id: str) -> list[UndoRecord]:
        return [each for each in reversed(self.kept) if each.key_id == key_id]

    async def remove(self, key: int) -> None:
        self.kept[:] = [each for each in self.kept if each.id != key]


@dataclass
class FakeShownPlans:
    """Stands in for the repository of plans that dry runs have shown."""

    kept: dict[str, ShownPlan] = field(default_factory=dict)

    async def keep(self, call_digest: str, key_id: str, **digests: str) -> None:
        self.kept[call_digest] = ShownPlan(call_digest, key_id, shown=utc_now(), **digests)

    async def take(self, call_digest: str) -> ShownPlan | None:
        return self.kept.pop(call_digest, None)


@dataclass
class FakeConversation:
    """Stands in for the MCP client: records progress and questions, and answers with `decision`."""

    decision: Decision = Decision.YES
    wants_progress: bool = False
    progress_reports: list[tuple[float, float | None, str]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)  # facts that are shown with each
    progress_received: anyio.Event = field(default_factory=anyio.Event)
    client: str = "tests 1.0"

    async def progress(self, done: float, total: float | None, message: str) -> None:
        self.progress_reports.append((done, total, message))
        self.progress_received.set()

    async def ask(self, question: str, beside: str = "", _digest: str = "") -> Decision:
        self.questions.append(question)
        self.beside.append(beside)
        return self.decision


@dataclass
class FakeApprovals:
    """Stands in for the approvals: one that is asked for is approved, and used once."""

    approved: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)  # the plans
    page: str = "https://pvemcp.example/approvals"
    waiting: list[SimpleNamespace] = field(default_factory=list)  # of other calls

    async def use(self, call: PlannedCall) -> SimpleNamespace | None:
        plan = self.approved.pop((call.identity, call.planned), None)
        return SimpleNamespace(id=1, decided_by="ada") if plan else None

    async def use_refusal(self, _call: PlannedCall) -> None:
        return None

    async def why_not(self, _call: PlannedCall) -> str:
        return ""

    async def others(self, _call: PlannedCall) -> list[SimpleNamespace]:
        return self.waiting

    async def ask(self, call: PlannedCall) -> tuple[SimpleNamespace, bool]:
        self.approved[call.identity, call.planned] = call.shown_plan
        return SimpleNamespace(id=1, expires=datetime.now(UTC)), False


@dataclass(frozen=True)
class Answer:
    """The two text blocks of a result, and whether it is an error."""

    text: str
    notes: str
    failed: bool

    @property
    def data(self) -> Any:
        """The rows, or the single document."""
        return json.loads(self.text)["data"]

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.data]


def offered(call: str) -> tuple[str, dict[str, Any]]:
    """Return tool and arguments of a call that an answer offers."""
    tool, _, arguments = call.partition(" ")
    return tool, json.loads(arguments)


@dataclass
class ToolClient:
    """Calls tools as an MCP client would, with a key that is granted `tools` on `resources`.

    It has all toolsets, and its grant lists what the examples run and read inside of guests.
    """

    clusters: FakeClusters
    settings: Values = field(default_factory=lambda: Values(inside_guests=True))
    audit: FakeAudit = field(default_factory=FakeAudit)
    conversation: FakeConversation = field(default_factory=FakeConversation)
    approvals: Approvals | FakeApprovals = field(default_factory=FakeApprovals)
    undos: FakeUndos = field(default_factory=FakeUndos)
    shown_plans: FakeShownPlans = field(default_factory=FakeShownPlans)
    budgets: FakeBudgets = field(default_factory=FakeBudgets)
    resources: Resources = EVERYTHING
    tools: frozenset[str] = frozenset({ANY})
    programs: frozenset[str] = frozenset({"echo"})
    files: frozenset[str] = frozenset({"/etc/hostname"})
    more_grants: tuple[Grant, ...] = ()  # of the role, beside that of the fields above
    unattended: str | None = None
    toolsets: frozenset[str] = frozenset(Toolset)
    open_writes: OpenWrites = field(default_factory=OpenWrites)
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server stops
    limits: CallLimits = field(default_factory=CallLimits)
    key_id: str = "k"
    scopes: frozenset[str] | None = None  # of a connection's access token

    def __getitem__(self, name: str) -> ConnectedCluster:
        return self.clusters.connected[name]

    async def current(self) -> Values:
        return self.settings

    def change(self, **values: Any) -> None:
        """Change settings, as an administrator would."""
        self.settings = self.settings.model_copy(update=values)

    def scoped(self, resources: Resources) -> "ToolClient":
        """Return a client of a key that is granted these resources only."""
        return replace(self, resources=resources)

    def requests(self, name: str) -> list[str]:
        """Return the requests to the cluster since the last time."""
        requests, self[name].requests[:] = list(self[name].requests), []
        return requests

    def refresh(self) -> None:
        """Invalidate the inventories: the next call asks Proxmox again."""
        for connected in self.clusters.connected.values():
            connected.inventory.invalidate()

    async def __call__(self, tool: str, **arguments: Any) -> Answer:
        grant = Grant(
            self.tools, resources=self.resources, programs=self.programs, files=self.files
        )
        role = Role(1, "test", "", (grant, *self.more_grants))
        caller = Caller(
            self.key_id,
            "test key",
            role,
            toolsets=self.toolsets,
            output_format="JsonNormal",
            unattended=self.unattended,
            scopes=self.scopes,
        )
        pipeline = Pipeline(
            tools(),
            self.clusters,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self.audit,  # type: ignore[arg-type]
            self.approvals,  # type: ignore[arg-type]
            StoredUndos(self.undos),  # type: ignore[arg-type]
            ShownPlans(self.shown_plans, lambda: b"key"),  # type: ignore[arg-type]
            self.budgets,  # type: ignore[arg-type]
            limits=self.limits,
            closing=self.closing,
            open_writes=self.open_writes,
        )
        result = await pipeline.call(caller, tool, arguments, self.conversation)
        notes = result.blocks[1].lstrip("\n") if len(result.blocks) > 1 else ""
        return Answer(result.blocks[0], notes, result.cause is not None)

    async def refused(self, tool: str, **arguments: Any) -> str:
        """Return the error of a call that must fail."""
        answer = await self(tool, **arguments)
        assert answer.failed, answer.text
        return answer.text


@asynccontextmanager
async def open_tool_client(
    scenario: Scenario,
    clock: Clock | None = None,
    *,
    kept: bool = False,
    https: bool = False,
    backup_servers: bool = False,
) -> AsyncIterator[ToolClient]:
    """Start the scenario's clusters and yield a client to them, in this process or over HTTPS.

    With `backup_servers`, also to these, always over HTTPS.
    """
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(scenario, clock=clock or Clock(PACE)))
        clusters = FakeClusters()
        servers = emulator.backup_servers.values() if backup_servers else ()
        for emulated in (*emulator, *servers):
            connected = await stack.enter_async_context(connect(emulated, kept=kept, https=https))
            clusters.connected[emulated.name] = connected
        yield ToolClient(clusters)


def _kept(send: Request) -> Request:
    """Return a request function that asks Proxmox only once for the same."""
    answers: dict[str, Response] = {}

    async def request(method: str, path: str, parameters: Mapping[str, Any]) -> Response:
        if method != "GET":
            return await send(method, path, parameters)
        key = f"{path} {parameters}"
        if key not in answers:
            answers[key] = await send(method, path, parameters)
        return answers[key]

    return request


@asynccontextmanager
async def connect(
    emulated: Emulated | EmulatedBackupServer,
    token: tuple[str, str] | None = None,
    *,
    kept: bool = False,
    https: bool = False,
) -> AsyncIterator[ConnectedCluster]:
    """Connect to an emulated cluster with its own API token, or with another one.

    With `kept`, each answer to a GET is kept and given again: for clusters that do not change.
    """
    account, secret = token or emulated.token
    auth = ApiToken(account, secret)
    server: Client | BackupServer
    if isinstance(emulated, EmulatedBackupServer):
        pins = Tls(fingerprints={emulated.fingerprint})
        server = BackupServer(emulated.hosts, auth, tls=pins, name=emulated.name)
    else:
        tls, wire = Tls(ca_pem=emulated.ca_pem), None if https else InProcess(emulated)
        server = Client(emulated.hosts, auth, tls=tls, name=emulated.name, http_transport=wire)
    async with server as pve:
        connected = ConnectedCluster(emulated, pve, Inventory(pve, lambda: 10.0), account)
        send = pve.transport.request
        if kept:
            send = _kept(send)

        async def recorded(method: str, path: str, parameters: Mapping[str, Any]) -> Any:
            connected.requests.append(f"{method} {path}")
            return await send(method, path, parameters)

        pve.transport.request = recorded  # type: ignore[method-assign]
        try:
            yield connected
        finally:
            await connected.inventory.aclose()
