"""The door to one cluster."""

from collections.abc import Sequence
from copy import copy
from types import TracebackType
from typing import Any, Self

from proxmox_client.api.access import Access
from proxmox_client.api.cluster import Cluster, Version
from proxmox_client.api.lxc import Lxc
from proxmox_client.api.nodes import Node, NodeRow
from proxmox_client.api.pools import Pool
from proxmox_client.api.qemu import Qemu
from proxmox_client.api.resources import GuestResource
from proxmox_client.api.storage import Storage, StorageConfig
from proxmox_client.api.tasks import Task
from proxmox_client.auth import ApiToken, Password
from proxmox_client.errors import NotFound
from proxmox_client.limits import Limits
from proxmox_client.raw import checked
from proxmox_client.tls import Tls
from proxmox_client.transport import Line, Parameter, Transport, Wire
from proxmox_client.upid import Upid

_DEFAULT_TLS = Tls()
_DEFAULT_LIMITS = Limits()


class Client:
    """One Proxmox VE cluster, reached over any of its `hosts`, as one account.

    Hosts are written `name`, `name:port` or `[IPv6]:port`; the port is 8006 unless told.
    In tests `wire` takes the place of the network: `httpx2.MockTransport(answer)`.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        auth: ApiToken | Password,
        *,
        tls: Tls = _DEFAULT_TLS,
        limits: Limits = _DEFAULT_LIMITS,
        name: str = "",
        wire: Wire | None = None,
    ) -> None:
        self._line = Line(hosts, tls, limits, wire)
        self.name = name or hosts[0]
        self._version: Version | None = None
        self.transport = Transport(self._line, auth)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Client({self.name!r})"

    async def aclose(self) -> None:
        """Close all connections, also those of other accounts on this line."""
        await self._line.aclose()

    def signed_in_as(self, auth: ApiToken | Password) -> "Client":
        """The same cluster as another account, over the same connections and within one limit."""
        other = copy(self)
        other.transport = Transport(self._line, auth)
        return other

    @property
    def cluster(self) -> Cluster:
        """Calls about the cluster as a whole."""
        return Cluster(self.transport)

    @property
    def access(self) -> Access:
        """Calls about accounts and permissions."""
        return Access(self.transport)

    async def version(self) -> Version:
        """GET /version. Any account.

        Source: PVE/API2.pm.
        """
        self._version = await self.transport.get("/version", Version)
        return self._version

    async def nodes(self) -> list[NodeRow]:
        """GET /nodes. All nodes; their figures need Sys.Audit on each.

        Source: PVE/API2/Nodes.pm.
        """
        return await self.transport.get("/nodes", list[NodeRow])

    async def pools(self) -> list[Pool]:
        """GET /pools. Those with Pool.Audit, without their members.

        Source: PVE/API2/Pool.pm.
        """
        return await self.transport.get("/pools", list[Pool])

    async def pool(self, pool_id: str) -> Pool:
        """GET /pools, of one pool with its members. Needs Pool.Audit.

        Source: PVE/API2/Pool.pm.
        """
        # /pools/{poolid} has no place for the slash in the name of a pool inside another
        (found,) = await self.transport.get("/pools", tuple[Pool], poolid=pool_id)
        return found

    async def storages(self) -> list[StorageConfig]:
        """GET /storage. The cluster's storages as configured, those the account may see.

        Source: PVE/API2/Storage/Config.pm.
        """
        return await self.transport.get("/storage", list[StorageConfig])

    def node(self, name: str) -> Node:
        """Calls about a node."""
        return Node(self.transport, name)

    def storage(self, node: str, storage: str) -> Storage:
        """Calls about a storage on a node."""
        return Storage(self.transport, node, storage)

    def qemu(self, node: str, vmid: int) -> Qemu:
        """Calls about a virtual machine."""
        return Qemu(self.transport, node, vmid, self._node_of)

    def lxc(self, node: str, vmid: int) -> Lxc:
        """Calls about a container."""
        return Lxc(self.transport, node, vmid, self._node_of)

    async def guest(self, vmid: int) -> Qemu | Lxc:
        """Calls about a guest, wherever it is now: GET /cluster/resources?type=vm."""
        found = await self._find(vmid)
        kind = Qemu if found.type == "qemu" else Lxc
        return kind(self.transport, found.node, vmid, self._node_of)

    def task(self, upid: str | Upid) -> Task:
        """Calls about a task."""
        return Task(self.transport, upid)

    async def raw(self, method: str, path: str, /, **parameters: Parameter) -> Any:
        """Any other request, checked against the schema of the cluster's version before it goes.

        Names with a dash are given as `**{"prune-backups": …}`; in `path`, what has a slash of
        its own is percent-encoded.
        """
        version = self._version or await self.version()
        encoded = checked(version.release, method, path, parameters)
        return await self.transport.ask(method, encoded, **parameters)

    async def _find(self, vmid: int) -> GuestResource:
        guests = (await self.cluster.resources("vm")).guests
        found = next((guest for guest in guests if guest.vmid == vmid), None)
        if found is None:
            raise NotFound(404, "", f"No guest {vmid} that this account may see")
        return found

    async def _node_of(self, vmid: int) -> str:
        return (await self._find(vmid)).node
