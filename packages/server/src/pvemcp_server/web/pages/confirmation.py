"""The dialog "Confirm it's you", before an operation of weight.

Each way to prove it has a form in `confirm.html` and a route here (that of an OpenID Connect issuer
is in `external_sign_in.py`), and ends in `authentication.confirmed`. `pages.js` then sends the
request again that was refused: its form was not left.
"""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from pvemcp_server.admin import authentication
from pvemcp_server.errors import AccessDenied, TooManyFailures
from pvemcp_server.web.session import (
    SignedIn,
    address_of,
    check_csrf,
    device_of,
    services_of,
    session_of,
    too_many_attempts,
)
from pvemcp_server.web.templates import error_page, is_part, page

router = APIRouter(prefix="/confirm")


async def ask_who(request: Request, refused: str) -> Response:
    """Return the dialog in answer to a refused request of htmx; any other gets an error page."""
    if not is_part(request):
        return error_page(request, refused, 403)
    session = await session_of(request)
    response = page(
        request, "confirm.html", session, issuer=services_of(request).config.oidc_issuer
    )
    response.headers["HX-Retarget"] = "#confirmation"
    response.headers["HX-Reswap"] = "innerHTML"
    return response


@router.post("/password")
async def confirm_password(
    request: Request, session: SignedIn, password: Annotated[str, Form()]
) -> Response:
    """Verify the session by the password, which is limited and recorded as a sign-in is."""
    await check_csrf(request, session)
    try:
        await authentication.confirm_password(
            services_of(request), session, password, address_of(request), device_of(request)
        )
    except TooManyFailures as denied:
        return error_page(request, too_many_attempts(denied), 429)
    except AccessDenied:
        return error_page(request, "The password is wrong.", 403)
    return Response(status_code=204, headers={"HX-Trigger": "confirmed"})
