"""Sign-in with the configured OpenID Connect issuer."""

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.admin.authentication import confirm_external, sign_in_external
from pvemcp_server.config import Config
from pvemcp_server.errors import AccessDenied, CallError, ConfigError, SecondFactorNeeded
from pvemcp_server.networks import network_of
from pvemcp_server.store.columns import utc_now
from pvemcp_server.web.oauth.request import connecting_client
from pvemcp_server.web.oidc import (
    SIGN_IN_SECONDS,
    ExternalUser,
    MetadataCache,
    PendingSignIn,
    open_issuer,
)
from pvemcp_server.web.pages import second_step
from pvemcp_server.web.pages.connect import confirmed_page, signed_in_page
from pvemcp_server.web.session import (
    Cookie,
    SignedIn,
    address_of,
    after_sign_in,
    cookie_of,
    open_session,
    services_of,
)
from pvemcp_server.web.templates import error_page, page

if TYPE_CHECKING:
    from pvemcp_server.web.site import AdminSite

router = APIRouter(prefix="/oidc")
COOKIE: Final = "pvemcp_oidc"
BEGUN_PER_MINUTE: Final = 30  # sign-ins of one address
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """What the sign-ins of one site share."""

    metadata: MetadataCache = field(default_factory=MetadataCache)


_states: WeakKeyDictionary["AdminSite", State] = WeakKeyDictionary()


@router.get("")
async def begin(request: Request) -> Response:
    """Redirect the browser to the issuer; a signed cookie keeps state, nonce and verifier."""
    return await _begin(request, PendingSignIn.begin())


@router.get("/confirm")
async def begin_confirmation(request: Request, session: SignedIn) -> Response:
    """Redirect the browser to the issuer, to sign in again and so verify this session.

    For a program that connects, a page names it first: no other one comes before the issuer's.
    """
    pending = PendingSignIn.begin(confirms=session.id)
    return await _begin(request, pending, await connecting_client(request))


async def _begin(request: Request, pending: PendingSignIn, client: str = "") -> Response:
    config, state = services_of(request).config, _state(request)
    limiter = services_of(request).access.begun_sign_ins
    if not await limiter.take(network_of(address_of(request)), BEGUN_PER_MINUTE):
        return error_page(request, "Too many sign-ins were begun; wait a minute.", 429)
    try:
        async with open_issuer(config, state.metadata) as issuer:
            url = issuer.authorization_url(pending)
    except ConfigError as error:
        log.warning("OpenID Connect is not usable: %s", error)
        return error_page(request, str(error), 502)
    response: Response = RedirectResponse(url, 303)
    if client:
        response = page(request, "issuer.html", client=client, issuer=config.oidc_issuer, then=url)
    _cookie(config).set(response, pending.sealed(_key(request)), max_age=SIGN_IN_SECONDS)
    return response


@router.get("/callback")
async def callback(
    request: Request,
    state: Annotated[str, Query()] = "",
    code: Annotated[str, Query()] = "",
) -> Response:
    """Sign in the user whom the issuer authenticated, when configured as an administrator.

    A sign-in that confirms a session verifies that one, and opens no other.
    """
    services, confirms = services_of(request), ""
    try:
        user, confirms = await _authenticated(request, state, code)
        if confirms:
            await confirm_external(
                services, confirms, user.email, user.subject, user.claims, address_of(request)
            )
            response = await confirmed_page(request)
            _cookie(services.config).delete(response)
            return response
        admin = await sign_in_external(
            services, user.email, user.subject, user.claims, address_of(request)
        )
    except SecondFactorNeeded as needed:
        response = await signed_in_page(request, second_step.PATH)
        await second_step.begin(request, needed, "oidc", response, confirms)
        _cookie(services.config).delete(response)
        return response
    except (AccessDenied, ConfigError, CallError) as refused:
        log.warning("Sign-in over OpenID Connect was refused: %s", refused)
        return error_page(
            request,
            "The issuer's answer does not allow you to sign in. The server's log says why.",
            403,
        )
    # The session cookie is SameSite=Strict, so a redirect chain that began at the issuer would
    # not send it: a page of ours continues instead
    response = await signed_in_page(request, after_sign_in(request))
    await open_session(request, admin, response, user.verified_at)
    _cookie(services.config).delete(response)
    return response


async def _authenticated(request: Request, state: str, code: str) -> tuple[ExternalUser, str]:
    """Return the user, and the id of the session that the sign-in confirms."""
    config = services_of(request).config
    pending = PendingSignIn.opened(request.cookies.get(_cookie(config).name, ""), _key(request))
    if not code or pending.state != state:
        raise AccessDenied("the answer does not belong to this browser's sign-in")
    now = utc_now()
    expires = now + timedelta(seconds=SIGN_IN_SECONDS)
    if not await services_of(request).store.spent_tokens.spend(pending.state, now, expires):
        raise AccessDenied("this sign-in was used before")
    async with open_issuer(config, _state(request).metadata) as issuer:
        return await issuer.exchange(code, pending), pending.confirms


def _state(request: Request) -> State:
    return _states.setdefault(request.state.site, State())


def _cookie(config: Config) -> Cookie:
    # lax: it must be sent when the issuer redirects the browser back
    return cookie_of(config, COOKIE, "/admin/oidc", "lax")


def _key(request: Request) -> bytes:
    return services_of(request).store.vault.derive("oidc")
