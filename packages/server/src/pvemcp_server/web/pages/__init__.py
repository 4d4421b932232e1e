"""The admin pages, a module each."""

from fastapi import APIRouter

from pvemcp_server.web.pages import keys, overview, signing


def routers() -> tuple[APIRouter, ...]:
    """The routers of all pages."""
    return (signing.router, overview.router, keys.router)
