"""Circuit breaker: after a node or storage times out, later reads fail fast.

A node can be online for the cluster and still hang, or one of its storages can. Without a circuit
breaker every read would wait for the full read timeout while more reads queue for the same node.

There is one circuit per `FailureDomain.part` and one per node:

* closed: reads wait for the full timeout.
* half-open: a read failed less than RESET_AFTER seconds ago. Reads wait for PROBE_TIMEOUT only.
* open: a second read in a row failed less than COOLDOWN seconds ago. Reads fail without a request.

A failure is a read that used up its timeout, or a status of 595 to 599: the cluster itself reports
the node as unreachable. Any other response, an error included, closes the circuit.

RESET_AFTER counts from the last failure after a full timeout. Failed probes don't extend it, so a
domain that is slow rather than dead gets its full timeout again once a minute.

The circuit of a node shortens reads of its other parts and never blocks them. A storage's failure
affects that storage only. Writes bypass the circuit breaker: a write is worth the full wait.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from proxmox_client.errors import NodeUnreachable, ProxmoxError, ResponseError, Unreachable
from proxmox_client.limits import time_limit

RESET_AFTER: Final = 60.0  # seconds after a full timeout; then the full timeout applies again
PROBE_TIMEOUT: Final = 3.0  # seconds for a read while the circuit is half-open
COOLDOWN: Final = 5.0  # seconds without any read after two failures in a row


class FailureDomain(NamedTuple):
    """Part of a cluster that can hang on its own: a node's guests, or one storage on a node."""

    node: str
    part: str  # pve1/qemu, pve1/storage/nfs
    is_storage: bool


def failure_domain(path: str) -> FailureDomain:
    """Return the failure domain that a path below `/nodes/{node}` addresses."""
    parts = path.split("/")
    is_storage = len(parts) > 4 and parts[3] == "storage"
    return FailureDomain(parts[2], "/".join(parts[2 : 5 if is_storage else 4]), is_storage)


@dataclass(slots=True)
class _Circuit:
    """A circuit that is not closed: the last failure of a node or part.

    All times are readings of the breaker's clock.
    """

    reason: str
    resets_at: float
    blocked_until: float = 0.0


class CircuitBreaker:
    """Circuits of one cluster; `full_timeout` is the usual read timeout in seconds."""

    def __init__(self, full_timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._full_timeout = full_timeout
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    @asynccontextmanager
    async def guard(self, domain: FailureDomain, request: str) -> AsyncIterator[None]:
        """Guard one read of `domain`; raise Unreachable at once while its circuit is open.

        `request` names the read in the DeadlineExceeded of a probe that takes too long.
        """
        started = self._clock()
        circuit = self._circuit(domain.part, started)
        if circuit and started < circuit.blocked_until:
            seconds = circuit.blocked_until - started
            raise Unreachable(domain.part, f"{circuit.reason}; retry in {seconds:.0f} s")
        probing = bool(circuit or self._circuit(domain.node, started))
        try:
            async with time_limit(PROBE_TIMEOUT if probing else None, request):
                yield
        except ResponseError as error:
            if isinstance(error, NodeUnreachable):
                self._record_failure(domain, str(error), probing=probing)
            else:
                self._close(domain)
            raise
        except BaseException as error:
            # A cancelled read counts too if it had waited for its whole timeout. A read that was
            # cancelled earlier proves nothing about the domain, so the circuit stays unchanged.
            if self._clock() - started >= (PROBE_TIMEOUT if probing else self._full_timeout):
                reason = str(error) if isinstance(error, ProxmoxError) else "no answer"
                self._record_failure(domain, reason, probing=probing)
            raise
        self._close(domain)

    def _circuit(self, name: str, now: float) -> _Circuit | None:
        circuit = self._circuits.get(name)
        if circuit and now >= circuit.resets_at:
            del self._circuits[name]
            return None
        return circuit

    def _record_failure(self, domain: FailureDomain, reason: str, *, probing: bool) -> None:
        # a storage may hang while the rest of its node answers
        names = {domain.part} if domain.is_storage else {domain.part, domain.node}
        now = self._clock()
        for name in names:
            circuit = self._circuit(name, now)
            if circuit is None:
                self._circuits[name] = _Circuit(reason, now + RESET_AFTER)
                continue
            circuit.reason = reason
            circuit.blocked_until = now + COOLDOWN
            if not probing:
                circuit.resets_at = now + RESET_AFTER

    def _close(self, domain: FailureDomain) -> None:
        self._circuits.pop(domain.part, None)
        self._circuits.pop(domain.node, None)
