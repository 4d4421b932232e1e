"""CORS: lets web pages of the configured origins use the endpoint."""

from collections.abc import Collection
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS: Final = ("GET", "POST", "DELETE")
EXPOSED_HEADERS: Final = ("Mcp-Session-Id", "Retry-After", "WWW-Authenticate")
MAX_AGE_SECONDS: Final = 600


def with_cors(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Wrap the application; preflight requests carry no key and are answered here."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=sorted(origins),
        allow_methods=METHODS,
        allow_headers=("*",),
        expose_headers=EXPOSED_HEADERS,
        max_age=MAX_AGE_SECONDS,
    )
