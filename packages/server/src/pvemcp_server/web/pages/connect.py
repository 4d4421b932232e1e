"""The way from an administrator's account to the consent for a program that connects.

The sign-in of administrators, with its second factors, passkeys and OpenID Connect, is the usual
one: a cookie leads back here after it.
"""

from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.oauth.people import administrator
from pvemcp_server.oauth.person import SignIn
from pvemcp_server.web.oauth.request import connecting_client
from pvemcp_server.web.oauth.session import keep, next_step, record
from pvemcp_server.web.session import (
    PasswordDue,
    SecondFactorDue,
    SignedOut,
    after_sign_in,
    connect_cookie,
    own_reading,
    reading,
    session_of,
)
from pvemcp_server.web.templates import page

router = APIRouter()
LIFE_SECONDS = 600


@router.get("/connect")
async def connect(request: Request) -> Response:
    """Sign the administrator in for a consent; without a recent sign-in, lead to it first."""
    try:
        session = await session_of(request)
        context = await reading(session, await own_reading(request, session))
    except (SignedOut, PasswordDue, SecondFactorDue) as due:
        path = {PasswordDue: "password", SecondFactorDue: "account"}.get(type(due), "sign-in")
        return _first(request, path)
    if not context.authority.is_recent:
        # an issuer may let the same browser in again without any question, unless it confirms
        return _first(request, "oidc/confirm" if session.admin.subject else "sign-in")
    person = administrator(session)
    sign_in = SignIn(person)
    response = next_step(request, sign_in)
    await keep(request, response, sign_in)
    connect_cookie(request).delete(response)
    await record(request, "sign_in", person)
    return response


async def signed_in_page(request: Request, then: str) -> Response:
    """Lead on from a page of ours: after the issuer's, no redirect would send strict cookies."""
    client = await connecting_client(request)
    return page(request, "signed_in.html", client=client, then=then)


async def confirmed_page(request: Request) -> Response:
    """Show that an administrator has confirmed who they are, or lead back to a consent."""
    then = after_sign_in(request)
    if then == "/admin/":
        return page(request, "confirmed.html")
    return await signed_in_page(request, then)


def _first(request: Request, path: str) -> Response:
    """Lead to a page of the administration, after which `after_sign_in` leads back here."""
    response = RedirectResponse(f"/admin/{path}", 303)
    value = quote(request.url.query, safe="=&%+")  # a space may be a plus sign
    connect_cookie(request).set(response, value or "-", max_age=LIFE_SECONDS)
    return response
