"""The way from an administrator's account to the consent for a program that connects.

The sign-in of administrators, with its second factors, passkeys and OpenID Connect, is the usual
one: a cookie leads back here after it.
"""

from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.oauth.people import administrator
from pvemcp_server.oauth.person import SignIn
from pvemcp_server.store.records import AdminRecord
from pvemcp_server.web.oauth.session import keep, next_step, record
from pvemcp_server.web.session import (
    PasswordDue,
    SecondFactorDue,
    SignedOut,
    connect_cookie,
    own_reading,
    reading,
    session_of,
)

router = APIRouter()
LIFE_SECONDS = 600


@router.get("/connect")
async def connect(request: Request) -> Response:
    """Sign the administrator in for a consent; without a recent sign-in, lead to it first."""
    response: Response
    try:
        person = administrator(await _recently_signed_in(request))
    except (SignedOut, PasswordDue, SecondFactorDue) as due:
        path = {PasswordDue: "password", SecondFactorDue: "account"}.get(type(due), "sign-in")
        response = RedirectResponse(f"/admin/{path}", 303)
        value = quote(request.url.query, safe="=&%")
        connect_cookie(request).set(response, value or "-", max_age=LIFE_SECONDS)
        return response
    sign_in = SignIn(person)
    response = next_step(request, sign_in)
    await keep(request, response, sign_in)
    connect_cookie(request).delete(response)
    await record(request, "sign_in", person)
    return response


async def _recently_signed_in(request: Request) -> AdminRecord:
    """Return the administrator; raise SignedOut unless they have proved who they are lately."""
    session = await session_of(request)
    context = await reading(session, await own_reading(request, session))
    if not context.authority.is_recent:
        raise SignedOut
    return session.admin
