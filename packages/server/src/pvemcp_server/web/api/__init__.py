"""The admin REST API: what the pages can, for programs."""

from typing import Final

from fastapi import FastAPI

from pvemcp_server import __version__
from pvemcp_server.web.api import (
    admins,
    audit,
    bridge,
    clusters,
    keys,
    overview,
    queries,
    roles,
    session,
    settings,
    tools,
)
from pvemcp_server.web.api.answers import REFUSALS

DESCRIPTION: Final = """\
Everything that the admin pages can. `POST /session` signs in and answers with the session's token;
requests that change something carry it as `X-CSRF-Token`, beside the cookie.
"""


def create_api() -> FastAPI:
    """The application; the site mounts it and tells it its services."""
    api = FastAPI(
        title="pvemcp administration",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for module in (
        *(session, overview, keys, bridge, roles),
        *(clusters, tools, queries, audit, settings, admins),
    ):
        api.include_router(module.router, responses=REFUSALS)
    return api
