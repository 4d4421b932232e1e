"""Signing in with the OpenID Connect issuer that is configured."""

import logging
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.admin.authentication import sign_in_external
from pvemcp_server.errors import AccessDenied, CallError, ConfigError
from pvemcp_server.web.oidc import JOURNEY_SECONDS, Journey, open_issuer
from pvemcp_server.web.session import address_of, open_session, services_of
from pvemcp_server.web.templates import page, wrong_page

router = APIRouter(prefix="/oidc")
COOKIE: Final = "pvemcp_oidc"
log = logging.getLogger(__name__)


@router.get("")
async def begin(request: Request) -> Response:
    """Sends the browser to the issuer; what we have to remember goes along in a cookie."""
    config = services_of(request).config
    journey = Journey.begin()
    try:
        async with open_issuer(config) as issuer:
            answer = RedirectResponse(issuer.authorization_url(journey), 303)
    except ConfigError as error:
        log.warning("OpenID Connect is not usable: %s", error)
        return wrong_page(request, str(error), 502)
    answer.set_cookie(
        COOKIE,
        journey.sealed(_key(request)),
        max_age=JOURNEY_SECONDS,
        path="/admin/oidc",
        httponly=True,
        samesite="lax",  # it has to come along when the issuer sends the browser back
        secure=config.base_url.startswith("https:"),
    )
    return answer


@router.get("/callback")
async def come_back(
    request: Request,
    state: Annotated[str, Query()] = "",
    code: Annotated[str, Query()] = "",
) -> Response:
    """Lets in whom the issuer vouches for, if they are among the configured administrators."""
    services = services_of(request)
    try:
        email, subject = await _vouched(request, state, code)
        admin = await sign_in_external(services, email, subject, address_of(request))
    except (AccessDenied, ConfigError, CallError) as refused:
        log.warning("Sign-in over OpenID Connect was refused: %s", refused)
        return wrong_page(request, "The issuer's word was not enough to let you in.", 403)
    # The session's cookie is strict, so a redirect that began at the issuer would not carry it:
    # a page of our own leads on
    answer = page(request, "signed_in.html")
    await open_session(request, admin, answer)
    answer.delete_cookie(COOKIE, path="/admin/oidc")
    return answer


async def _vouched(request: Request, state: str, code: str) -> tuple[str, str]:
    config = services_of(request).config
    journey = Journey.opened(request.cookies.get(COOKIE, ""), _key(request))
    if not code or journey.state != state:
        raise AccessDenied("the answer is not to this browser's sign-in")
    async with open_issuer(config) as issuer:
        person = await issuer.person(code, journey)
    return person.email, person.subject


def _key(request: Request) -> bytes:
    return services_of(request).store.vault.derive("oidc")
