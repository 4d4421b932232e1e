"""The routing table from endpoints to handlers, and the request that a handler gets."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxmox_client.emulator.access.principal import Principal, Rights
from proxmox_client.emulator.backend import Backend
from proxmox_client.emulator.errors import BadParameters
from proxmox_client.emulator.quorum import WRITES, failing_write
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.state.storage import Storage
from proxmox_client.emulator.tasks.runner import TaskFunction
from proxmox_client.schema import Endpoint


@dataclass(frozen=True, slots=True)
class Reply:
    """A handler's data with further fields of the envelope, such as `total`."""

    data: Any
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A handler's data that is already JSON."""

    json: bytes


@dataclass(slots=True)
class ApiRequest:
    """An authenticated, authorized and validated request to an endpoint."""

    backend: Backend
    local_node: Node
    """The node that handles the request."""
    principal: Principal
    rights: Rights
    params: dict[str, Any]
    """Path values and parameters, converted to the types of the schema."""
    endpoint: Endpoint
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> ClusterState:
        return self.backend.state

    @property
    def now(self) -> float:
        """The time of the local node's clock, in seconds since 1970."""
        return self.backend.state.now + self.local_node.skew

    @property
    def node(self) -> Node:
        """The node in the path."""
        return self.state.node(self.params["node"])

    @property
    def vmid(self) -> int:
        return int(self.params["vmid"])

    @property
    def kind(self) -> Kind:
        """The kind of guest in the path."""
        return Kind.LXC if "/lxc" in self.path else Kind.QEMU

    @property
    def guest(self) -> Guest:
        """The guest in the path. Raise ApiError if it does not exist on the node."""
        return self.state.guest(self.kind, self.params["node"], self.vmid)

    @property
    def storage(self) -> Storage:
        """The storage in the path. Raise ApiError if it does not exist."""
        return self.state.storage(self.params["storage"])

    def get(self, name: str, default: Any = None) -> Any:
        """Return a parameter, or the default."""
        return self.params.get(name, default)

    def params_without(self, *names: str) -> dict[str, Any]:
        """Return all parameters except these."""
        return {name: value for name, value in self.params.items() if name not in names}

    def start(self, type_: str, id_: str | int, work: TaskFunction, *, node: str = "") -> str:
        """Start a task as the principal; return its UPID."""
        where = node or self.params.get("node") or self.local_node.name
        if not self.state.quorate and type_ in WRITES:
            work = failing_write(self.guest)
        return self.backend.tasks.start(where, type_, str(id_), self.principal.name, work)

    def invalid(self, **errors: str) -> BadParameters:
        """Return the error for parameters that only the handler can check; _ stands for -."""
        return BadParameters({name.replace("_", "-"): text for name, text in errors.items()})


Handler = Callable[[ApiRequest], Any | Awaitable[Any]]
_HANDLERS: dict[tuple[str, str], Handler] = {}


def route(method: str, *paths: str) -> Callable[[Handler], Handler]:
    """Register a function as the handler of a method on one or more paths."""

    def register(handler: Handler) -> Handler:
        for path in paths:
            _HANDLERS[method, path] = handler
        return handler

    return register


def find_handler(method: str, path: str) -> Handler | None:
    """Return the handler of an endpoint, or None if it is not emulated."""
    return _HANDLERS.get((method, path))


def emulated_endpoints() -> set[tuple[str, str]]:
    """Return method and path of every emulated endpoint."""
    return set(_HANDLERS)
