"""A client that calls tools through the real pipeline, on emulated clusters."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from proxmox_client import ApiToken, BackupServer, Client, Tls
from proxmox_client.emulator import Clock, EmulatedBackupServer, Emulator, Scenario
from proxmox_client.emulator import EmulatedCluster as Emulated
from proxmox_client.outages import Response
from pvemcp_server.access.model import ANY, EVERYTHING, Caller, Grant, Resources, Role, Toolset
from pvemcp_server.approvals import Approvals
from pvemcp_server.audit import Event
from pvemcp_server.clusters import Cluster, Inventory, Notes
from pvemcp_server.mcp.elicitation import Decision
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.settings import Values
from pvemcp_server.store.records import ClusterKind
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
class FakeClusters:
    """Stands in for `Clusters` in the pipeline, without a store."""

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
            tls="ca",
        )


@dataclass
class FakeAudit:
    """Stands in for the audit; records its events in order."""

    events: list[tuple[str, Event]] = field(default_factory=list)

    async def intent(self, event: Event) -> str:
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
class FakeConversation:
    """Stands in for the MCP client: records progress and questions, and answers with `decision`."""

    decision: Decision = Decision.YES
    wants_progress: bool = False
    progress_reports: list[tuple[float, float | None, str]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    progress_received: anyio.Event = field(default_factory=anyio.Event)
    client: str = "tests 1.0"

    async def progress(self, done: float, total: float | None, message: str) -> None:
        self.progress_reports.append((done, total, message))
        self.progress_received.set()

    async def ask(self, question: str) -> Decision:
        self.questions.append(question)
        return self.decision


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

    It has all toolsets.
    """

    clusters: FakeClusters
    settings: Values = field(default_factory=Values)
    audit: FakeAudit = field(default_factory=FakeAudit)
    conversation: FakeConversation = field(default_factory=FakeConversation)
    approvals: Approvals | None = None  # needed where the client cannot ask
    resources: Resources = EVERYTHING
    tools: frozenset[str] = frozenset({ANY})
    toolsets: frozenset[str] = frozenset(Toolset)
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server stops
    key_id: str = "k"

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
        role = Role(1, "test", "", (Grant(self.tools, resources=self.resources),))
        caller = Caller(
            self.key_id, "test key", role, toolsets=self.toolsets, output_format="JsonNormal"
        )
        pipeline = Pipeline(
            tools(),
            self.clusters,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self.audit,  # type: ignore[arg-type]
            self.approvals,  # type: ignore[arg-type]
            closing=self.closing,
        )
        result = await pipeline.call(caller, tool, arguments, self.conversation)
        notes = result.blocks[1] if len(result.blocks) > 1 else ""
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
