"""Tools behind the real pipeline, on emulated clusters, over real HTTPS."""

import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from proxmox_client import ApiToken, Client, Tls
from proxmox_client.emulator import Clock, Emulator, ManualClock, Scenario, demo
from proxmox_client.emulator import EmulatedCluster as Emulated
from pvemcp_server.access.model import ANY, EVERYTHING, Caller, Grant, Resources, Role
from pvemcp_server.audit import Event
from pvemcp_server.clusters import Cluster, Inventory, Notes
from pvemcp_server.mcp.elicitation import Decision
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.settings import Values
from pvemcp_server.toolkit.registry import tools

PACE = 200.0  # how much faster than life Proxmox's tasks run


@dataclass
class Connected:
    """An emulated cluster with a client of ours and what it has asked."""

    emulated: Emulated
    pve: Client
    inventory: Inventory
    account: str
    asked: list[str] = field(default_factory=list)
    protected: bool = False


@dataclass
class Sources:
    """What `Clusters` is to the pipeline, without a store behind it."""

    connected: dict[str, Connected] = field(default_factory=dict)

    async def names(self) -> list[str]:
        return sorted(self.connected)

    async def open(self, name: str, caller: Caller, scope: Resources, notes: Notes) -> Cluster:
        one = self.connected[name]
        return Cluster(
            name=name,
            description=f"The cluster {name}",
            pve=one.pve,
            account=one.account,
            inventory=one.inventory,
            scope=scope,
            notes=notes,
            protected=one.protected,
            tls="ca",
        )


@dataclass
class Journal:
    """The audit, as far as calls need it: it remembers in which order things happened."""

    events: list[tuple[str, Event]] = field(default_factory=list)

    async def intent(self, event: Event) -> str:
        self.events.append(("intent", event))
        return str(len(self.events))

    async def outcome(self, call_id: str, event: Event) -> None:
        self.events.append(("outcome", event))

    async def call(self, event: Event) -> None:
        self.events.append(("call", event))

    async def refused(self, event: Event) -> None:
        self.events.append(("refused", event))


