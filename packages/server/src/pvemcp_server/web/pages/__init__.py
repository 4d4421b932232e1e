"""The admin pages, a module each."""

from fastapi import APIRouter

from pvemcp_server.web.pages import (
    administrators,
    audit,
    bridge,
    clusters,
    keys,
    overview,
    query,
    roles,
    settings,
    signing,
    tools,
)

_PAGES = (
    *(signing, overview, keys, bridge, roles, clusters),
    *(tools, query, audit, settings, administrators),
)


def routers() -> tuple[APIRouter, ...]:
    """The routers of all pages."""
    return tuple(one.router for one in _PAGES)
