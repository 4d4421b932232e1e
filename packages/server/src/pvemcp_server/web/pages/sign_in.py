"""Pages for sign-in, sign-out and changing the own password."""

from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.access.sessions import Session
from pvemcp_server.admin import authentication
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.errors import (
    AccessDenied,
    AccountChanged,
    BadArgument,
    LocalSignInOff,
    SecondFactorNeeded,
    TooManyFailures,
)
from pvemcp_server.store.records import FactorKind
from pvemcp_server.web.oauth.request import connecting_client
from pvemcp_server.web.pages import second_step
from pvemcp_server.web.passkeys import passkey_site_of
from pvemcp_server.web.session import (
    SignedIn,
    SignedOut,
    address_of,
    after_sign_in,
    check_csrf,
    close_session,
    device_of,
    open_session,
    retry_after,
    services_of,
    too_many_attempts,
)
from pvemcp_server.web.templates import page

router = APIRouter()
CHANGE: Final = "admins.change_password"
Text = Annotated[str, Form()]


@router.get("/sign-in")
async def show(request: Request) -> Response:
    return await _sign_in_page(request)


@router.post("/sign-in")
async def sign_in(request: Request, name: Text, password: Text) -> Response:
    """Sign in; the answer to a failure never reveals whether the name exists."""
    services = services_of(request)
    try:
        admin = await authentication.sign_in(
            services, name, password, address_of(request), device_of(request)
        )
    except SecondFactorNeeded as needed:
        response = RedirectResponse(second_step.PATH, 303)
        return await second_step.begin(request, needed, "password", response)
    except AccessDenied as denied:
        wrong, status, headers = "The name or the password is wrong.", 403, {}
        if isinstance(denied, LocalSignInOff):
            wrong = "Passwords are switched off here."
        if isinstance(denied, TooManyFailures):
            wrong, status, headers = too_many_attempts(denied), 429, retry_after(denied)
        refused = await _sign_in_page(request, wrong, name, status)
        refused.headers.update(headers)
        return refused
    response = RedirectResponse(after_sign_in(request), 303)
    await open_session(request, admin, response)
    return response


async def _sign_in_page(
    request: Request, wrong: str = "", name: str = "", status: int = 200
) -> Response:
    services, party = services_of(request), passkey_site_of(request).party
    kind = FactorKind.PASSKEY
    return page(
        request,
        "sign_in.html",
        status=status,
        client=await connecting_client(request),
        wrong=wrong,
        ended="ended" in request.query_params,
        name=name,
        external=services.config.oidc_issuer,
        local=services.access.external.admits_local,
        has_passkeys=party
        and await services.store.second_factors.find(kind=kind, site=party.id) is not None,
    )


@router.post("/sign-out")
async def sign_out(request: Request, session: SignedIn) -> Response:
    await check_csrf(request, session)
    response = RedirectResponse("/admin/sign-in", 303)
    await close_session(request, session, response)
    return response


@router.get("/password")
async def show_password(request: Request, session: SignedIn) -> Response:
    return await _password_page(request, session)


@router.post("/password")
async def change_password(
    request: Request,
    session: SignedIn,
    current: Text,
    new: Text,
    again: Text,
) -> Response:
    """Change the password, end all sessions of the account and open a new one."""
    await check_csrf(request, session)
    services, name = services_of(request), session.admin.name
    wrong, admin = "", session.admin
    try:
        await authentication.check_password(
            services, admin, current, address_of(request), device_of(request), action=CHANGE
        )
        admin = await services.access.admins.set_password(admin, _checked(current, new, again))
    except AccountChanged:
        raise SignedOut from None
    except TooManyFailures as denied:
        wrong = too_many_attempts(denied)
    except AccessDenied:
        wrong = "The current password is wrong."
    except BadArgument as error:
        wrong = str(error)
    if wrong:
        return await _password_page(request, session, wrong, 422)
    await AdminContext(services, name, address_of(request)).changed(CHANGE, name=name)
    response = RedirectResponse(after_sign_in(request), 303)
    await open_session(request, admin, response, verified_at=session.verified_at)
    return response


async def _password_page(
    request: Request, session: Session, wrong: str = "", status: int = 200
) -> Response:
    client = await connecting_client(request)
    return page(request, "password.html", session, client=client, wrong=wrong, status=status)


def _checked(current: str, new: str, again: str) -> str:
    """Check a new password; a one-time password must not stay in use."""
    if new != again:
        raise BadArgument("new", "the two new passwords differ.")
    if new == current:
        raise BadArgument("new", "the new password equals the current one; choose another.")
    return new