@dataclass
class Talk:
    """A client: what it was told, what it was asked, and what it answers."""

    decision: Decision = Decision.YES
    wants_progress: bool = False
    told: list[tuple[float, float | None, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    heard: anyio.Event = field(default_factory=anyio.Event)
    client: str = "tests 1.0"

    async def progress(self, done: float, total: float | None, message: str) -> None:
        self.told.append((done, total, message))
        self.heard.set()

    async def ask(self, question: str) -> Decision:
        self.asked.append(question)
        return self.decision


@dataclass(frozen=True)
class Answer:
    """What a call gave back."""

    text: str
    notes: str
    failed: bool

    @property
    def data(self) -> Any:
        """Rows, or the one document."""
        return json.loads(self.text)["data"]

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.data]


@dataclass
class ToolClient:
    """Calls tools as a client would."""

    sources: Sources
    settings: Values = field(default_factory=Values)
    journal: Journal = field(default_factory=Journal)
    talk: Talk = field(default_factory=Talk)
    resources: Resources = EVERYTHING
    tools: frozenset[str] = frozenset({ANY})

    def __getitem__(self, name: str) -> Connected:
        return self.sources.connected[name]

    async def current(self) -> Values:
        return self.settings

    def change(self, **values: Any) -> None:
        """Change settings, as an administrator would."""
        self.settings = self.settings.model_copy(update=values)

    def scoped(self, resources: Resources) -> "ToolClient":
        """A desk for a key that is granted these resources only."""
        return replace(self, resources=resources)

    def asked(self, name: str) -> list[str]:
        """What the cluster was asked since the last time."""
        asked, self[name].asked[:] = list(self[name].asked), []
        return asked

    def refresh(self) -> None:
        """Let the next call ask Proxmox again."""
        for one in self.sources.connected.values():
            one.inventory.invalidate()

    async def __call__(self, tool: str, **arguments: Any) -> Answer:
        role = Role(1, "test", "", (Grant(self.tools, resources=self.resources),))
        caller = Caller("k", "test key", role, output_format="JsonNormal")
        pipeline = Pipeline(tools(), self.sources, self, self.journal)  # type: ignore[arg-type]
        result = await pipeline.call(caller, tool, arguments, self.talk)
        notes = result.blocks[1] if len(result.blocks) > 1 else ""
        return Answer(result.blocks[0], notes, result.failed)

    async def refused(self, tool: str, **arguments: Any) -> str:
        """The error of a call that fails."""
        answer = await self(tool, **arguments)
        assert answer.failed, answer.text
        return answer.text


@asynccontextmanager
async def opened_desk(scenario: Scenario, clock: Clock | None = None) -> AsyncIterator[ToolClient]:
    async with AsyncExitStack() as stack:
        paced = Emulator(scenario, clock=clock or Clock(PACE))
        emulator = await stack.enter_async_context(paced)
        sources = Sources()
        for emulated in emulator:
            sources.connected[emulated.name] = await stack.enter_async_context(_connect(emulated))
        yield ToolClient(sources)


@asynccontextmanager
async def _connect(
    emulated: Emulated, token: tuple[str, str] | None = None
) -> AsyncIterator[Connected]:
    account, secret = token or emulated.token
    auth, tls = ApiToken(account, secret), Tls(ca_pem=emulated.ca_pem)
    async with Client(emulated.hosts, auth, tls=tls, name=emulated.name) as pve:
        one = Connected(emulated, pve, Inventory(pve, lambda: 10.0), account)
        _count(one)
        try:
            yield one
        finally:
            await one.inventory.aclose()


def _count(one: Connected) -> None:
    send = one.pve.transport.request

    async def counted(method: str, path: str, parameters: Mapping[str, Any]) -> Any:
        one.asked.append(f"{method} {path}")
        return await send(method, path, parameters)

    one.pve.transport.request = counted  # type: ignore[method-assign]


@pytest.fixture
async def demo_client(anyio_backend: str) -> AsyncIterator[ToolClient]:
    """The two demo clusters, to be changed: home-lab (8.4) and prod (9.2)."""
    async with opened_desk(demo()) as one:
        yield one


@pytest.fixture(scope="module")
async def _module_client(anyio_backend: str) -> AsyncIterator[ToolClient]:
    async with opened_desk(demo(), ManualClock()) as one:
        yield one


@pytest.fixture
def tool_client(_module_client: ToolClient) -> ToolClient:
    """The two demo clusters at one moment, to be read only: shared by the tests of a module."""
    return ToolClient(_module_client.sources)


@pytest.fixture(scope="session")
def open_desk() -> Callable[..., Any]:
    """Opens a desk on clusters of the test's own."""
    return opened_desk


@pytest.fixture
def new_token() -> Callable[..., tuple[str, str]]:
    """Makes an API token with roles on paths: `new_token(emulated, ("/vms", "PVEAuditor"))`."""
    numbers = itertools.count(1)

    def make(
        emulated: Emulated, *grants: tuple[str, str], separated: bool = True
    ) -> tuple[str, str]:
        from proxmox_client.emulator.state.user_config import AclEntry as Acl
        from proxmox_client.emulator.state.user_config import Token, User

        people, name = emulated.state.user_config, f"t{next(numbers)}"
        user = people.users.setdefault("narrow@pve", User("narrow@pve"))
        secret = f"00000000-0000-0000-0000-{len(user.tokens):012d}"
        user.tokens[name] = Token(name, secret, privsep=separated)
        account = f"narrow@pve!{name}"
        for path, role in grants:
            people.acl.append(Acl(path, "user", "narrow@pve", role))
            people.acl.append(Acl(path, "token", account, role))
        return account, secret

    return make


@pytest.fixture
async def with_token() -> AsyncIterator[Callable[..., Any]]:
    """The desk with another Proxmox account on one of its clusters."""
    async with AsyncExitStack() as stack:

        async def connect(demo_client: ToolClient, name: str, token: tuple[str, str]) -> ToolClient:
            one = await stack.enter_async_context(_connect(demo_client[name].emulated, token))
            return replace(
                demo_client, sources=Sources({**demo_client.sources.connected, name: one})
            )

        yield connect
