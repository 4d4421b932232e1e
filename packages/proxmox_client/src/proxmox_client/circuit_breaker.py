"""Circuit breaker: after a cluster, node or storage times out, later reads fail fast.

A node can be online for the cluster and still hang, or one of its storages can, or no host of the
cluster answers. Without a circuit breaker every read would wait for the full timeout while more
reads queue for the same node.

There is one circuit per `FailureDomain.part`, one per node, and one for the cluster:

* closed: reads wait for the full timeout.
* half-open: a read failed less than RESET_AFTER seconds ago. Reads wait for PROBE_TIMEOUT only.
* open: a second read in a row failed less than COOLDOWN seconds ago. Reads fail without a request.

A failure is a read that used up its timeout, or a status of 595 to 599: the cluster itself reports
the node as unreachable. Any other response, an error included, closes the circuit.

RESET_AFTER counts from the last failure after a full timeout. Failed probes don't extend it, so a
domain that is slow rather than dead gets its full timeout again once a minute.

The circuit of a node shortens reads of its other parts. It blocks them after NodeSilent, or once
two parts failed without an answer of the node between them: a node with many parts would
otherwise cost a probe for each. The circuit of the cluster shortens reads of all nodes, and any
response closes it; it is half-open as well after a shared read that callers wait for less long
(`note_silence`). The failure of a storage, of Ceph, or of a backup server's datastore affects
nothing else. Writes bypass the circuit breaker: a write is worth the full wait.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import Final, NamedTuple

from proxmox_client.errors import (
    NodeSilent,
    NodeUnreachable,
    ResponseError,
    Unreachable,
)
from proxmox_client.limits import PROBE_TIMEOUT, time_limit

RESET_AFTER: Final = 60.0  # seconds after a full timeout; then the full timeout applies again
COOLDOWN: Final = 5.0  # seconds without any read after two failures in a row


_CLUSTER: Final = ""  # the circuit of the cluster as a whole


class FailureDomain(NamedTuple):
    """Part of a cluster that can hang on its own: a node's guests, or one storage on a node.

    `node` is empty for reads about the whole cluster.
    """

    node: str
    part: str  # pve1/qemu, pve1/storage/nfs
    is_alone: bool  # whether the rest of the node may answer while this hangs


# the host that is asked has the series of all nodes and guests
_RECORDED: Final = FailureDomain(_CLUSTER, "cluster/rrddata", is_alone=True)


def failure_domain(path: str) -> FailureDomain:
    """Return the failure domain that a path addresses."""
    parts = path.split("/")
    if parts[1:3] == ["admin", "datastore"] and len(parts) > 3:
        # a backup server reads its snapshots from disks, which may take as long as a node
        return FailureDomain(_CLUSTER, f"datastore/{parts[3]}", is_alone=True)
    if parts[1] != "nodes" or len(parts) < 3:
        is_ceph = parts[1:3] == ["cluster", "ceph"]  # it asks Ceph's monitors
        return FailureDomain(_CLUSTER, "cluster/ceph" if is_ceph else _CLUSTER, is_ceph)
    if parts[-1] == "rrddata" and parts[3] != "storage":
        return _RECORDED
    is_storage = len(parts) > 4 and parts[3] == "storage"
    return FailureDomain(parts[2], "/".join(parts[2 : 5 if is_storage else 4]), is_storage)


@dataclass(slots=True)
class _Circuit:
    """A circuit that is not closed: the last failure of a node or part.

    All times are readings of the breaker's clock.
    """

    reason: str
    resets_at: float
    part: str  # that failed first
    blocked_until: float = 0.0
    is_silent: bool = False  # of a node that answers nothing: all of its parts are blocked


class State(IntEnum):
    """The state of a circuit, the better one first."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Circuits(NamedTuple):
    """The state of the circuit of a cluster, and how many of its parts are not closed."""

    cluster: State
    parts: int


