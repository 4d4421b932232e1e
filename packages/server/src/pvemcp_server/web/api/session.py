"""Sign-in and sign-out over REST."""

from datetime import datetime

from fastapi import APIRouter, Request, Response, status
from pydantic import BaseModel, SecretStr

from pvemcp_server.access.fields import Fields
from pvemcp_server.access.second_factors import Code
from pvemcp_server.admin import authentication
from pvemcp_server.errors import (
    AccessDenied,
    BadArgument,
    LocalSignInOff,
    SecondFactorNeeded,
    TooManyFailures,
)
from pvemcp_server.store.records import AdminRole
from pvemcp_server.web.api.answers import Wrong
from pvemcp_server.web.api.json_body import JsonRoute
from pvemcp_server.web.session import (
    SignedIn,
    SignedOut,
    address_of,
    check_csrf,
    close_session,
    device_of,
    open_session,
    services_of,
    session_of,
)

router = APIRouter(tags=["Session"], prefix="/session", route_class=JsonRoute)


class Credentials(Fields):
    """Name and password of an administrator; `code` is of a second factor, or a recovery code."""

    name: str
    password: SecretStr
    code: SecretStr = SecretStr("")


class Proof(Fields):
    """The password of the signed-in administrator; `code` is of a second factor."""

    password: SecretStr
    code: SecretStr = SecretStr("")


class SessionFacts(BaseModel):
    """The session of the cookie; `csrf` is the token for X-CSRF-Token.

    `verified_at` is when the administrator last proved who they are.
    """

    name: str
    role: AdminRole
    csrf: str
    must_change: bool
    expires: datetime
    verified_at: datetime


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses={429: {"model": Wrong, "description": "Too many attempts; see Retry-After"}},
)
async def sign_in(request: Request, response: Response, credentials: Credentials) -> SessionFacts:
    """Sign in: set the session's cookie and return its token."""
    services = services_of(request)
    try:
        admin = await authentication.sign_in(
            services,
            credentials.name,
            credentials.password.get_secret_value(),
            address_of(request),
            device_of(request),
            credentials.code.get_secret_value(),
        )
    except (TooManyFailures, SecondFactorNeeded, LocalSignInOff):
        raise
    except AccessDenied:
        raise SignedOut from None
    return _facts(await open_session(request, admin, response))


@router.get("")
async def current(session: SignedIn) -> SessionFacts:
    """Return the signed-in administrator, with the session's token."""
    return _facts(session)


@router.post(
    "/confirm",
    responses={429: {"model": Wrong, "description": "Too many attempts; see Retry-After"}},
)
async def confirm(request: Request, session: SignedIn, proof: Proof) -> SessionFacts:
    """Confirm who you are, for the operations that answer `recent_sign_in_needed`."""
    await check_csrf(request, session)
    services = services_of(request)
    try:
        code = proof.code.get_secret_value()
        await authentication.confirm(
            services,
            session,
            proof.password.get_secret_value(),
            Code(code) if code else None,
            address_of(request),
            device_of(request),
        )
    except TooManyFailures:
        raise
    except SecondFactorNeeded:
        raise BadArgument("code", "is needed too, of your second factor.") from None
    except AccessDenied:
        raise BadArgument("password", "or the code is wrong.") from None
    return _facts(await session_of(request))


@router.delete("", status_code=status.HTTP_204_NO_CONTENT)
async def sign_out(request: Request, response: Response, session: SignedIn) -> None:
    """End the session."""
    await check_csrf(request, session)
    await close_session(request, session, response)


def _facts(session: SignedIn) -> SessionFacts:
    return SessionFacts(
        name=session.admin.name,
        role=session.admin.role,
        csrf=session.csrf,
        must_change=session.admin.must_change,
        expires=session.expires,
        verified_at=session.verified_at,
    )
