"""Traces and metrics for a collector of OpenTelemetry, by OTLP over HTTP: the extra `otel`.

The variables of the specification configure it (`OTEL_EXPORTER_OTLP_ENDPOINT` and others), and the
SDK reads them. The providers are ours and not the global ones: no library of this process adds
spans of its own, which could hold what clients and guests wrote.

A span has names of known methods, tools and clusters, outcomes, and the shape of a path, as
`/nodes/{node}/qemu/{vmid}/config`. It has no arguments, no values of a path and no text of an
error or of a client: thousands of spans wait in memory while the collector does not answer.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import Context
from functools import lru_cache, partial
from typing import Any, Final
from uuid import uuid4

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxmox_client import Exchange
from proxmox_client.schema import VERSIONS, load
from pvemcp_server import __version__
from pvemcp_server.audit import Event, Outcome
from pvemcp_server.store.background import ticks
from pvemcp_server.telemetry.figures import (
    CALL_SECONDS,
    FIGURES,
    OTHER,
    REQUEST_SECONDS,
    Figure,
    Kind,
    Measurements,
    Values,
    outcome_of,
)

READ_SECONDS: Final = 10.0  # between two readings of the figures, which exports take
SHUTDOWN_SECONDS: Final = 3.0  # for a last export
_ENCODED: Final = re.compile("%[0-9A-Fa-f]{2}")  # characters of a value, as a slash
_PARENT: Final = TraceContextTextMapPropagator()  # W3C traceparent and tracestate


def resource() -> Resource:
    """Return what describes this process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    own = {
        "service.name": "pvemcp",
        "service.version": __version__,
        "service.instance.id": str(uuid4()),
    }
    configured = dict(Resource.create().attributes)
    if str(configured.get("service.name")).startswith("unknown_service"):  # the SDK's default
        del configured["service.name"]
    return Resource({**own, **configured})


