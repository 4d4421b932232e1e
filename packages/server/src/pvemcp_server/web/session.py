"""Dependencies of the admin site: session, CSRF check, AdminContext."""

from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Path, Request, Response
from starlette.datastructures import FormData

from pvemcp_server.access.service_tokens import actor_of
from pvemcp_server.access.sessions import Session
from pvemcp_server.access.sign_in_limits import DEVICE_LIFE
from pvemcp_server.admin.authentication import service_token, sign_out
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Operation, operations
from pvemcp_server.admin.permission import RoleAuthority, TokenAuthority
from pvemcp_server.config import Config
from pvemcp_server.errors import AccessDenied, AccountChanged, TooManyFailures, counted
from pvemcp_server.http.hosts import client_address, networks
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.services import Services
from pvemcp_server.store.columns import HIGHEST_ID
from pvemcp_server.store.key_format import PREFIX
from pvemcp_server.store.records import AdminRecord, ServiceTokenRecord
from pvemcp_server.web.templates import wants_page

SESSION: Final = "pvemcp_session"
DEVICE: Final = "pvemcp_device"  # strangers cannot lock a browser out that has it
CONNECT: Final = "pvemcp_connect"  # leads a sign-in back to the consent that it is for
CSRF_HEADER: Final = "X-CSRF-Token"
CSRF_FIELD: Final = "csrf"


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie of the admin site.

    Over https its name begins with `__Host-`: browsers then accept it from this host only, over
    https only and with `Path=/`, so no other site of the domain can set it. Below a path prefix its
    name ends with the prefix, so that servers at one host have cookies of their own.
    """

    name: str
    path: str
    secure: bool
    samesite: Literal["strict", "lax"]

    def set(self, response: Response, value: str, *, max_age: int | None = None) -> None:
        """Set the cookie on the response; without `max_age` it ends with the browser."""
        response.set_cookie(
            self.name,
            value,
            max_age=max_age,
            path=self.path,
            secure=self.secure,
            httponly=True,
            samesite=self.samesite,
        )

    def delete(self, response: Response) -> None:
        """Delete the cookie; browsers accept that with its own attributes only."""
        self.set(response, "", max_age=0)


def cookie_of(
    config: Config, name: str, path: str, samesite: Literal["strict", "lax"] = "strict"
) -> Cookie:
    """Return the cookie with this name; `path` limits it over http, where nothing else does."""
    prefix = config.path_prefix
    name = f"{name}{prefix.replace('/', '-')}"
    if config.serves_https:
        return Cookie(f"__Host-{name}", "/", secure=True, samesite=samesite)
    return Cookie(name, f"{prefix}{path}", secure=False, samesite=samesite)


def _session_cookie(request: Request) -> Cookie:
    return cookie_of(services_of(request).config, SESSION, "/admin")


def _device_cookie(request: Request) -> Cookie:
    """Return the cookie of a browser that has signed in before."""
    return cookie_of(services_of(request).config, DEVICE, "/admin")


def connect_cookie(request: Request) -> Cookie:
    """Return the cookie of a sign-in for a consent; lax: an issuer may lead back to us."""
    return cookie_of(services_of(request).config, CONNECT, "/admin", "lax")


def after_sign_in(request: Request) -> str:
    """Return where an administrator goes after the sign-in: the overview, or back to a consent."""
    query = request.cookies.get(connect_cookie(request).name)
    if not query:
        return "/admin/"
    return "/admin/connect" if query == "-" else f"/admin/connect?{query}"


class SignedOut(Exception):
    """No valid session or service token: pages redirect to the sign-in page, the API answers 401.

    The text is the API's answer.
    """

    def __init__(self, text: str = "Sign in first.") -> None:
        super().__init__(text)


class PasswordDue(Exception):
    """The administrator has to change the password before anything else."""


class SecondFactorDue(Exception):
    """The setting requires a second factor, and the administrator has none yet."""


def services_of(request: Request) -> Services:
    """Return the services that the site was created with."""
    services: Services = request.state.site.services
    return services


def pipeline_of(request: Request) -> Pipeline:
    """Return the pipeline that runs calls made from the site."""
    pipeline: Pipeline = request.state.site.pipeline
    return pipeline


def address_of(request: Request) -> str:
    """Return the client's address; X-Forwarded-For counts from trusted proxies only."""
    trusted = networks(services_of(request).config.trusted_proxies)
    return client_address(request.scope, trusted)


def device_of(request: Request) -> str:
    """Return the token of a browser that signed in before; empty without one."""
    return request.cookies.get(_device_cookie(request).name, "")


def has_session_cookie(request: Request) -> bool:
    """Return whether the browser was signed in: its session may have ended since."""
    return _session_cookie(request).name in request.cookies


async def session_of(request: Request) -> Session:
    """Return the session of the cookie; raise SignedOut without a valid one."""
    token = request.cookies.get(_session_cookie(request).name)
    session = await services_of(request).access.sessions.find(token) if token else None
    if session is None:
        raise SignedOut
    request.state.is_known = True  # what the connection sends next does not wait for strangers
    return session


async def is_second_factor_due(services: Services, session: Session) -> bool:
    """Return whether the administrator has to set up a second factor before anything else."""
    if not (await services.settings.current()).require_second_factor:
        return False
    return not await services.access.second_factors.of(session.admin)


