"""The exporters of figures and traces, as far as they are configured."""

import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp

from proxmox_client import Exchange
from pvemcp_server.errors import ConfigError
from pvemcp_server.http.hosts import Hosts
from pvemcp_server.mcp.endpoint import Endpoint
from pvemcp_server.store.background import housekeeping

if TYPE_CHECKING:
    from pvemcp_server.telemetry.figures import Measurements

Count = Callable[[str, Exchange], None]
OTEL: Final = ("TRACES", "METRICS")
OF_SDK: Final = (  # methods that the SDK serves without a handler
    "initialize",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
)
HEADERS: Final = (
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
)
# what the SDK accepts: a token, and printable ASCII without quotes, semicolons and backslashes
_PAIR: Final = re.compile(r"[!#-'*+.0-9A-Z^-z|~-]+[ \t]*=[ \t]*+[ !#-+\--:<-\[\]-~]*")
log = logging.getLogger(__name__)


@asynccontextmanager
async def monitored(
    gate: ASGIApp,
    endpoint: Endpoint,
    metrics_port: int | None,
    environment: Mapping[str, str] = os.environ,
) -> AsyncIterator[ASGIApp]:
    """Measure the endpoint while inside; yield the gate, behind a port of metrics if there is one.

    Without a configured exporter nothing is imported, and calls run through nothing more. It has to
    begin before the first cluster is asked.
    """
    signals = _signals(environment)
    if metrics_port is None and not signals:
        yield gate
        return
    # imported here: most servers are started without
    from pvemcp_server.telemetry.figures import Measurements

    measurements, services = Measurements(endpoint), endpoint.services
    services.audit.observers.append(measurements.count_call)
    requests: list[Count] = [measurements.count_request]

    def observe(cluster: str, exchange: Exchange) -> None:
        for count in requests:
            try:
                count(cluster, exchange)
            except Exception:
                log.exception("A request to Proxmox was not counted")  # and goes on

    services.clusters.observe = observe
    async with AsyncExitStack() as stack:
        if signals:
            _check_headers(environment)
            requests += await stack.enter_async_context(_exported(endpoint, measurements, signals))
        if metrics_port is not None:
            from pvemcp_server.telemetry.prometheus import MetricsPort

            gate = MetricsPort(gate, metrics_port, Hosts.of(services.config), measurements.read)
        yield gate


def _signals(environment: Mapping[str, str]) -> set[str]:
    """Return which of TRACES and METRICS the standard variables send to a collector.

    Without an endpoint nothing is sent, although the specification has a default: who has not asked
    for it has no collector. An empty variable counts as absent, as the specification says.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return set()
    general = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return {
        signal
        for signal in OTEL
        if (environment.get(f"OTEL_{signal}_EXPORTER") or "otlp") == "otlp"
        and (general or environment.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))
    }


def _check_headers(environment: Mapping[str, str]) -> None:
    """Raise ConfigError for headers that the SDK cannot read: it would log them with their key."""
    for name in HEADERS:
        for pair in environment.get(name, "").split(","):
            if pair.strip() and not _PAIR.fullmatch(pair.strip()):
                raise ConfigError(
                    f"{name} has to be name=value, several separated by commas, and what is "
                    "special in a value encoded as in a URL: Authorization=Bearer%20… for example."
                )


@contextmanager
def _config_errors() -> Iterator[None]:
    """Raise ConfigError for a variable whose value the SDK refuses."""
    try:
        yield
    except ValueError as refused:
        raise ConfigError(f"A variable OTEL_… has a wrong value: {refused}") from refused


def _is_served(endpoint: Endpoint, method: str) -> bool:
    """Return whether the protocol or this server knows a method: clients can send any text."""
    handlers = endpoint.server.get_request_handler, endpoint.server.get_notification_handler
    return method in OF_SDK or any(handler(method) for handler in handlers)


@asynccontextmanager
async def _exported(
    endpoint: Endpoint, measurements: "Measurements", signals: set[str]
) -> AsyncIterator[list[Count]]:
    """Export traces and metrics while inside; yield what counts requests to Proxmox."""
    try:
        with _config_errors():  # the SDK reads some variables when it is imported
            from pvemcp_server.telemetry import otlp
    except ImportError as missing:
        log.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but %s is missing, so nothing is exported: "
            "pip install 'pvemcp-server[otel]'",
            missing.name,
        )
        yield []
        return
    services = endpoint.services
    counts: list[Count] = []
    ends: list[Callable[[], object]] = []
    async with AsyncExitStack() as stack:
        if "TRACES" in signals:
            with _config_errors():
                tracing = otlp.Tracing(endpoint.tools, partial(_is_served, endpoint))
            endpoint.server.middleware.insert(0, tracing)
            services.audit.observers.append(tracing.note_call)
            services.clusters.new_context = tracing.new_context
            counts.append(tracing.note_request)
            ends.append(tracing.provider.shutdown)
        if "METRICS" in signals:
            with _config_errors():
                metrics = otlp.Metrics(measurements)
            services.audit.observers.append(metrics.count_call)
            counts.append(metrics.count_request)
            ends.append(metrics.provider.shutdown)
            await stack.enter_async_context(housekeeping(metrics.run))
        stack.push_async_callback(otlp.shut_down, ends)
        yield counts
