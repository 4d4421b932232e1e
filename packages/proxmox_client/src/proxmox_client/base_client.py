"""The base of the clients of Proxmox VE and Backup Server: connections that accounts share."""

from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from types import TracebackType
from typing import ClassVar, Self

from proxmox_client.auth import Credential
from proxmox_client.circuit_breaker import Circuits
from proxmox_client.hosts import DEFAULT_PORT, Host
from proxmox_client.limits import Limits
from proxmox_client.sockets import SocketBudget
from proxmox_client.tls import Tls
from proxmox_client.transport import HostPool, HttpTransport, Observe, Transport

_DEFAULT_TLS = Tls()
_DEFAULT_LIMITS = Limits()


class BaseClient:
    """A client of one installation of Proxmox: its connections, and the account that uses them.

    `hosts` are where it is reached, `fingerprints` those of its pinned certificates.
    """

    default_port: ClassVar[int] = DEFAULT_PORT

    def __init__(
        self,
        hosts: Sequence[str],
        auth: Credential | None = None,
        *,
        tls: Tls = _DEFAULT_TLS,
        limits: Limits = _DEFAULT_LIMITS,
        name: str = "",
        http_transport: HttpTransport | None = None,
        before_write: Callable[[], Awaitable[None]] | None = None,
        sockets: SocketBudget | None = None,
        observe: Observe | None = None,
    ) -> None:
        self._pool = HostPool(
            hosts,
            tls,
            limits,
            http_transport,
            default_port=self.default_port,
            sockets=sockets,
        )
        self._pool.before_write = before_write
        self._pool.observe = observe
        self.hosts = [Host.parse(host, self.default_port) for host in hosts]
        self.fingerprints = frozenset(tls.fingerprints)
        self.name = name or hosts[0]
        self._use(auth)

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
        return f"{type(self).__name__}({self.name!r})"

    async def aclose(self) -> None:
        """Close all connections, including those of clients made by `signed_in_as`."""
        await self._pool.aclose()

    def answers(self, since: float) -> bool:
        """Return whether any host has answered since then, on the monotonic clock."""
        return self._pool.answered > since

    def delay(self, since: float) -> str:
        """Return why no answer since then proves nothing about the hosts; "" if it does."""
        return self._pool.delay(since)

    @property
    def written(self) -> float:
        """When the last request that is no GET ended, of any account, on the monotonic clock."""
        return self._pool.written

    @property
    def circuits(self) -> Circuits:
        """The state of the circuit breaker."""
        return self._pool.circuit_breaker.circuits

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a slot of the cluster."""
        return self._pool.limiter.waiting

    def note_silence(self, seconds: float) -> None:
        """Let other reads wait briefly only: no host has answered a shared one in that time."""
        self._pool.circuit_breaker.note_silence(seconds)

    def retire(self) -> None:
        """Keep no connection open after its request from now on, for all accounts; none breaks.

        Calls in progress end as usual. There is nothing left to close after them.
        """
        self._pool.retire()

    def signed_in_as(self, auth: Credential | None) -> Self:
        """Return a client with another account, or none, that shares the connections and limits."""
        other = copy(self)
        other._use(auth)  # noqa: SLF001 - the same class
        return other

    def _use(self, auth: Credential | None) -> None:
        """Send all further calls with this account."""
        self.transport = Transport(self._pool, auth)
