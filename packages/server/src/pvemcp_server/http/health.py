"""Health probes, version and icon: routes that need no key."""

from importlib.resources import files
from time import monotonic
from typing import Final

from fastapi import APIRouter, Request, Response
from mcp_types.version import SUPPORTED_PROTOCOL_VERSIONS

from pvemcp_server import __version__
from pvemcp_server.audit import Audit
from pvemcp_server.http.exchange import ActiveRequests
from pvemcp_server.open_files import shortage
from pvemcp_server.store import Store

PROBED: Final = ["GET", "HEAD"]  # many monitors send HEAD
ICON = (files(__package__) / "icon.svg").read_bytes()


def health_routes(store: Store, audit: Audit, active_requests: ActiveRequests) -> APIRouter:
    """Return the routes of health probes, version and icon."""
    # plain dictionaries, without models that would be built at each start
    routes = APIRouter(tags=["health"])

    @routes.api_route("/healthz", methods=PROBED, response_model=None)
    async def alive() -> dict[str, str]:
        """Report that the process answers."""
        return {"status": "ok"}

    @routes.api_route("/readyz", methods=PROBED, response_model=None)
    async def ready(request: Request, response: Response) -> dict[str, str]:
        """Report whether calls can be served.

        The database answers, the audit can be written, files are left to open, and no shutdown has
        begun. A probe with `balancer=no` sends no clients, so that a stop does not wait for it.
        """
        if request.query_params.get("balancer") != "no":
            active_requests.probed = monotonic()
        reason = "shutting down" if active_requests.leaving else await _failure(store, audit)
        response.status_code = 503 if reason else 200
        return {"status": reason or "ready"}

    @routes.get("/version", response_model=None)
    async def version() -> dict[str, object]:
        """Return the versions of the server and of the protocols it speaks."""
        return {"version": __version__, "protocols": list(SUPPORTED_PROTOCOL_VERSIONS)}

    @routes.get("/icon.svg", response_model=None)
    async def icon() -> Response:
        return Response(
            ICON, media_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"}
        )

    return routes


async def _failure(store: Store, audit: Audit) -> str:
    """Return why calls cannot be served; of the database at most half a second old.

    While calls wait for PostgreSQL that is away for seconds, they are served, only later.
    """
    try:
        await store.watch.poll_if_due()
    except Exception:  # noqa: BLE001 - any failure: no key can be checked without the database
        # with it all servers would be taken out, though each serves its calls when it is back
        return "" if store.watch.is_waited_for else "the state's database does not answer"
    if audit.is_failing:  # writes are refused, and reads too once its buffer is full
        return "the audit cannot be written"
    return "nearly all open files are in use" if shortage() else ""
