"""The download of the bridge over REST."""

from typing import Annotated

from fastapi import APIRouter, Response

from pvemcp_server.admin.client_setup import endpoint_url
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import operations
from pvemcp_server.web import bridge_files
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
    """Download a file of the bridge, as the list names it."""
    config = context.services.config
    return await bridge_files.download(config, name, endpoint_url(config))
