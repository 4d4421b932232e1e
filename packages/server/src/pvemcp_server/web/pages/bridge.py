"""Page Bridge: the right file for the visitor's system first, and how it starts."""

from fastapi import APIRouter, Request, Response

from pvemcp_bridge.bundle import EXTENSION, ZIPAPP
from pvemcp_bridge.target import target
from pvemcp_server.admin import bridge
from pvemcp_server.admin.client_setup import CLIENTS, KEY_PLACEHOLDER, Connection
from pvemcp_server.web import bridge_files
from pvemcp_server.web.session import Reading, SignedIn, may
from pvemcp_server.web.templates import Navigation, endpoint_of, page

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
    url, config = endpoint_of(request), context.services.config
    systems = bridge.systems_for(request.headers.get("user-agent", ""))
    settings = await context.services.settings.current()
    is_readable = target(url).is_readable_on_the_way
    return page(
        request,
        "bridge.html",
        session,
        here="bridge",
        files=await bridge.list_files(config, url),
        systems=[(system, system.file(config)) for system in systems],
        extension=EXTENSION,
        zipapp=ZIPAPP,
        build=bridge.BUILD,
        client=DESKTOP,
        clients=CLIENTS.values(),
        url=url,
        key=KEY_PLACEHOLDER,
        connect=Connection,
        is_readable=is_readable,
        signs_in=settings.connections_enabled and not is_readable,  # the bridge refuses it there
    )


@router.get("/claude_desktop_config.json", dependencies=[may("bridge.list")])
async def desktop_config(request: Request, context: Reading) -> Response:
    """Return claude_desktop_config.json for the visitor's system, with placeholders."""
    _, command = bridge_files.file_and_command(request, context.services.config)
    connection = Connection(endpoint_of(request), KEY_PLACEHOLDER, command=command)
    name = 'attachment; filename="claude_desktop_config.json"'
    headers = {"Content-Disposition": name}
    return Response(DESKTOP.text(connection), media_type="application/json", headers=headers)


@router.get("/download/{name}", dependencies=[may("bridge.list")])
async def download(request: Request, context: Reading, name: str) -> Response:
    return await bridge_files.download(context.services.config, name, endpoint_of(request))
