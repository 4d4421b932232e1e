"""Pages for the second step of a sign-in, and for the sign-in with a passkey alone."""

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.access import passkeys
from pvemcp_server.access.passkeys import Assertion
from pvemcp_server.access.second_factors import Code, Proof
from pvemcp_server.admin import authentication
from pvemcp_server.admin.authentication import PendingSignIn
from pvemcp_server.errors import AccessDenied, LocalSignInOff, SecondFactorNeeded, TooManyFailures
from pvemcp_server.store.records import AdminRecord
from pvemcp_server.web.oauth.request import connecting_client
from pvemcp_server.web.pages.connect import confirmed_page
from pvemcp_server.web.passkeys import passkey_site_of
from pvemcp_server.web.session import (
    Cookie,
    address_of,
    after_sign_in,
    cookie_of,
    device_of,
    open_session,
    retry_after,
    services_of,
    too_many_attempts,
)
from pvemcp_server.web.templates import page

router = APIRouter(prefix="/sign-in")
COOKIE: Final = "pvemcp_sign_in"
PATH: Final = "/admin/sign-in/second-factor"
PASSKEY: Final = "sign-in with a passkey"
PASSKEY_LIFE: Final = timedelta(minutes=5)
Text = Annotated[str, Form()]


async def begin(
    request: Request, needed: SecondFactorNeeded, by: str, response: Response, confirms: str = ""
) -> Response:
    """Keep the state of the first step in this browser; the response leads to the second one."""
    sealed = authentication.begin_second_step(services_of(request), needed, by, confirms)
    lifetime = int(authentication.SECOND_STEP_LIFE.total_seconds())
    _cookie(request).set(response, sealed, max_age=lifetime)
    return response


@router.get("/second-factor")
async def show(request: Request) -> Response:
    """Ask for the second factor; without a first step, lead to the sign-in."""
    try:
        pending = await _pending(request)
    except AccessDenied:
        return _begin_again()
    return await _second_page(request, pending)


@router.post("/second-factor")
async def finish(request: Request, code: Text = "", credential: Text = "") -> Response:
    """Sign in with a code or a passkey, or confirm the session that the first step was for."""
    services = services_of(request)
    try:
        pending = await _pending(request)
    except AccessDenied:
        return _begin_again()
    try:
        admin = await authentication.finish_second_step(
            services,
            pending,
            _proof(request, pending, code, credential),
            address_of(request),
            device_of(request),
        )
    except TooManyFailures as refused:
        response = await _second_page(request, pending, too_many_attempts(refused), 429)
        response.headers.update(retry_after(refused))
        return response
    except AccessDenied:
        return await _second_page(request, pending, "The code or the passkey is wrong.", 403)
    if admin is None:
        response = await confirmed_page(request)
        _cookie(request).delete(response)
        return response
    return await _signed_in(request, admin)


@router.get("/passkey")
async def show_passkey(request: Request) -> Response:
    """Ask for a passkey that has verified its user; the challenge stays in this browser."""
    party = passkey_site_of(request).party
    services = services_of(request)
    if party is None or not services.access.external.admits_local:
        return _begin_again()
    states = services.access.sealed_states
    sealed = states.seal(PASSKEY, PASSKEY_LIFE)
    state = await states.open(PASSKEY, sealed)
    options = passkeys.request_options(party, state.nonce, alone=True)
    client = await connecting_client(request)
    response = page(request, "passkey_sign_in.html", client=client, options=options, wrong="")
    _cookie(request).set(response, sealed, max_age=int(PASSKEY_LIFE.total_seconds()))
    return response


@router.post("/passkey")
async def sign_in_with_passkey(request: Request, credential: Text) -> Response:
    """Sign in with a passkey alone."""
    services, party = services_of(request), passkey_site_of(request).party
    if party is None:
        return _begin_again()
    try:
        sealed = request.cookies.get(_cookie(request).name, "")
        state = await services.access.sealed_states.open(PASSKEY, sealed)
        assertion = Assertion(party, state.nonce, credential)
        admin = await authentication.sign_in_passkey(
            services, state, assertion, address_of(request), device_of(request)
        )
    except LocalSignInOff:
        return _begin_again()
    except AccessDenied as denied:
        wrong, status, headers = "The passkey does not sign in here.", 403, {}
        if isinstance(denied, TooManyFailures):
            wrong, status, headers = too_many_attempts(denied), 429, retry_after(denied)
        values = {"client": await connecting_client(request), "options": "", "wrong": wrong}
        response = page(request, "passkey_sign_in.html", status=status, **values)
        response.headers.update(headers)
        return response
    return await _signed_in(request, admin)


def _proof(request: Request, pending: PendingSignIn, code: str, credential: str) -> Proof:
    party = passkey_site_of(request).party
    if credential and party:
        return Assertion(party, pending.state.nonce, credential)
    return Code(code)


async def _pending(request: Request) -> PendingSignIn:
    sealed = request.cookies.get(_cookie(request).name, "")
    return await authentication.pending_sign_in(services_of(request), sealed)


async def _second_page(
    request: Request, pending: PendingSignIn, wrong: str = "", status: int = 200
) -> Response:
    site, admin = passkey_site_of(request), pending.admin
    second_factors, options = services_of(request).access.second_factors, ""
    if site.party and (usable := await second_factors.passkeys_of(admin, site.party)):
        options = passkeys.request_options(site.party, pending.state.nonce, usable)
    factors = await second_factors.of(admin)
    return page(
        request,
        "second_step.html",
        status=status,
        client=await connecting_client(request),
        wrong=wrong,
        options=options,
        has_app=any(factor.credential is None for factor in factors),
        elsewhere=sorted({factor.site for factor in factors if factor.site}),
        reason=site.reason,
    )


async def _signed_in(request: Request, admin: AdminRecord) -> Response:
    response = RedirectResponse(after_sign_in(request), 303)
    await open_session(request, admin, response)
    _cookie(request).delete(response)
    return response


def _begin_again() -> Response:
    return RedirectResponse("/admin/sign-in", 303)


def _cookie(request: Request) -> Cookie:
    return cookie_of(services_of(request).config, COOKIE, "/admin/sign-in")
