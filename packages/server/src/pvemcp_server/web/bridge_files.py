"""Files of the bridge for pages and the REST API: downloads, and the one for a visitor."""

from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import FileResponse

from pvemcp_server.admin import bridge
from pvemcp_server.config import Config


def file_and_command(request: Request, config: Config) -> tuple[str, tuple[str, ...]]:
    """Return the name of the file for the visitor's system, and the command that starts it."""
    system = bridge.systems_for(request.headers.get("user-agent", ""))[0]
    file = system.file(config)
    return file, system.command(file)


async def download(config: Config, name: str, url: str) -> Response:
    """Return the file as a download; the extension has this URL filled in."""
    content = await bridge.read_file(config, name, url)
    if isinstance(content, Path):
        return FileResponse(content, media_type="application/octet-stream", filename=name)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)
