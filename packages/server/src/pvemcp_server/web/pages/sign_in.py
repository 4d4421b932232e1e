"""Signing in and out, and one's own password."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.admin import authentication
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.errors import AccessDenied, BadArgument
from pvemcp_server.web.session import (
    SignedIn,
    address_of,
    check_csrf,
    close_session,
    open_session,
    services_of,
)
from pvemcp_server.web.templates import page

router = APIRouter()
Text = Annotated[str, Form()]


@router.get("/sign-in")
async def ask(request: Request) -> Response:
    issuer = services_of(request).config.oidc_issuer
    return page(request, "sign_in.html", wrong="", name="", external=issuer)


@router.post("/sign-in")
async def sign_in(request: Request, name: Text, password: Text) -> Response:
    """One answer for every reason: which names exist is nobody's business."""
    services = services_of(request)
    try:
        admin = await authentication.sign_in(services, name, password, address_of(request))
    except AccessDenied:
        wrong = "Name and password do not belong together, or too many attempts were made."
        issuer = services.config.oidc_issuer
        return page(request, "sign_in.html", wrong=wrong, name=name, external=issuer, status=403)
    answer = RedirectResponse("/admin/", 303)
    await open_session(request, admin, answer)
    return answer


@router.post("/sign-out")
async def sign_out(request: Request, session: SignedIn) -> Response:
    await check_csrf(request, session)
    answer = RedirectResponse("/admin/sign-in", 303)
    await close_session(request, session, answer)
    return answer


@router.get("/password")
async def ask_password(request: Request, session: SignedIn) -> Response:
    return page(request, "password.html", session, wrong="")


@router.post("/password")
async def change_password(
    request: Request,
    session: SignedIn,
    current: Text,
    new: Text,
    again: Text,
) -> Response:
    """A changed password ends all sessions, this one too, and opens a new one."""
    await check_csrf(request, session)
    services, name = services_of(request), session.admin.name
    wrong, admin = "", session.admin
    try:
        admin = await services.access.admins.sign_in(name, current, address=address_of(request))
        await services.access.admins.set_password(name, _chosen(current, new, again))
    except AccessDenied:
        wrong = "The present password is wrong."
    except BadArgument as error:
        wrong = str(error)
    if wrong:
        return page(request, "password.html", session, wrong=wrong, status=422)
    await AdminContext(services, name, address_of(request)).changed(
        "admins.change_password", name=name
    )
    answer = RedirectResponse("/admin/", 303)
    await open_session(request, admin, answer)
    return answer


def _chosen(current: str, new: str, again: str) -> str:
    """A one-time password that stayed would be known to whoever has handed it over."""
    if new != again:
        raise BadArgument("new", "the two new passwords differ.")
    if new == current:
        raise BadArgument("new", "the new password is the present one; choose another.")
    return new
