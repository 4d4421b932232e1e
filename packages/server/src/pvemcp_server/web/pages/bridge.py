"""Page Bridge: the binary for each platform, and the configuration that starts it."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from pvemcp_server.admin import bridge
from pvemcp_server.admin.client_setup import CLIENTS, Connection, endpoint_url
from pvemcp_server.web.session import Reading, SignedIn, may
from pvemcp_server.web.templates import Navigation, page

router = APIRouter(prefix="/bridge")
navigation = Navigation(
    "Bridge",
    "/admin/bridge",
    operation="bridge.list",
    icon="M3 8v12M21 8v12M3 16c0-7 18-7 18 0M9 11v6M15 11v6",
)
DESKTOP = CLIENTS["claude-desktop"]


@router.get("", dependencies=[may("bridge.list")])
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    return page(
        request,
        "bridge.html",
        session,
        here="bridge",
        binaries=await bridge.list_binaries(context),
        build=bridge.BUILD,
        client=DESKTOP,
        connection=Connection(endpoint_url(context.services.config)),
    )


@router.get("/claude_desktop_config.json", dependencies=[may("bridge.list")])
async def config(context: Reading) -> Response:
    """Return claude_desktop_config.json with a placeholder for the key."""
    text = DESKTOP.text(Connection(endpoint_url(context.services.config)))
    name = 'attachment; filename="claude_desktop_config.json"'
    headers = {"Content-Disposition": name}
    return Response(text + "\n", media_type="application/json", headers=headers)


@router.get("/download/{name}", dependencies=[may("bridge.list")])
async def download(context: Reading, name: str) -> Response:
    path = bridge.binary_path(context.services.config, name)
    return FileResponse(path, media_type="application/octet-stream", filename=name)
