"""Page Connections: the clients that users have connected, and what ends them."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from pvemcp_server.access.sessions import Session
from pvemcp_server.admin import connections
from pvemcp_server.web.session import Reading, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, endpoint_of, page, reload

router = APIRouter(prefix="/connections")
navigation = Navigation(
    "Connections",
    "/admin/connections",
    operation="connections.list",
    icon="M9 12h6M10 8H7a4 4 0 0 0 0 8h3M14 8h3a4 4 0 0 1 0 8h-3",
)


@router.get("", dependencies=[may("connections.list")])
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    services = context.services
    settings = await services.settings.current()
    return page(
        request,
        "connections.html",
        session,
        here="connections",
        connections=await connections.list_connections(context),
        settings=settings,
        endpoint=endpoint_of(request),
        own=f"{request.state.base_url}/connections",
    )


@router.post("/end", dependencies=[may("connections.end_all")])
async def end_all(
    request: Request,
    session: SignedIn,
    context: Writing,
    user: Annotated[str, Form()] = "",
    client: Annotated[str, Form()] = "",
) -> Response:
    which = connections.Ended(user=user or None, client=client or None)
    return _ended(request, session, await connections.end_connections(context, which))


@router.post("/{connection}/end", dependencies=[may("connections.end")])
async def end(request: Request, session: SignedIn, context: Writing, connection: str) -> Response:
    return _ended(request, session, await connections.end_connection(context, connection))


@router.post("/{connection}/allow", dependencies=[may("connections.allow")])
async def allow(context: Writing, connection: str) -> Response:
    await connections.allow_connection(context, connection)
    return reload()


def _ended(request: Request, session: Session, ended: connections.EndedConnections) -> Response:
    """Show the Proxmox tokens that are left; without any, the list is enough."""
    if not ended.left:
        return reload()
    return page(request, "connection_ended.html", session, ended=ended)
