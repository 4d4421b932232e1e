"""Whether the process lives, whether it can serve, and what it is."""

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Response
from mcp_types.version import SUPPORTED_PROTOCOL_VERSIONS

from pvemcp_server import __version__
from pvemcp_server.http.active_requests import ActiveRequests
from pvemcp_server.store import Store

PROBED: Final = ["GET", "HEAD"]  # many monitors ask for the head alone
ICON = (files(__package__) / "icon.svg").read_bytes()


def health_routes(store: Store, active_requests: ActiveRequests) -> APIRouter:
    """Routes that need no key."""
    routes = APIRouter(tags=["health"])

    @routes.api_route("/healthz", methods=PROBED)
    async def alive() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @routes.api_route("/readyz", methods=PROBED)
    async def ready(response: Response) -> dict[str, str]:
        """Calls can be served: the state's database answers and no shutdown has begun."""
        reason = "shutting down" if active_requests.closing else await _trouble(store)
        response.status_code = 503 if reason else 200
        return {"status": reason or "ready"}

    @routes.get("/version")
    async def version() -> dict[str, object]:
        """Version of the server and of the protocols it speaks."""
        return {"version": __version__, "protocols": list(SUPPORTED_PROTOCOL_VERSIONS)}

    @routes.get("/icon.svg")
    async def icon() -> Response:
        return Response(
            ICON, media_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"}
        )

    return routes


async def _trouble(store: Store) -> str:
    try:
        await store.watch.poll()
    except Exception:  # noqa: BLE001 - whatever it is, calls cannot be let in without the database
        return "the state's database does not answer"
    return ""
