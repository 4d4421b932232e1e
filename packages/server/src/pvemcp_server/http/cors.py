"""Lets web pages of the configured origins use the endpoint: their browsers want to be told so."""

from collections.abc import Collection
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS: Final = ("GET", "POST", "DELETE")
READABLE: Final = ("Mcp-Session-Id", "Retry-After", "WWW-Authenticate")
REMEMBERED_SECONDS: Final = 600


def with_cors(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """The same application; browsers ask it first, without a key, whether a page may call."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=sorted(origins),
        allow_methods=METHODS,
        allow_headers=("*",),
        expose_headers=READABLE,
        max_age=REMEMBERED_SECONDS,
    )