class CircuitBreaker:
    """Circuits of one cluster.

    `full_timeout` is the usual read timeout in seconds, which the transport applies;
    `cluster_timeout` is that of reads about the whole cluster, which is applied here.
    """

    def __init__(
        self,
        full_timeout: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        cluster_timeout: float = inf,
    ) -> None:
        self._full_timeout = full_timeout
        self._cluster_timeout = cluster_timeout
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    @property
    def circuits(self) -> Circuits:
        """The present state of the cluster's circuit, and the number of others not closed."""
        now = self._clock()
        present = {n: each for n, each in self._circuits.items() if now < each.resets_at}
        own = present.pop(_CLUSTER, None)
        if own is None:
            return Circuits(State.CLOSED, len(present))
        return Circuits(State.OPEN if now < own.blocked_until else State.HALF_OPEN, len(present))

    @asynccontextmanager
    async def guard(self, domain: FailureDomain, request: str) -> AsyncIterator[None]:
        """Guard one read of `domain`; raise Unreachable at once while its circuit is open.

        `request` names the read in the DeadlineExceeded of a probe that takes too long.
        """
        started = self._clock()
        for name in [name for name, each in self._circuits.items() if started >= each.resets_at]:
            del self._circuits[name]
        circuit, node = self._circuits.get(domain.part), self._circuits.get(domain.node)
        if circuit and started < circuit.blocked_until:
            seconds = circuit.blocked_until - started
            part = domain.part or "the cluster"
            raise Unreachable(part, f"{circuit.reason}; retry in {seconds:.0f} s")
        if node and node.is_silent and started < node.blocked_until:
            seconds = node.blocked_until - started
            raise NodeSilent(domain.node, f"{node.reason}; retry in {seconds:.0f} s")
        probing = bool(circuit or node or _CLUSTER in self._circuits)
        full = self._full_timeout if domain.node else self._cluster_timeout
        limit = PROBE_TIMEOUT if probing else full
        try:
            async with time_limit(limit if probing or not domain.node else None, request):
                yield
        except ResponseError as error:
            if isinstance(error, NodeUnreachable):
                self._record_failure(domain, str(error), probing=probing)
            else:
                self._close(domain)
            raise
        except NodeSilent as error:
            now = self._clock()
            self._circuits[domain.node] = _Circuit(
                error.message, now + RESET_AFTER, domain.part, now + COOLDOWN, is_silent=True
            )
            raise
        except BaseException:
            # A cancelled read counts too if it had waited for its whole timeout. A read that was
            # cancelled earlier proves nothing about the domain, so the circuit stays unchanged.
            if self._clock() - started >= limit:
                # the request stays unnamed: callers who get this reason may not know of its guest
                self._record_failure(domain, f"no answer within {limit:g} s", probing=probing)
            raise
        self._close(domain)

    def note_silence(self, seconds: float) -> None:
        """Note that no host answered a read about the cluster in so many seconds.

        It is for one who waits for a shared read for less than the full timeout.
        """
        everything = FailureDomain(_CLUSTER, _CLUSTER, is_alone=False)
        self._record_failure(everything, f"no answer within {seconds:g} s", probing=True)

    def _record_failure(self, domain: FailureDomain, reason: str, *, probing: bool) -> None:
        # a storage may hang while the rest of its node answers
        names = {domain.part} if domain.is_alone else {domain.part, domain.node}
        now = self._clock()
        for name in names:
            circuit = self._circuits.get(name)
            if circuit is None or now >= circuit.resets_at:
                self._circuits[name] = _Circuit(reason, now + RESET_AFTER, domain.part)
                continue
            circuit.reason = reason
            circuit.is_silent |= circuit.part != domain.part
            circuit.blocked_until = now + COOLDOWN
            if not probing:
                circuit.resets_at = now + RESET_AFTER

    def _close(self, domain: FailureDomain) -> None:
        for name in (domain.part, domain.node, _CLUSTER):
            self._circuits.pop(name, None)
