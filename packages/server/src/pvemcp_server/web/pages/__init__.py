"""The admin pages: a module for each subject of the administration, beside the sign-in."""

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

from fastapi import APIRouter

from pvemcp_server.admin import SUBJECTS
from pvemcp_server.errors import ConfigError
from pvemcp_server.web.pages import (
    account,
    confirmation,
    connect,
    endpoint,
    second_step,
    sign_in,
)
from pvemcp_server.web.templates import NAVIGATION


def routers(*, has_issuer: bool) -> Iterator[APIRouter]:
    """Yield the routers of all pages, and put those of the subjects into the navigation.

    The sign-in with OpenID Connect is there when an issuer is configured.
    """
    for module in (sign_in, second_step, confirmation, account, connect, endpoint):
        yield module.router
    for subject in SUBJECTS:
        if find_spec(f"{__name__}.{subject}"):
            page = import_module(f"{__name__}.{subject}")
            NAVIGATION[subject] = page.navigation
            yield page.router
    if has_issuer:
        yield _external_sign_in()


def _external_sign_in() -> APIRouter:
    try:
        from pvemcp_server.web.pages import external_sign_in
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"PVEMCP_OIDC_ISSUER needs {missing.name}: pip install 'pvemcp-server[oidc]'."
        ) from missing
    return external_sign_in.router
