"""The download of the bridge over REST."""

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from pvemcp_server.admin import bridge
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import operations
from pvemcp_server.web.api.answers import requirements
from pvemcp_server.web.session import permitted

router = APIRouter()
LIST = operations()["bridge.list"]


@router.get(
    "/bridge/{name}",
    response_class=Response,
    openapi_extra=requirements(LIST),
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def download(context: Annotated[AdminContext, permitted(LIST)], name: str) -> Response:
    """Download the binary for a platform."""
    path = bridge.binary_path(context.services.config, name)
    return FileResponse(path, media_type="application/octet-stream", filename=name)
