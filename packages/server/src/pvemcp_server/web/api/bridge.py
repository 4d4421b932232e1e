"""The bridge's binaries over REST."""

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from pvemcp_server.admin import bridge
from pvemcp_server.web.session import Reading

router = APIRouter(tags=["Bridge"], prefix="/bridge")


@router.get("")
async def list_binaries(context: Reading) -> list[bridge.Binary]:
    """The bridge for every platform; with size and SHA-256 where it is here."""
    return await bridge.binaries(context)


@router.get(
    "/{name}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def download(context: Reading, name: str) -> Response:
    """The binary itself."""
    path = bridge.file_of(context.services.config, name)
    return FileResponse(path, media_type="application/octet-stream", filename=name)
