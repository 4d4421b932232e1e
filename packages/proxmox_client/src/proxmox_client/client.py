"""Client of one cluster."""

from typing import Any
from urllib.parse import unquote

from proxmox_client.api.access import Access
from proxmox_client.api.cluster import ClusterApi, Version
from proxmox_client.api.lxc import Lxc
from proxmox_client.api.nodes import Node, NodeRow
from proxmox_client.api.pools import Pool
from proxmox_client.api.qemu import Qemu
from proxmox_client.api.resources import GuestResource
from proxmox_client.api.sign_in import SignIn
from proxmox_client.api.storage import Storage, StorageConfig
from proxmox_client.api.tasks import Task
from proxmox_client.auth import Credential
from proxmox_client.base_client import BaseClient
from proxmox_client.errors import BadParameters, NotFound
from proxmox_client.paths import join
from proxmox_client.transport import Parameter
from proxmox_client.upid import Upid


class Client(BaseClient):
    """An asynchronous client of one Proxmox VE cluster, with one account.

    It can be shared between tasks. It opens connections on first use and keeps a few of them, so
    close it: with `async with`, or with `aclose`.

    Usage:

    ```python
    token = ApiToken("mcp@pve!reader", "12345678-90ab-cdef-1234-567890abcdef")
    async with Client(["pve1.example", "pve2.example"], token) as client:
        for guest in (await client.cluster.resources("vm")).guests:
            print(guest.vmid, guest.name, guest.node, guest.status)

        guest = await client.guest(100)
        task = await guest.create_snapshot("before-update")
        outcome = await task.wait(timeout=300)
        print(outcome.exit_status)
    ```

    Parameters:

    * `hosts`: nodes of the cluster, as `name`, `name:port` or `[IPv6]:port`; the default port is
      8006. One host is used until it fails, then the next. Any of them answers for the cluster.
    * `auth`: an API token (recommended), a user with a password, or the ticket of a user who signed
      in. A client without an account reads the realms and signs users in, and nothing else.
    * `tls`: the trusted certificates; by default those of the system's store.
    * `limits`: concurrent requests, and timeouts in seconds.
    * `name`: a name for `repr` and logs; by default the first host.
    * `http_transport`: replaces the network in tests, e.g. `httpx2.MockTransport(handler)`.
    * `before_write`: awaited right before each request that is no GET, of every account; what it
      raises is raised in place of the request, which is not sent.
    * `sockets`: a bound of open sockets that it shares with other clients.
    * `observe`: called after each HTTP request, with how long it took and how it ended.

    Attributes: `cluster` has the calls about the cluster as a whole, `access` those about accounts
    and permissions, `sign_in` those that turn a user's password into a ticket.

    Calls raise subclasses of `ProxmoxError`; malformed hosts raise ValueError here.
    """

    _version: Version | None = None

    async def version(self) -> Version:
        """GET /version. Needs an account, but no privilege.

        Source: PVE/API2.pm.
        """
        self._version = await self.transport.get("/version", Version)
        return self._version

    async def nodes(self) -> list[NodeRow]:
        """GET /nodes. Lists all nodes; their figures need Sys.Audit on each.

        Source: PVE/API2/Nodes.pm.
        """
        return await self.transport.get("/nodes", list[NodeRow])

    async def pools(self) -> list[Pool]:
        """GET /pools. Lists pools with Pool.Audit, without their members.

        Source: PVE/API2/Pool.pm.
        """
        return await self.transport.get("/pools", list[Pool])

    async def pool(self, pool_id: str) -> Pool:
        """GET /pools, one pool with its members. Needs Pool.Audit.

        Source: PVE/API2/Pool.pm.
        """
        # /pools/{poolid} doesn't accept the slash in the name of a nested pool
        (pool,) = await self.transport.get("/pools", tuple[Pool], poolid=pool_id)
        return pool

    async def storages(self) -> list[StorageConfig]:
        """GET /storage. Lists configured storages; those without privileges are left out.

        Source: PVE/API2/Storage/Config.pm.
        """
        return await self.transport.get("/storage", list[StorageConfig])

    def node(self, name: str) -> Node:
        """Return the calls about a node."""
        return Node(self.transport, name)

    def storage(self, node: str, storage: str) -> Storage:
        """Return the calls about a storage on a node."""
        return Storage(self.transport, node, storage)

    def qemu(self, node: str, vmid: int) -> Qemu:
        """Return the calls about a virtual machine."""
        return Qemu(self.transport, node, vmid, self._node_of)

    def lxc(self, node: str, vmid: int) -> Lxc:
        """Return the calls about a container."""
        return Lxc(self.transport, node, vmid, self._node_of)

    async def guest(self, vmid: int) -> Qemu | Lxc:
        """Find a guest on its current node and return the calls about it.

        Send GET /cluster/resources?type=vm. Raise NotFound, also for a guest without VM.Audit.
        """
        guest = await self._find(vmid)
        kind = Qemu if guest.type == "qemu" else Lxc
        return kind(self.transport, guest.node, vmid, self._node_of)

    def task(self, upid: str | Upid) -> Task:
        """Return the calls about a task; raise BadParameters for a malformed UPID."""
        return Task(self.transport, upid)

    async def raw(self, method: str, path: str, /, **parameters: Parameter) -> Any:
        """Send any other request, validated against the API schema of the cluster's version.

        Write parameters with a dash as `**{"prune-backups": …}`, and percent-encode a segment of
        `path` that contains a slash. Return the data as plain values. Raise BadParameters, before
        anything is sent, for an unknown path and for parameters that the schema rejects.
        """
        # imported on first use: the schema takes a moment to load, and most programs don't need it
        from proxmox_client import schema

        release = (self._version or await self.version()).release
        match = schema.load(release).find(method, path)
        if match is None:
            message = f"{method} {path} does not exist in Proxmox VE {release}"
            raise BadParameters(501, "", message, {"path": message})
        endpoint, path_values = match
        sent = {name: value for name, value in parameters.items() if value is not None}
        if errors := endpoint.check({**path_values, **sent}):
            listed = "; ".join(f"{name}: {text}" for name, text in errors.items())
            raise BadParameters(400, "", f"{method} {path}: {listed}", errors)
        encoded = join(*(unquote(segment) for segment in path.strip("/").split("/")))
        return await self.transport.request_data(method, encoded, **parameters)

    def _use(self, auth: Credential | None) -> None:
        super()._use(auth)
        self.cluster = ClusterApi(self.transport)
        self.access = Access(self.transport)
        self.sign_in = SignIn(self.transport)

    async def _find(self, vmid: int) -> GuestResource:
        guests = (await self.cluster.resources("vm")).guests
        guest = next((guest for guest in guests if guest.vmid == vmid), None)
        if guest is None:
            raise NotFound(404, "", f"No guest {vmid} that this account may see")
        return guest

    async def _node_of(self, vmid: int) -> str:
        return (await self._find(vmid)).node
