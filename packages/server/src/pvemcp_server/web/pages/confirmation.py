"""The dialog "Confirm it's you", before an operation of weight.

A password, a code and a passkey are sent here; an OpenID Connect issuer asks for itself, and leads
to `external_sign_in.py`. `pages.js` then sends the request again that was refused: its form was not
left.
"""

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response

from pvemcp_server.access import passkeys
from pvemcp_server.access.passkeys import Assertion
from pvemcp_server.access.sealed_state import SealedState
from pvemcp_server.access.second_factors import Code, Proof
from pvemcp_server.admin import authentication
from pvemcp_server.errors import AccessDenied, SecondFactorNeeded, TooManyFailures
from pvemcp_server.web.passkeys import passkey_site_of
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
PURPOSE: Final = "confirmation with a passkey"
LIFE: Final = timedelta(minutes=10)
WRONG: Final = "The password, the code or the passkey is wrong."
Text = Annotated[str, Form()]


async def ask_who(request: Request, refused: str) -> Response:
    """Return the dialog in answer to a refused request of htmx; any other gets an error page."""
    if not is_part(request):
        return error_page(request, refused, 403)
    session, access = await session_of(request), services_of(request).access
    party, sealed, options = passkey_site_of(request).party, "", ""
    if party and (usable := await access.second_factors.passkeys_of(session.admin, party)):
        sealed = access.sealed_states.seal(PURPOSE, LIFE, bound=session.id)
        state = await access.sealed_states.open(PURPOSE, sealed, bound=session.id)
        options = passkeys.request_options(party, state.nonce, usable)
    response = page(
        request,
        "confirm.html",
        session,
        issuer=services_of(request).config.oidc_issuer,
        has_factors=bool(await access.second_factors.of(session.admin)),
        state=sealed,
        options=options,
    )
    response.headers["HX-Retarget"] = "#confirmation"
    response.headers["HX-Reswap"] = "innerHTML"
    return response


@router.post("")
async def confirm(
    request: Request,
    session: SignedIn,
    password: Text = "",
    code: Text = "",
    state: Text = "",
    credential: Text = "",
) -> Response:
    """Verify the session; an attempt is limited and recorded as at the sign-in."""
    await check_csrf(request, session)
    try:
        proof, opened = await _proof(request, session, code, state, credential)
        await authentication.confirm(
            services_of(request),
            session,
            password,
            proof,
            address_of(request),
            device_of(request),
            opened,
        )
    except TooManyFailures as denied:
        return error_page(request, too_many_attempts(denied), 429)
    except SecondFactorNeeded:
        return error_page(request, "Enter a code of your second factor too.", 403)
    except AccessDenied:
        wrong = "The password is wrong." if not (code or credential) else WRONG
        return error_page(request, wrong, 403)
    return Response(status_code=204, headers={"HX-Trigger": "confirmed"})


async def _proof(
    request: Request, session: SignedIn, code: str, state: str, credential: str
) -> tuple[Proof | None, SealedState | None]:
    """Return the second factor, and the state of a passkey's challenge."""
    party = passkey_site_of(request).party
    if code:
        return Code(code), None
    if not credential or party is None:
        return None, None
    states = services_of(request).access.sealed_states
    opened = await states.open(PURPOSE, state, bound=session.id)
    return Assertion(party, opened.nonce, credential), opened
