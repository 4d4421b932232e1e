"""The admin pages, one module each."""

from collections.abc import Iterator

from fastapi import APIRouter

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
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
    sign_in,
    tools,
)

_PAGES = (
    *(sign_in, overview, keys, bridge, roles, clusters),
    *(tools, query, audit, settings, administrators),
)


def routers(config: Config) -> Iterator[APIRouter]:
    """Yield the routers of all pages; the external sign-in only when an issuer is configured."""
    yield from (module.router for module in _PAGES)
    if config.oidc_issuer:
        yield _external_sign_in()


def _external_sign_in() -> APIRouter:
    try:
        from pvemcp_server.web.pages import external_sign_in
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"PVEMCP_OIDC_ISSUER needs {missing.name}: pip install 'pvemcp-server[oidc]'."
        ) from missing
    return external_sign_in.router
