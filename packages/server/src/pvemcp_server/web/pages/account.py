"""Page Account: the administrator's own second factors and sessions."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Request, Response

from pvemcp_server.access.passkeys import RelyingParty
from pvemcp_server.access.second_factors import RECOVERY_CODES, totp_uri
from pvemcp_server.admin import account, admins
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.errors import (
    AccessDenied,
    AccountChanged,
    BadArgument,
    RecentSignInNeeded,
)
from pvemcp_server.web.oauth.request import connecting_client
from pvemcp_server.web.passkeys import passkey_site_of
from pvemcp_server.web.session import (
    OwnReading,
    OwnWriting,
    RowNumber,
    SignedIn,
    Writing,
    after_sign_in,
    is_second_factor_due,
)
from pvemcp_server.web.templates import page, redirect, reload

router = APIRouter(prefix="/account")
HERE: Final = "/admin/account"
Text = Annotated[str, Form()]


async def confirmed(context: OwnWriting) -> AdminContext:
    """Return the context of an administrator who has signed in or confirmed lately."""
    if not context.authority.is_recent:
        raise RecentSignInNeeded
    return context


Confirmed = Annotated[AdminContext, Depends(confirmed)]


@router.get("")
async def show(request: Request, session: SignedIn, context: OwnReading) -> Response:
    access = context.services.access
    due = await is_second_factor_due(context.services, session)
    return page(
        request,
        "account.html",
        session,
        here="account",
        due=due,
        client=await connecting_client(request),
        then=after_sign_in(request),
        factors=await admins.list_second_factors(context, session.admin.name),
        codes_left=await access.second_factors.recovery_codes_left(session.admin),
        codes_made=RECOVERY_CODES,
        site=passkey_site_of(request),
        sessions=await admins.list_sessions(context, session.admin.name),
    )


@router.post("/apps")
async def begin_app(
    request: Request, session: SignedIn, context: Confirmed, name: Text
) -> Response:
    """Show the secret of a new authenticator app, as text and as QR code."""
    import segno  # on first use: only an enrolment needs it

    secret, state = account.begin_totp(context, session, name)
    code = segno.make(totp_uri(secret, session.admin.name), error="m", micro=False)
    drawing = code.svg_inline(scale=5, border=3, dark="#000", light="#fff", omitsize=True)
    return page(request, "account_app.html", session, secret=secret, state=state, drawing=drawing)


@router.post("/apps/finish")
async def finish_app(
    request: Request, session: SignedIn, context: OwnWriting, state: Text, code: Text
) -> Response:
    codes = await account.finish_totp(context, session, state, code)
    return _added(request, session, codes)


@router.post("/passkeys")
async def begin_passkey(
    request: Request, session: SignedIn, context: Confirmed, name: Text
) -> Response:
    """Let the browser make a passkey for this site."""
    options, state = await account.begin_passkey(context, session, name, _party(request))
    return page(request, "account_passkey.html", session, options=options, state=state)


@router.post("/passkeys/finish")
async def finish_passkey(
    request: Request, session: SignedIn, context: OwnWriting, state: Text, credential: Text
) -> Response:
    try:
        codes = await account.finish_passkey(context, session, _party(request), state, credential)
    except AccountChanged:
        raise
    except AccessDenied:
        raise BadArgument("credential", "the browser's answer is not valid; try again.") from None
    return _added(request, session, codes)


@router.post("/factors/{factor}/remove")
async def remove_factor(session: SignedIn, context: Confirmed, factor: RowNumber) -> Response:
    await account.remove(context, session, factor)
    return reload()


@router.post("/recovery-codes")
async def new_recovery_codes(request: Request, session: SignedIn, context: Confirmed) -> Response:
    codes = await account.new_recovery_codes(context, session)
    return page(request, "account_codes.html", session, codes=codes)


@router.post("/sessions/{number}/end")
async def end_session(session: SignedIn, context: Writing, number: str) -> Response:
    await admins.end_session(context, session.admin.name, number)
    return reload()


@router.post("/sessions/end-others")
async def end_other_sessions(session: SignedIn, context: Writing) -> Response:
    await admins.end_sessions(context, session.admin.name)
    return reload()


def _added(request: Request, session: SignedIn, codes: list[str] | None) -> Response:
    if codes is None:
        return redirect(HERE)
    return page(request, "account_codes.html", session, codes=codes)


def _party(request: Request) -> RelyingParty:
    site = passkey_site_of(request)
    if site.party is None:
        raise BadArgument("credential", site.reason)
    return site.party
