"""Sign-in and sign-out over REST."""

from datetime import datetime

from fastapi import APIRouter, Request, Response, status
from pydantic import BaseModel, SecretStr

from pvemcp_server.access.fields import Fields
from pvemcp_server.admin import authentication
from pvemcp_server.errors import (
    AccessDenied,
    LocalSignInOff,
    SecondFactorNeeded,
    TooManyFailures,
)
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
)

router = APIRouter(tags=["Session"], prefix="/session", route_class=JsonRoute)


class Credentials(Fields):
    """Name and password of an administrator; `code` is of a second factor, or a recovery code."""

    name: str
    password: SecretStr
    code: SecretStr = SecretStr("")


class SessionFacts(BaseModel):
    """The session of the cookie; `csrf` is the token for X-CSRF-Token."""

    name: str
    csrf: str
    must_change: bool
    expires: datetime


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


@router.delete("", status_code=status.HTTP_204_NO_CONTENT)
async def sign_out(request: Request, response: Response, session: SignedIn) -> None:
    """End the session."""
    await check_csrf(request, session)
    await close_session(request, session, response)


def _facts(session: SignedIn) -> SessionFacts:
    return SessionFacts(
        name=session.admin.name,
        csrf=session.csrf,
        must_change=session.admin.must_change,
        expires=session.expires,
    )
