"""The download of the bridge over REST."""

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from pvemcp_server.admin import bridge
from pvemcp_server.web.session import Reading

router = APIRouter()


@router.get(
    "/bridge/{name}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def download(context: Reading, name: str) -> Response:
    """Download the binary for a platform."""
    path = bridge.binary_path(context.services.config, name)
    return FileResponse(path, media_type="application/octet-stream", filename=name)
