"""The figures of this process: declared once, for every exporter.

Labels are tools, outcomes and clusters. None has a guest, a node, a key or a text of a client, so
the number of series is bounded, and no figure has anything to hide.
"""

import platform
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import httpx2 as httpx

from proxmox_client import Exchange
from pvemcp_server import __version__
from pvemcp_server.audit import Event
from pvemcp_server.audit.audit import MOST_BUFFERED
from pvemcp_server.errors import StateUnavailable
from pvemcp_server.mcp.endpoint import Endpoint
from pvemcp_server.mcp.middleware import RECORDED_METHODS
from pvemcp_server.open_files import file_limit, open_files
from pvemcp_server.store.database import DatabaseFailed

MOST_SERIES: Final = 20_000  # of calls: beyond, clusters are counted together
SEVERAL: Final = "*"  # the cluster of a call that used several
OTHER: Final = "other"  # the tool of a call of an unknown name, and a method that is none
_CALL_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_REQUEST_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0)


class Kind(StrEnum):
    """What becomes of a figure: it only grows, goes up and down, or counts values by size."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as exporters declare it. Prometheus adds `_total` to the name of a counter."""

    name: str
    kind: Kind
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()  # of a histogram, in seconds


CALLS: Final = Figure(
    "pvemcp_calls",
    Kind.COUNTER,
    "Calls that have ended, by tool, outcome and cluster: none, one, or * for several.",
    ("tool", "outcome", "cluster"),
)
CALL_SECONDS: Final = Figure(
    "pvemcp_call_duration_seconds",
    Kind.HISTOGRAM,
    "Duration of calls by tool, with what they wait for: Proxmox, its tasks, and the user.",
    ("tool",),
    _CALL_SECONDS,
)
REQUESTS: Final = Figure(
    "pvemcp_proxmox_requests",
    Kind.COUNTER,
    "HTTP requests to Proxmox by cluster and outcome; a retry is a further request.",
    ("cluster", "outcome"),
)
REQUEST_SECONDS: Final = Figure(
    "pvemcp_proxmox_request_duration_seconds",
    Kind.HISTOGRAM,
    "Duration of HTTP requests to Proxmox by cluster, without the wait for a place.",
    ("cluster",),
    _REQUEST_SECONDS,
)
INVENTORY_READS: Final = Figure(
    "pvemcp_inventory_reads",
    Kind.COUNTER,
    "Reads of the inventory of a cluster: cached, refreshed, or stale (Proxmox did not answer).",
    ("cluster", "result"),
)
CLUSTERS: Final = Figure("pvemcp_clusters", Kind.GAUGE, "Configured clusters and backup servers.")
CLUSTER_UP: Final = Figure(
    "pvemcp_cluster_up",
    Kind.GAUGE,
    "Whether the last read of the inventory succeeded; no series before the first one.",
    ("cluster",),
)
CIRCUIT: Final = Figure(
    "pvemcp_cluster_circuit_state",
    Kind.GAUGE,
    "Circuit breaker of a cluster: 0 closed, 1 half-open (reads wait 3 s only), 2 open.",
    ("cluster",),
)
PARTS: Final = Figure(
    "pvemcp_cluster_circuits_not_closed",
    Kind.GAUGE,
    "Nodes, storages and parts of nodes of a cluster whose circuit is not closed.",
    ("cluster",),
)
WAITING: Final = Figure(
    "pvemcp_proxmox_requests_waiting",
    Kind.GAUGE,
    "Requests that wait for a place on a cluster.",
    ("cluster",),
)
SOCKETS: Final = Figure(
    "pvemcp_proxmox_sockets", Kind.GAUGE, "Places of sockets to clusters that are in use."
)
SOCKETS_LIMIT: Final = Figure(
    "pvemcp_proxmox_sockets_limit", Kind.GAUGE, "Sockets to clusters that may be open."
)
RUNNING: Final = Figure("pvemcp_calls_running", Kind.GAUGE, "Tool calls in progress.")
STREAMS: Final = Figure("pvemcp_streams", Kind.GAUGE, "Open streams of clients.")
SESSIONS: Final = Figure("pvemcp_sessions", Kind.GAUGE, "Open sessions of the older revisions.")
AUDIT_BUFFERED: Final = Figure(
    "pvemcp_audit_buffered_entries", Kind.GAUGE, "Entries of the audit that wait to be written."
)
AUDIT_LIMIT: Final = Figure(
    "pvemcp_audit_buffer_limit", Kind.GAUGE, "Entries that may wait before calls are refused."
)
AUDIT_FAILING: Final = Figure(
    "pvemcp_audit_failing", Kind.GAUGE, "1 while the audit cannot be written."
)
DATABASE: Final = Figure(
    "pvemcp_database_connections",
    Kind.GAUGE,
    "Connections to PostgreSQL: in use or idle.",
    ("state",),
)
DATABASE_LIMIT: Final = Figure(
    "pvemcp_database_connections_limit", Kind.GAUGE, "Connections to PostgreSQL that may be open."
)
OPEN_FILES: Final = Figure("pvemcp_open_files", Kind.GAUGE, "Open file descriptors.")
FILES_LIMIT: Final = Figure("pvemcp_open_files_limit", Kind.GAUGE, "Limit of file descriptors.")
BUILD: Final = Figure(
    "pvemcp_build_info",
    Kind.GAUGE,
    "Always 1; versions of the server and of Python, and the kind of database.",
    ("version", "python", "database"),
)

FIGURES: Final = (
    *(CALLS, CALL_SECONDS, REQUESTS, REQUEST_SECONDS, INVENTORY_READS),
    *(CLUSTERS, CLUSTER_UP, CIRCUIT, PARTS, WAITING, SOCKETS, SOCKETS_LIMIT),
    *(RUNNING, STREAMS, SESSIONS, AUDIT_BUFFERED, AUDIT_LIMIT, AUDIT_FAILING),
    *(DATABASE, DATABASE_LIMIT, OPEN_FILES, FILES_LIMIT, BUILD),
)