async def token_of(request: Request) -> ServiceTokenRecord | None:
    """Return the service token of a request of the REST API; None when it presents none.

    Any API key in its place counts as a wrong one. Raise SignedOut or TooManyFailures then.
    """
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    secret = rest.strip()
    if wants_page(request) or scheme.lower() != "bearer" or not secret.startswith(PREFIX):
        return None
    if not hasattr(request.state, "service_token"):  # the middleware may have checked it
        try:
            request.state.service_token = await service_token(
                services_of(request), secret, address_of(request)
            )
        except TooManyFailures:
            raise
        except AccessDenied:
            raise SignedOut("This service token is unknown, expired or revoked.") from None
        request.state.is_known = True
    token: ServiceTokenRecord = request.state.service_token
    return token


def token_context(request: Request, token: ServiceTokenRecord) -> AdminContext:
    """Return the context of a request that a service token authenticates."""
    name = actor_of(token)
    return AdminContext(
        services_of(request),
        by=name,
        address=address_of(request),
        authority=TokenAuthority(frozenset(token.scopes)),
        acting=name,
    )


async def own_reading(
    request: Request, session: Annotated[Session, Depends(session_of)]
) -> AdminContext:
    """Return the context of a request for the administrator's own account; raise PasswordDue."""
    if session.admin.must_change:
        raise PasswordDue
    return AdminContext(
        services_of(request),
        session.admin.name,
        address_of(request),
        session.id,
        RoleAuthority(session.admin.role, session.verified_at),
    )


async def own_writing(
    request: Request,
    session: Annotated[Session, Depends(session_of)],
    context: Annotated[AdminContext, Depends(own_reading)],
) -> AdminContext:
    """Return the context of a change of the own account, after the CSRF check."""
    await check_csrf(request, session)
    return context


async def reading(
    session: Annotated[Session, Depends(session_of)],
    context: Annotated[AdminContext, Depends(own_reading)],
) -> AdminContext:
    """Return the context of a request that only reads; raise PasswordDue or SecondFactorDue."""
    if await is_second_factor_due(context.services, session):
        raise SecondFactorDue
    return context


async def writing(
    request: Request,
    session: Annotated[Session, Depends(session_of)],
    context: Annotated[AdminContext, Depends(reading)],
) -> AdminContext:
    """Return the context of a request that changes something, after the CSRF check."""
    await check_csrf(request, session)
    return context


async def check_csrf(request: Request, session: Session) -> None:
    """Raise AccessDenied unless the header or the form has the session's CSRF token."""
    token = request.headers.get(CSRF_HEADER)
    if token is None and "form" in request.headers.get("content-type", ""):
        form: FormData = await request.form()
        token = str(form.get(CSRF_FIELD, ""))
    session.check_csrf(token or "")


def may(name: str) -> Any:
    """Return the dependency of a page's route that refuses whom the operation refuses.

    The operation checks again when it runs. This check is made before the form is read; to show
    the form needs no recent sign-in.
    """

    async def check(request: Request, context: Annotated[AdminContext, Depends(reading)]) -> None:
        operation = operations()[name]
        shows = request.method == "GET"
        await (operation.check_permission if shows else operation.check)(context)

    check.operation = name  # type: ignore[attr-defined]  # functions have it; tests walk the routes
    return Depends(check)


def permitted(operation: Operation) -> Any:
    """Return the dependency that gives a route of the REST API its context."""
    method = operation.route.method if operation.route else "GET"

    async def context_of(request: Request) -> AdminContext:
        if token := await token_of(request):
            context = token_context(request, token)
            await operation.check(context)
            return context
        session = await session_of(request)
        context = await reading(session, await own_reading(request, session))
        if method != "GET":
            await check_csrf(request, session)
        await operation.check(context)
        return context

    return Depends(context_of)


OwnReading = Annotated[AdminContext, Depends(own_reading)]
OwnWriting = Annotated[AdminContext, Depends(own_writing)]
Reading = Annotated[AdminContext, Depends(reading)]
Writing = Annotated[AdminContext, Depends(writing)]
SignedIn = Annotated[Session, Depends(session_of)]
RowNumber = Annotated[int, Path(ge=0, le=HIGHEST_ID)]
PipelineOf = Annotated[Pipeline, Depends(pipeline_of)]


def too_many_attempts(refused: TooManyFailures) -> str:
    """Return the text for a sign-in that was not checked."""
    return f"Too many attempts: try again in {counted(ceil(refused.seconds), 'second')}."


def retry_after(refused: TooManyFailures) -> dict[str, str]:
    """Return the header with the time to wait."""
    return {"Retry-After": str(ceil(refused.seconds))}


async def open_session(
    request: Request,
    admin: AdminRecord,
    response: Response,
    verified_at: datetime | None = None,
) -> Session:
    """Open a session for the administrator and set its cookie on the response.

    `verified_at` is when they have proved who they are, if it was not now.
    """
    services = services_of(request)
    try:
        token = await services.access.sessions.open(
            admin,
            address=address_of(request),
            agent=request.headers.get("user-agent", ""),
            verified_at=verified_at,
        )
    except AccountChanged:
        raise SignedOut from None
    _session_cookie(request).set(response, token)
    device = services.access.admins.devices.issue(admin.name)
    lifetime = int(DEVICE_LIFE.total_seconds())
    _device_cookie(request).set(response, device, max_age=lifetime)
    session = await services.access.sessions.find(token)
    if session is None:  # the account was disabled during the sign-in
        raise SignedOut
    return session


async def close_session(request: Request, session: Session, response: Response) -> None:
    """End the session and delete its cookie."""
    await sign_out(services_of(request), session, address_of(request))
    _session_cookie(request).delete(response)
