"""Signing in and out over REST."""

from datetime import datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, SecretStr

from pvemcp_server.admin import authentication
from pvemcp_server.errors import AccessDenied
from pvemcp_server.web.api.answers import CREATED, GONE
from pvemcp_server.web.session import (
    SignedIn,
    SignedOut,
    address_of,
    check_csrf,
    close_session,
    open_session,
    services_of,
)

router = APIRouter(tags=["Session"], prefix="/session")


class Credentials(BaseModel):
    """Who signs in."""

    model_config = ConfigDict(extra="forbid")

    name: str
    password: SecretStr


class SessionFacts(BaseModel):
    """The session that the cookie names; `csrf` is the token for X-CSRF-Token."""

    name: str
    csrf: str
    must_change: bool
    expires: datetime


@router.post("", status_code=CREATED)
async def sign_in(request: Request, response: Response, who: Credentials) -> SessionFacts:
    """Sign in: sets the session's cookie and answers with its token."""
    services = services_of(request)
    try:
        admin = await authentication.sign_in(
            services, who.name, who.password.get_secret_value(), address_of(request)
        )
    except AccessDenied:
        raise SignedOut from None
    return _facts(await open_session(request, admin, response))


@router.get("")
async def current(session: SignedIn) -> SessionFacts:
    """Who is signed in, with the session's token."""
    return _facts(session)


@router.delete("", status_code=GONE)
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
