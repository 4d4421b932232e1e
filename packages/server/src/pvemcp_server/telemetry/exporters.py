"""What is measured while the server runs, as far as it is configured."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from pvemcp_server.http.hosts import Hosts
from pvemcp_server.mcp.endpoint import Endpoint


@asynccontextmanager
async def monitored(
    gate: ASGIApp, endpoint: Endpoint, metrics_port: int | None
) -> AsyncIterator[ASGIApp]:
    """Measure the endpoint while inside; yield the gate, behind a port of metrics if there is one.

    Without a configured exporter nothing is imported, and calls run through nothing more. It has to
    begin before the first cluster is asked.
    """
    if metrics_port is None:
        yield gate
        return
    # imported here: most servers are started without
    from pvemcp_server.telemetry.figures import Measurements
    from pvemcp_server.telemetry.prometheus import MetricsPort

    measurements, services = Measurements(endpoint), endpoint.services
    services.audit.observers.append(measurements.count_call)
    services.clusters.observe = measurements.count_request
    yield MetricsPort(gate, metrics_port, Hosts.of(services.config), measurements.read)
