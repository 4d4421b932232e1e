"""A cluster that runs: its nodes listen, its tasks are done, its faults happen."""

import asyncio
import secrets
import ssl
from collections.abc import Callable, Sequence
from functools import cache

from proxmox_client import schema
from proxmox_client.emulator import routes
from proxmox_client.emulator.access.caller import ROOT, Caller, Rights
from proxmox_client.emulator.auth.authentication import Authentication
from proxmox_client.emulator.auth.tickets import TicketOffice
from proxmox_client.emulator.certificates import Authority, Certificate
from proxmox_client.emulator.faults import Fault, FaultKind, Faults
from proxmox_client.emulator.gateway import Gateway
from proxmox_client.emulator.http.connection import ConnectionLimits
from proxmox_client.emulator.http.listener import Listener
from proxmox_client.emulator.proxy import Proxy
from proxmox_client.emulator.resources import ResourceRows
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.state.people import Grant, Token, User
from proxmox_client.emulator.work.board import TaskBoard
from proxmox_client.emulator.work.scheduler import Scheduler

routes.register()


class Cluster:
    """One emulated cluster; `state` is its truth and may be read and changed."""

    def __init__(self, state: ClusterState, limits: ConnectionLimits | None = None) -> None:
        self.state = state
        self.schema = schema.load(state.version)
        self.tasks = TaskBoard(state)
        self.faults = Faults(state.clock, state.seed)
        self.proxy = Proxy(state, self.faults)
        self.office = TicketOffice()
        self.authentication = Authentication(state, self.office)
        self.resources = ResourceRows(state)
        self._limits = limits or ConnectionLimits()
        self._authority = Authority(state.name)
        self._address = "127.0.0.1"
        self._scheduling: asyncio.Task[None] | None = None
        self._listeners: dict[str, Listener] = {}
        self._impostors: set[str] = set()
        self.token = self._own_token()
        self.password = self._own_password()
        for node in state.nodes.values():
            node.certificate = self._authority.certify(node.name, node.address)

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def hosts(self) -> list[str]:
        """The addresses of the nodes that are up."""
        return [f"127.0.0.1:{node.port}" for node in self.state.nodes.values() if node.online]

    @property
    def fingerprints(self) -> dict[str, str]:
        """The certificates of all nodes, by address."""
        nodes = self.state.nodes.values()
        return {f"127.0.0.1:{node.port}": node.fingerprint for node in nodes}

    @property
    def ca_pem(self) -> str:
        """The certificate of the authority that signed for the nodes."""
        return self._authority.pem

    async def start(self, address: str = "127.0.0.1", ports: Sequence[int] = ()) -> None:
        """Listen for every node; one that is down keeps its port and refuses."""
        self._address = address
        self.resources.json(Rights(Caller(ROOT), self.state), None)
        wanted = iter(ports)
        for node in self.state.nodes.values():
            node.port = next(wanted, 0)
            await self._listen(node)
            if not node.online:
                await self._listeners.pop(node.name).stop()
        self._scheduling = asyncio.create_task(Scheduler(self.state, self.tasks).run())

    async def stop(self) -> None:
        """End all tasks and connections."""
        if self._scheduling is not None:
            self._scheduling.cancel()
        await self.tasks.close()
        for listener in self._listeners.values():
            await listener.stop()
        self._listeners.clear()

    async def node_down(self, node: str) -> None:
        """Let a node fail: nothing answers on its port and its tasks are lost."""
        self.state.nodes[node].online = False
        self.state.nodes[node].lost = self.state.now
        self.tasks.lose(node)
        self.state.changed()
        if listener := self._listeners.pop(node, None):
            await listener.stop()

    async def node_up(self, node: str) -> None:
        """Let a node come back on the port it had."""
        back = self.state.nodes[node]
        back.online, back.booted = True, self.state.now
        self.state.changed()
        await self._listen(back)

    def fault(self, kind: FaultKind | str, **details: object) -> Fault:
        """Let something go wrong from now on: see Fault for the details."""
        return self.faults.add(Fault(FaultKind(kind), **details))  # type: ignore[arg-type]  # checked by Fault

    def lose_quorum(self) -> None:
        """Refuse every change until quorum is restored."""
        self.state.quorate = False

    def restore_quorum(self) -> None:
        """Accept changes again."""
        self.state.quorate = True

    def stick_storage(self, name: str, *, stuck: bool = True) -> None:
        """Let a storage answer nobody, or answer again."""
        self.state.storage(name).stuck = stuck

    def skew_clock(self, node: str, seconds: float) -> None:
        """Let a node's clock be ahead of the others, or behind."""
        self.state.nodes[node].skew = seconds

    def expire_sessions(self) -> None:
        """Make every ticket issued so far worthless."""
        self.authentication.revoke_tickets()

    def swap_certificate(self, node: str, *, genuine: bool = False) -> None:
        """Let a node show somebody else's certificate, or its own again."""
        (self._impostors.discard if genuine else self._impostors.add)(node)

    def drop_connections(self, node: str) -> None:
        """Break every open connection of a node."""
        self._listeners[node].drop_all()

    async def _listen(self, node: Node) -> None:
        listener = Listener(Gateway(self, node).answer, self._context_of(node), self._limits)
        listener.start(self._address, node.port)
        node.port = listener.port
        self._listeners[node.name] = listener

    def _context_of(self, node: Node) -> Callable[[], ssl.SSLContext]:
        @cache
        def others() -> Certificate:
            return Authority("somebody else").certify(node.name, node.address)

        def context() -> ssl.SSLContext:
            own = None if node.name in self._impostors else node.certificate
            return (own or others()).context

        return context

    def _own_token(self) -> tuple[str, str]:
        """A token with every right, for whoever runs the emulator."""
        people, secret = self.state.people, _uuid()
        user = people.users.setdefault("mcp@pve", User("mcp@pve", comment="Model Context Protocol"))
        user.tokens["emulator"] = Token("emulator", secret, privsep=False)
        if not any(grant.whom == user.userid for grant in people.grants):
            people.grants.append(Grant("/", "user", user.userid, "Administrator"))
        return f"{user.userid}!emulator", secret

    def _own_password(self) -> tuple[str, str]:
        root = self.state.people.users.setdefault("root@pam", User("root@pam"))
        root.password = root.password or secrets.token_urlsafe(12)
        return root.userid, root.password


def _uuid() -> str:
    text = secrets.token_hex(16)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
