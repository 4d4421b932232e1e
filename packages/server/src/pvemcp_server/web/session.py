"""What a request of the admin site brings along: its session, checked, and its AdminContext."""

from typing import Annotated, Final

from fastapi import Depends, Path, Request, Response
from starlette.datastructures import FormData

from pvemcp_server.access.sessions import Session
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.http.client_address import client_address, networks
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.services import Services
from pvemcp_server.store.records import AdminRecord

COOKIE: Final = "pvemcp_session"
CSRF_HEADER: Final = "X-CSRF-Token"
CSRF_FIELD: Final = "csrf"


class SignedOut(Exception):
    """Nobody is signed in; pages lead to the sign-in, the API answers 401."""


class PasswordDue(Exception):
    """The password has to be changed before anything else."""


def services_of(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def pipeline_of(request: Request) -> Pipeline:
    """The way that every call takes."""
    found: Pipeline = request.app.state.pipeline
    return found


def address_of(request: Request) -> str:
    """Where the request comes from, also behind the configured proxies."""
    trusted = networks(services_of(request).config.trusted_proxies)
    return client_address(request.scope, trusted)


async def session_of(request: Request) -> Session:
    """The signed-in session; raises SignedOut."""
    token = request.cookies.get(COOKIE)
    found = await services_of(request).access.sessions.find(token) if token else None
    if found is None:
        raise SignedOut
    return found


async def reading(
    request: Request, session: Annotated[Session, Depends(session_of)]
) -> AdminContext:
    """The administrator who looks at something."""
    if session.admin.must_change:
        raise PasswordDue
    return AdminContext(services_of(request), session.admin.name, address_of(request))


async def writing(
    request: Request,
    session: Annotated[Session, Depends(session_of)],
    context: Annotated[AdminContext, Depends(reading)],
) -> AdminContext:
    """The administrator who changes something, from our own pages or knowing the token."""
    await check_csrf(request, session)
    return context


async def check_csrf(request: Request, session: Session) -> None:
    """Raises AccessDenied unless header or form carry the session's token."""
    token = request.headers.get(CSRF_HEADER)
    if token is None and "form" in request.headers.get("content-type", ""):
        form: FormData = await request.form()
        token = str(form.get(CSRF_FIELD, ""))
    session.check_csrf(token or "")


Reading = Annotated[AdminContext, Depends(reading)]
Writing = Annotated[AdminContext, Depends(writing)]
SignedIn = Annotated[Session, Depends(session_of)]
RowNumber = Annotated[int, Path(ge=0, le=2**53)]  # more than databases count to is nobody's number
PipelineOf = Annotated[Pipeline, Depends(pipeline_of)]


async def open_session(request: Request, admin: AdminRecord, answer: Response) -> Session:
    """Opens a session for the administrator and puts its cookie on the answer."""
    services = services_of(request)
    agent = request.headers.get("user-agent", "")
    token = await services.access.sessions.open(admin, address=address_of(request), agent=agent)
    answer.set_cookie(
        COOKIE,
        token,
        path="/admin",
        httponly=True,
        samesite="strict",
        secure=services.config.base_url.startswith("https:"),
    )
    found = await services.access.sessions.find(token)
    if found is None:  # disabled between the sign-in and now
        raise SignedOut
    return found


async def close_session(request: Request, session: Session, answer: Response) -> None:
    """Ends the session and takes its cookie back."""
    await services_of(request).access.sessions.end(session.id)
    answer.delete_cookie(COOKIE, path="/admin")
