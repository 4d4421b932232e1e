"""The application put together, and served."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse

from pvemcp_server import __version__
from pvemcp_server.audit import AuditGuard, Forwarder
from pvemcp_server.http.file_watch import FileWatch
from pvemcp_server.http.gate import KeyGate
from pvemcp_server.http.health import health_routes
from pvemcp_server.http.server import Announce, http_server
from pvemcp_server.mcp.endpoint import Endpoint
from pvemcp_server.services import Services, State, open_services
from pvemcp_server.store.background import housekeeping
from pvemcp_server.tables.history import HistoryRecorder
from pvemcp_server.telemetry.exporters import monitored
from pvemcp_server.toolkit.registry import Tool, tools
from pvemcp_server.tools import all as _declared  # noqa: F401 - importing it declares every tool
from pvemcp_server.web.oauth.endpoints import OAuthEndpoints
from pvemcp_server.web.oauth.site import PeopleSite
from pvemcp_server.web.site import AdminSite


@dataclass(frozen=True)
class App:
    """The whole application; `asgi` is its gate, the only way in."""

    asgi: KeyGate
    fastapi: FastAPI
    endpoint: Endpoint
    site: AdminSite

    def leave(self) -> float:
        """Let `/readyz` fail; return the seconds in which calls are still served as before."""
        return self.endpoint.active_requests.leave()

    async def drain(self) -> bool:
        """End the streams of pages, then let running calls finish; return whether all ended."""
        self.site.closing.set()
        return await self.endpoint.drain()


def create_app(services: Services, known: Mapping[str, Tool] | None = None) -> App:
    """Return the application; `known` are the tools to offer, all declared ones when None."""
    endpoint = Endpoint(services, tools() if known is None else known)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with endpoint.running():
            yield

    fastapi = FastAPI(
        title="pvemcp",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # no content of calls leaves the process, whatever the environment configures
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    fastapi.include_router(health_routes(services.store, services.audit, endpoint.active_requests))
    site = AdminSite(services, endpoint.pipeline)
    fastapi.mount("/admin", site)
    fastapi.router.routes.extend(OAuthEndpoints(services).routes())
    fastapi.router.routes.extend(PeopleSite(services).routes())
    for path in ("/", "/admin"):  # the framework's own redirect would name http behind a TLS proxy
        fastapi.add_route(path, _redirect_to_admin)
    return App(endpoint.gate(fastapi), fastapi, endpoint, site)


def _history(services: Services) -> HistoryRecorder:
    return HistoryRecorder(services.store, services.clusters, lambda: services.settings.values)


async def _redirect_to_admin(_request: Request) -> RedirectResponse:
    """Redirect browsers to the admin pages: clients show the server's URL as its website."""
    return RedirectResponse("/admin/", 307)


async def serve_until_stopped(
    state: State,
    sockets: list[socket.socket],
    announce: Announce,
    metrics_sockets: Sequence[socket.socket] = (),
) -> None:
    """Serve on these sockets until SIGINT or SIGTERM; running calls are finished first.

    `announce` is awaited once requests are answered. On `metrics_sockets`, which share a port,
    nothing but the figures of the server is served.
    """
    guard = AuditGuard(state.store)
    async with (
        open_services(state) as services,
        housekeeping(guard.run),
        housekeeping(Forwarder(state.store, services.audit_receivers).run),
        housekeeping(_history(services).run),
        housekeeping(FileWatch(state.store).run),
        housekeeping(services.connections.run_housekeeping),
    ):
        app = create_app(services)
        # loaded objects stay: later full collections need not walk them, which would delay calls.
        # Imports leave next to no garbage, so that to collect it first would only take time
        gc.freeze()
        # Ctrl-C while modules were imported cancels here, not in the middle of uvicorn's startup
        await asyncio.sleep(0)
        metrics_port = metrics_sockets[0].getsockname()[1] if metrics_sockets else None
        async with monitored(app.asgi, app.endpoint, metrics_port) as asgi:
            server = http_server(
                asgi,
                services.config,
                app.drain,
                announce,
                leave=app.leave,
                knows_key=services.access.authenticator.knows,
            )
            await server.serve([*sockets, *metrics_sockets])
