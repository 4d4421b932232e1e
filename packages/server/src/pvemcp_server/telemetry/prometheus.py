"""The figures in the format of Prometheus, and the port that they are served on.

The port is one of its own, beside that of clients, and on loopback by default: there is no key to
keep, a balancer in front of the server does not lead to it, and it answers when the database, which
every key is checked with, does not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pvemcp_server.http.hosts import Hosts
from pvemcp_server.telemetry.figures import Figure, Histogram, Kind, Values

METRICS: Final = "/metrics"
Read = Callable[[], Awaitable[Mapping[Figure, Values]]]


def family_of(figure: Figure, values: Values) -> Metric:
    """Return a figure with its values as a family of the client library."""
    text, labels = figure.description, figure.labels
    if figure.kind is Kind.HISTOGRAM:
        histograms = HistogramMetricFamily(figure.name, text, labels=labels)
        for names, value in values.items():
            if isinstance(value, Histogram):
                bounds = [*(f"{bound:g}" for bound in value.bounds), "+Inf"]
                counts = accumulate(value.counts)
                buckets = list(zip(bounds, counts, strict=True))
                histograms.add_metric(names, buckets, value.total)
        return histograms
    kinds = {Kind.COUNTER: CounterMetricFamily, Kind.GAUGE: GaugeMetricFamily}
    family: CounterMetricFamily | GaugeMetricFamily = kinds[figure.kind](
        figure.name, text, labels=labels
    )
    for names, value in values.items():
        if not isinstance(value, Histogram):
            family.add_metric(names, value)
    return family


class _Taken(Collector):
    """Figures that were read before."""

    def __init__(self, figures: Mapping[Figure, Values]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """Return the families of all figures."""
        return [family_of(figure, values) for figure, values in self._figures.items()]


class MetricsPort:
    """ASGI middleware around the gate: answers what arrives at the port of metrics itself.

    The port is that of the socket, which no client can choose by a header. Nothing but `/metrics`
    is served there, and nothing of it at the other port.
    """

    def __init__(self, gate: ASGIApp, port: int, hosts: Hosts, read: Read) -> None:
        self._gate = gate
        self._port = port
        self._hosts = hosts
        self._read = read
        self._reading = asyncio.Lock()  # one at a time: a scrape costs more than a call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a scrape; pass on what arrived elsewhere."""
        if scope["type"] == "http" and scope["server"][1] == self._port:
            response = await self._response(scope)
            await response(scope, receive, send)
        else:
            await self._gate(scope, receive, send)

    async def _response(self, scope: Scope) -> Response:
        # a page in a browser of this machine can have this address, by a name of its own
        if foreign := self._hosts.refusal(scope, to_transport=False):
            return foreign.response
        if scope["path"] != METRICS:
            return PlainTextResponse(f"Only {METRICS} is served at this port.", 404)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("Method Not Allowed", 405, {"Allow": "GET, HEAD"})
        accepted = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        encode, content_type = choose_encoder(accepted)
        async with self._reading:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
            registry.register(_Taken(await self._read()))
            # a thousand clusters are megabytes: calls go on beside it
            body = await asyncio.to_thread(encode, registry)
        return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
