"""Which function answers which endpoint, and what it is given."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxmox_client.emulator.access.caller import Caller, Rights
from proxmox_client.emulator.errors import BadParameters
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.state.storage import Storage
from proxmox_client.emulator.work.board import Work
from proxmox_client.schema import Endpoint

if TYPE_CHECKING:
    from proxmox_client.emulator.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Reply:
    """Data with what stands beside it, like the total of a list."""

    data: Any
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Data that is JSON already."""

    json: bytes


@dataclass(slots=True)
class Call:
    """One request that was recognised, permitted and checked."""

    cluster: "Cluster"
    here: Node
    """The node that answers."""
    caller: Caller
    rights: Rights
    params: dict[str, Any]
    """Values of the path and parameters, as their types have them."""
    endpoint: Endpoint
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> ClusterState:
        return self.cluster.state

    @property
    def now(self) -> float:
        """The time, by the clock of the node that answers."""
        return self.cluster.state.now + self.here.skew

    @property
    def node(self) -> Node:
        """The node the path names."""
        return self.state.node(self.params["node"])

    @property
    def vmid(self) -> int:
        return int(self.params["vmid"])

    @property
    def kind(self) -> Kind:
        """The kind of guest the path names."""
        return Kind.LXC if "/lxc" in self.path else Kind.QEMU

    @property
    def guest(self) -> Guest:
        """The guest the path names, or the error its absence is."""
        return self.state.guest(self.kind, self.params["node"], self.vmid)

    @property
    def storage(self) -> Storage:
        """The storage the path names, or the error its absence is."""
        return self.state.storage(self.params["storage"])

    def get(self, name: str, default: Any = None) -> Any:
        """A parameter."""
        return self.params.get(name, default)

    def given(self, *without: str) -> dict[str, Any]:
        """The parameters but these."""
        return {name: value for name, value in self.params.items() if name not in without}

    def start(self, type_: str, id_: str | int, work: Work, *, node: str = "") -> str:
        """Begin a task for the caller; the answer is its UPID."""
        where = node or self.params.get("node") or self.here.name
        return self.cluster.tasks.start(where, type_, str(id_), self.caller.name, work)

    def bad(self, **errors: str) -> BadParameters:
        """The error of parameters only this endpoint can judge; _ stands for -."""
        return BadParameters({name.replace("_", "-"): text for name, text in errors.items()})


Handler = Callable[[Call], Any | Awaitable[Any]]
_HANDLERS: dict[tuple[str, str], Handler] = {}


def route(method: str, *paths: str) -> Callable[[Handler], Handler]:
    """Let a function answer a method of one or more paths."""

    def register(handler: Handler) -> Handler:
        for path in paths:
            _HANDLERS[method, path] = handler
        return handler

    return register


def handler_of(method: str, path: str) -> Handler | None:
    """The function that answers an endpoint, if it is emulated."""
    return _HANDLERS.get((method, path))


def handled() -> set[tuple[str, str]]:
    """Every endpoint that is emulated."""
    return set(_HANDLERS)
