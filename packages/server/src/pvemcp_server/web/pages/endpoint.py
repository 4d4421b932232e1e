"""The page that a browser gets at the endpoint: what the address is for. It needs no sign-in."""

from fastapi import APIRouter, Request, Response

from pvemcp_server.web.session import services_of
from pvemcp_server.web.templates import page

router = APIRouter()


@router.get("/endpoint")
async def show(request: Request) -> Response:
    """Describe the endpoint; nothing here depends on a key, or on who asks."""
    settings = await services_of(request).settings.current()
    return page(
        request,
        "endpoint.html",
        url=f"{request.state.base_url}/mcp",
        enabled=settings.enabled,
        signs_in=settings.signs_in,
    )