class Tracing:
    """Spans of messages of clients, and below them of requests to Proxmox."""

    def __init__(self, tools: Iterable[str], is_served: Callable[[str], bool]) -> None:
        self.provider = TracerProvider(resource=resource(), shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer("pvemcp", __version__)
        self._tools = frozenset(tools)
        self._is_served = is_served
        load(VERSIONS[-1])  # for shape_of: the first call does not wait for the file

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Trace a message, as middleware of the MCP server.

        Its parent is in `_meta` as the protocol says (SEP-414), or in the header of HTTP.
        """
        name = str((ctx.params or {}).get("name", ""))
        method = ctx.method if self._is_served(ctx.method) else OTHER
        target = name if method == "tools/call" and name in self._tools else ""
        attributes = {"mcp.method.name": method, "mcp.protocol.version": ctx.protocol_version}
        if target:
            attributes |= {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": target}
        with self._tracer.start_as_current_span(
            f"{method} {target}".rstrip(),
            context=_parent_of(ctx),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await call_next(ctx)
            except BaseException as error:
                kind = (
                    str(error.error.code) if isinstance(error, MCPError) else type(error).__name__
                )
                span.set_attribute("error.type", kind)
                span.set_status(StatusCode.ERROR)
                raise

    def note_call(self, event: Event) -> None:
        """Add to the present span how its call ended, as the audit records it."""
        span = trace.get_current_span()
        span.set_attribute("pvemcp.call_id", event.call_id or "")
        span.set_attribute("pvemcp.outcome", event.outcome or "")
        if event.cluster:
            span.set_attribute("pvemcp.clusters", event.cluster.split(", "))
        if event.outcome in (Outcome.ERROR, Outcome.REFUSED, Outcome.CANCELLED):
            span.set_attribute("error.type", str(event.outcome))
            span.set_status(StatusCode.ERROR)

    def note_request(self, cluster: str, exchange: Exchange) -> None:
        """Add a span of a request that has ended, below the present one."""
        if not trace.get_current_span().get_span_context().is_valid:
            return  # of no call, as of housekeeping
        ended = time.time_ns()
        shape = shape_of(exchange.method, exchange.path)
        span = self._tracer.start_span(
            f"{exchange.method} {shape}",
            kind=SpanKind.CLIENT,
            attributes={
                "http.request.method": exchange.method,
                "url.template": shape,
                "server.address": exchange.host,
                "pvemcp.cluster": cluster,
            },
            start_time=ended - round(exchange.seconds * 1e9),
        )
        if exchange.status:
            span.set_attribute("http.response.status_code", exchange.status)
        if (outcome := outcome_of(exchange)) != "ok":
            span.set_attribute("error.type", outcome)
            span.set_status(StatusCode.ERROR)
        span.end(ended)

    def new_context(self) -> Context:
        """Return a context with the present span and nothing else of its task."""
        context, present = Context(), trace.get_current_span()
        context.run(attach, trace.set_span_in_context(present))
        return context


@lru_cache(4096)
def shape_of(method: str, path: str) -> str:
    """Return a path with the names of its parameters in place of their values.

    Of one that Proxmox VE's own schema does not have, as of a backup server, only the beginning.
    """
    match = load(VERSIONS[-1]).find(method, _ENCODED.sub("_", path))
    return match[0].path if match else f"/{path.strip('/').partition('/')[0]}/…"


def _parent_of(ctx: ServerRequestContext[Any, Any]) -> Any:
    """Return the context of the client's span; None if it names none."""
    meta: Mapping[str, Any] = {**(ctx.meta or {})}
    headers: Mapping[str, Any] = getattr(ctx.request, "headers", {})
    for carrier in (meta, headers):
        named = {name: carrier[name] for name in _PARENT.fields if name in carrier}
        with suppress(TypeError, ValueError, AttributeError):  # of a client that sends no text
            context = _PARENT.extract(named)
            if trace.get_current_span(context).get_span_context().is_valid:
                return context
    return None


class Metrics:
    """The figures as instruments of OpenTelemetry.

    Exports run in a thread of the SDK and take what the event loop has read last.
    """

    def __init__(self, measurements: Measurements) -> None:
        self._measurements = measurements
        self._taken: Mapping[Figure, Values] = {}
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        self.provider = MeterProvider([reader], resource=resource(), shutdown_on_exit=False)
        meter = self.provider.get_meter("pvemcp", __version__)
        self._histograms: dict[Figure, Histogram] = {
            figure: meter.create_histogram(
                figure.name,
                "s",
                figure.description,
                explicit_bucket_boundaries_advisory=figure.bounds,
            )
            for figure in FIGURES
            if figure.kind is Kind.HISTOGRAM
        }
        for figure in FIGURES:
            self._observe(meter, figure)

    def _observe(self, meter: Meter, figure: Figure) -> None:
        create = {
            Kind.COUNTER: meter.create_observable_counter,
            Kind.GAUGE: meter.create_observable_gauge,
        }
        if figure.kind in create:
            values = [partial(self._values, figure)]
            create[figure.kind](figure.name, values, description=figure.description)

    def _values(self, figure: Figure, _: CallbackOptions) -> Iterator[Observation]:
        for labels, value in self._taken.get(figure, {}).items():
            if isinstance(value, int | float):
                yield Observation(value, dict(zip(figure.labels, labels, strict=True)))

    def count_call(self, event: Event) -> None:
        """Record the duration of a call that has ended."""
        if event.duration_ms is not None:
            tool = self._measurements.tool_of(event)
            self._histograms[CALL_SECONDS].record(event.duration_ms / 1000, {"tool": tool})

    def count_request(self, cluster: str, exchange: Exchange) -> None:
        """Record the duration of a request to a cluster."""
        self._histograms[REQUEST_SECONDS].record(exchange.seconds, {"cluster": cluster})

    async def read(self) -> None:
        """Read the figures for the next export."""
        self._taken = await self._measurements.read()

    async def run(self, stop: anyio.Event) -> None:
        """Read the figures every READ_SECONDS until stopped."""
        await self.read()
        async for _ in ticks(stop, READ_SECONDS):
            await self.read()


async def shut_down(providers: Iterable[Callable[[], object]]) -> None:
    """Export what is left, for SHUTDOWN_SECONDS at most.

    It runs in threads that no end of the process waits for: a collector that hangs delays none.
    """
    threads = [threading.Thread(target=each, daemon=True) for each in providers]
    for thread in threads:
        thread.start()
    with anyio.move_on_after(SHUTDOWN_SECONDS):
        while any(thread.is_alive() for thread in threads):  # noqa: ASYNC110 - threads set no event
            await anyio.sleep(0.02)
