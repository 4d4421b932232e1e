"""A running emulated cluster: a listener per node, a scheduler, and methods that cause failures."""

import asyncio
import secrets
import ssl
from collections.abc import Callable, Sequence
from functools import cache
from uuid import uuid4

from proxmox_client.emulator import routes
from proxmox_client.emulator.access.principal import ROOT, Principal, Rights
from proxmox_client.emulator.backend import Backend
from proxmox_client.emulator.certificates import Certificate, CertificateAuthority
from proxmox_client.emulator.faults import Fault, FaultKind
from proxmox_client.emulator.gateway import Gateway
from proxmox_client.emulator.http.connection import ConnectionLimits
from proxmox_client.emulator.http.listener import Listener
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.node import SERVICES, Node
from proxmox_client.emulator.state.user_config import AclEntry, Token, User
from proxmox_client.emulator.tasks.scheduler import Scheduler

routes.register()


class EmulatedCluster(Backend):
    """One emulated cluster; tests may read and change its `state` at any time."""

    def __init__(self, state: ClusterState, limits: ConnectionLimits | None = None) -> None:
        super().__init__(state)
        self._limits = limits or ConnectionLimits()
        self._authority = CertificateAuthority(state.name)
        self._address = "127.0.0.1"
        self._scheduler: asyncio.Task[None] | None = None
        self._listeners: dict[str, Listener] = {}
        self._wrong_certificates: set[str] = set()
        self.token = self._create_token()
        self.password = self._create_password()
        for node in state.nodes.values():
            node.certificate = self._authority.issue(node.name, node.address)

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def hosts(self) -> list[str]:
        """The addresses of the online nodes, as host:port."""
        return [f"127.0.0.1:{node.port}" for node in self.state.nodes.values() if node.online]

    @property
    def fingerprints(self) -> dict[str, str]:
        """The SHA-256 fingerprints of all nodes' certificates, by address."""
        nodes = self.state.nodes.values()
        return {f"127.0.0.1:{node.port}": node.fingerprint for node in nodes}

    @property
    def ca_pem(self) -> str:
        """The certificate of the authority that signed the nodes' certificates."""
        return self._authority.pem

    async def start(self, address: str = "127.0.0.1", ports: Sequence[int] = ()) -> None:
        """Listen for every node; an offline node keeps its port and refuses connections.

        Raise OSError if a port is in use.
        """
        self._address = address
        self._fill_cache()
        remaining_ports = iter(ports)
        for node in self.state.nodes.values():
            node.port = next(remaining_ports, 0)
            self._listen(node)
            if not node.online:
                await self._listeners.pop(node.name).stop()
        self._scheduler = asyncio.create_task(Scheduler(self.state, self.tasks).run())

    async def stop(self) -> None:
        """Stop all tasks and close all connections."""
        if self._scheduler is not None:
            self._scheduler.cancel()
        await self.tasks.close()
        for listener in self._listeners.values():
            await listener.stop()
        self._listeners.clear()

    async def node_down(self, node: str, *, seconds_ago: float = 0) -> None:
        """Take a node offline: its port refuses connections and its tasks are killed.

        Its last statistics are `seconds_ago` old; after 300 seconds they are dropped.
        """
        self.state.nodes[node].online = False
        self.state.nodes[node].lost = self.state.now - seconds_ago
        self.tasks.kill_on(node)
        if listener := self._listeners.pop(node, None):
            await listener.stop()

    async def node_up(self, node: str) -> None:
        """Bring a node online again, freshly booted, on the same port."""
        booted = self.state.nodes[node]
        booted.online, booted.booted = True, self.state.now
        self._listen(booted)

    def stop_service(self, node: str, service: str, *, seconds_ago: float = 600) -> None:
        """Stop a service of a node, `seconds_ago`.

        pvestatd: figures of the node, its guests and storages are missing, all requests work.
        pvedaemon: requests that it handles are answered with 595.
        pmxcfs: every request that the node handles is answered with 500; others see it offline.
        """
        if service not in SERVICES:
            raise ValueError(f"{service!r} is not one of {', '.join(SERVICES)}")
        self.state.nodes[node].stopped.add(service)
        if service != "pvedaemon":
            self.state.nodes[node].lost = self.state.now - seconds_ago

    def start_service(self, node: str, service: str) -> None:
        """Start a service again; pmxcfs has no figures of any node for ten seconds."""
        started = self.state.nodes[node]
        started.stopped.discard(service)
        if service == "pmxcfs":
            started.joined = self.state.now

    def fail_storage(self, name: str, error: str = "", nodes: Sequence[str] = ()) -> None:
        """Make a storage inactive on all nodes or some, like an NFS share whose server is away."""
        storage = self.state.storage(name)
        storage.failure = error or f"storage '{name}' is not online"
        storage.failed_nodes = tuple(nodes)

    def repair_storage(self, name: str) -> None:
        """Make a storage usable again."""
        self.state.storage(name).failure = ""

    def refuse_agent(self, vmid: int, commands: Sequence[str]) -> None:
        """Make the guest agent refuse commands, by their names in the API; none again with []."""
        agent = self.state.guests[vmid].agent
        if agent is None:
            raise ValueError(f"VM {vmid} has no guest agent")
        agent.refused = frozenset(commands)

    def fault(self, kind: FaultKind | str, **details: object) -> Fault:
        """Add a fault; `details` are the fields of Fault."""
        return self.faults.add(Fault(FaultKind(kind), **details))  # type: ignore[arg-type]  # checked by Fault

    def lose_quorum(self) -> None:
        """Refuse every change until quorum is restored."""
        self.state.quorate = False

    def restore_quorum(self) -> None:
        """Accept changes again."""
        self.state.quorate = True

    def stick_storage(self, name: str, *, stuck: bool = True) -> None:
        """Make requests to a storage hang, or respond again."""
        self.state.storage(name).stuck = stuck

    def skew_clock(self, node: str, seconds: float) -> None:
        """Set a node's clock ahead of the others, or behind."""
        self.state.nodes[node].skew = seconds

    def expire_sessions(self) -> None:
        """Invalidate every ticket issued until now."""
        self.authentication.revoke_tickets()

    def swap_certificate(self, node: str, *, genuine: bool = False) -> None:
        """Serve a certificate of another authority on a node, or its own again."""
        (self._wrong_certificates.discard if genuine else self._wrong_certificates.add)(node)

    def drop_connections(self, node: str) -> None:
        """Break every open connection of a node."""
        self._listeners[node].drop_all()

    def _fill_cache(self) -> None:
        rights, receiver = (
            Rights(Principal(ROOT), self.state),
            next(iter(self.state.nodes.values())),
        )
        self.resources.json(rights, None, receiver)

    def _listen(self, node: Node) -> None:
        listener = Listener(Gateway(self, node).answer, self._tls_context(node), self._limits)
        listener.start(self._address, node.port)
        node.port = listener.port
        self._listeners[node.name] = listener

    def _tls_context(self, node: Node) -> Callable[[], ssl.SSLContext]:
        @cache
        def wrong_certificate() -> Certificate:
            return CertificateAuthority("another authority").issue(node.name, node.address)

        def context() -> ssl.SSLContext:
            own = None if node.name in self._wrong_certificates else node.certificate
            return (own or wrong_certificate()).context

        return context

    def _create_token(self) -> tuple[str, str]:
        """Create the API token that the emulator hands out, with every privilege."""
        config, secret = self.state.user_config, str(uuid4())
        user = config.users.setdefault("mcp@pve", User("mcp@pve", comment="Model Context Protocol"))
        user.tokens["emulator"] = Token("emulator", secret, privsep=False)
        if not any(entry.ugid == user.userid for entry in config.acl):
            config.acl.append(AclEntry("/", "user", user.userid, "Administrator"))
        return f"{user.userid}!emulator", secret

    def _create_password(self) -> tuple[str, str]:
        root = self.state.user_config.users.setdefault("root@pam", User("root@pam"))
        root.password = root.password or secrets.token_urlsafe(12)
        return root.userid, root.password