@dataclass(slots=True)
class Histogram:
    """How many values were at most as large as each bound; the last count has the others."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0  # sum of the values

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def copy(self) -> "Histogram":
        """Return the present counts."""
        same = Histogram(self.bounds, self.total)
        same.counts[:] = self.counts
        return same


Labels = tuple[str, ...]
Values = Mapping[Labels, float | Histogram]


def outcome_of(exchange: Exchange) -> str:
    """Return how a request to Proxmox ended, as a label."""
    failure = exchange.failure
    if failure is not None:
        if issubclass(failure, httpx.TimeoutException):
            return "timeout"
        # a deadline of ours cancels as a client does that leaves
        return "unreachable" if issubclass(failure, httpx.RequestError) else "given up"
    if exchange.status < 300:
        return "ok"
    if exchange.status >= 595:
        return "node unreachable"
    return "refused" if exchange.status < 500 else "failed"


class Measurements:
    """Counts what ends, and reads the rest when asked; for the thread of the event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._services = endpoint.services
        self._tools = frozenset({*endpoint.tools, *RECORDED_METHODS, "sign in"})
        self._calls: Counter[Labels] = Counter()
        self._call_seconds: defaultdict[Labels, Histogram] = defaultdict(
            lambda: Histogram(CALL_SECONDS.bounds)
        )
        self._requests: Counter[Labels] = Counter()
        self._request_seconds: defaultdict[Labels, Histogram] = defaultdict(
            lambda: Histogram(REQUEST_SECONDS.bounds)
        )
        self._names: frozenset[str] = frozenset()  # of the configured clusters

    def tool_of(self, event: Event) -> str:
        """Return the tool of a call as a label: callers can name anything."""
        return event.tool if event.tool in self._tools else OTHER

    def count_call(self, event: Event) -> None:
        """Count a call that has ended, as the audit records it."""
        tool = self.tool_of(event)
        cluster = event.cluster or ""
        labels = (tool, event.outcome or "", SEVERAL if "," in cluster else cluster)
        if len(self._calls) >= MOST_SERIES and labels not in self._calls:
            labels = (*labels[:2], SEVERAL)
        self._calls[labels] += 1
        if event.duration_ms is not None:
            self._call_seconds[tool,].add(event.duration_ms / 1000)

    def count_request(self, cluster: str, exchange: Exchange) -> None:
        """Count a request to a cluster."""
        self._requests[cluster, outcome_of(exchange)] += 1
        self._request_seconds[cluster,].add(exchange.seconds)

    async def read(self) -> dict[Figure, Values]:
        """Return all figures as they are now. Those of removed clusters have ended."""
        await self._forget_removed()
        return {
            CALLS: dict(self._calls),
            CALL_SECONDS: {key: each.copy() for key, each in self._call_seconds.items()},
            REQUESTS: dict(self._requests),
            REQUEST_SECONDS: {key: each.copy() for key, each in self._request_seconds.items()},
            **self._of_clusters(),
            **self._of_process(),
        }

    async def _forget_removed(self) -> None:
        """Forget clusters that are configured no more; without the database, keep all."""
        try:
            self._names = frozenset(await self._services.clusters.kinds())
        except (DatabaseFailed, StateUnavailable, OSError):
            return
        known = {*self._names, SEVERAL, ""}
        for calls in [labels for labels in self._calls if labels[2] not in known]:
            del self._calls[calls]
        for counts in (self._requests, self._request_seconds):
            for labels in [labels for labels in counts if labels[0] not in known]:
                del counts[labels]

    def _of_clusters(self) -> dict[Figure, Values]:
        clusters = self._services.clusters
        clients = {n: client for n, client in clusters.clients.items() if n in self._names}
        circuits = {name: client.circuits for name, client in clients.items()}
        failing = clusters.failing
        return {
            CLUSTERS: {(): len(self._names)},
            CLUSTER_UP: {(n,): int(not failing[n]) for n in clients if n in failing},
            CIRCUIT: {(n,): int(each.cluster) for n, each in circuits.items()},
            PARTS: {(n,): each.parts for n, each in circuits.items()},
            WAITING: {(n,): client.waiting for n, client in clients.items()},
            INVENTORY_READS: {
                (name, result): reads
                for name, results in clusters.inventory_reads.items()
                for result, reads in results.items()
                if name in self._names
            },
            SOCKETS: {(): clusters.sockets.used},
            SOCKETS_LIMIT: {(): clusters.sockets.most},
        }

    def _of_process(self) -> dict[Figure, Values]:
        endpoint, audit = self._endpoint, self._services.audit
        database = self._services.store.database
        pool, files, limit = database.connections, open_files(), file_limit()
        kind = "sqlite" if database.is_sqlite else "postgresql"
        return {
            RUNNING: {(): len(endpoint.pipeline.running)},
            STREAMS: {(): len(endpoint.active_requests.streams())},
            SESSIONS: {(): endpoint.transports.sessions.number},
            AUDIT_BUFFERED: {(): audit.buffered},
            AUDIT_LIMIT: {(): MOST_BUFFERED},
            AUDIT_FAILING: {(): int(audit.is_failing)},
            DATABASE: {("in use",): pool.in_use, ("idle",): pool.idle} if pool else {},
            DATABASE_LIMIT: {(): pool.most} if pool else {},
            OPEN_FILES: {} if files is None else {(): files},
            FILES_LIMIT: {} if limit < 0 else {(): limit},
            BUILD: {(__version__, platform.python_version(), kind): 1},
        }
