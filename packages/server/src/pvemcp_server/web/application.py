"""The application of the admin site: pages, REST API and static files, mounted under /admin."""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import ValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pvemcp_server.errors import (
    AccessDenied,
    AccountChanged,
    BadArgument,
    Busy,
    CallError,
    Conflict,
    LocalSignInOff,
    NotPermitted,
    RecentSignInNeeded,
    SecondFactorNeeded,
    StateUnavailable,
    TooManyFailures,
    UnknownName,
    UnusableCluster,
    value_fact,
)
from pvemcp_server.http.bounded_request import serve_bounded
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.web import pages
from pvemcp_server.web.api import create_api
from pvemcp_server.web.pages.confirmation import ask_who
from pvemcp_server.web.policies import POLICY
from pvemcp_server.web.session import (
    PasswordDue,
    SecondFactorDue,
    SignedOut,
    has_session_cookie,
    retry_after,
    services_of,
    session_of,
    token_of,
    too_many_attempts,
)
from pvemcp_server.web.static_files import static_route
from pvemcp_server.web.templates import error_page, is_part, redirect, wants_page

SIGN_INS: Final = (
    ("POST", "/admin/sign-in"),
    ("POST", "/admin/sign-in/second-factor"),
    ("POST", "/admin/sign-in/passkey"),
    ("POST", "/admin/api/session"),
)
SIGN_IN_BYTES: Final = 16 * 1024  # of the body: a stranger's form or JSON costs time to parse
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send "Origin: null"
    "Cross-Origin-Opener-Policy": "same-origin",
}
log = logging.getLogger(__name__)
ENDED: Final = "/admin/sign-in?ended=1"
TRANSPORT: Final = "max-age=31536000"  # a year; HSTS, sent when the public URL is https


@cache
def application(*, has_issuer: bool) -> FastAPI:
    """Return the application, built once; it has no state of its own."""
    api = create_api()
    site = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for each in (site, api):
        add_handlers(each)
    for page in pages.routers(has_issuer=has_issuer):
        site.include_router(page)
    site.router.routes.append(static_route)
    site.mount("/api", api)
    site.add_middleware(UrlEncodedForms)
    site.add_middleware(SessionBeforeBody)
    site.add_middleware(SecurityHeaders)  # added last, so it sees every answer
    return site


def add_handlers(application: FastAPI) -> None:
    """Let the application answer each error with a page, or with JSON below the REST API."""
    application.add_exception_handler(SignedOut, _signed_out)
    application.add_exception_handler(AccountChanged, _signed_out)
    application.add_exception_handler(PasswordDue, _password_due)
    application.add_exception_handler(SecondFactorDue, _second_factor_due)
    application.add_exception_handler(SecondFactorNeeded, _second_factor_needed)
    application.add_exception_handler(LocalSignInOff, _local_sign_in_off)
    application.add_exception_handler(TooManyFailures, _too_many)
    application.add_exception_handler(AccessDenied, _forbidden)
    application.add_exception_handler(NotPermitted, _not_permitted)
    application.add_exception_handler(RecentSignInNeeded, _recent_sign_in_needed)
    application.add_exception_handler(CallError, _call_error)
    application.add_exception_handler(StateUnavailable, _state_unavailable)
    application.add_exception_handler(DatabaseFailed, _state_unavailable)
    application.add_exception_handler(HTTPException, _http_error)
    application.add_exception_handler(RequestValidationError, _invalid)
    application.add_exception_handler(ValidationError, _invalid)


class SessionBeforeBody:
    """Middleware that requires a session or a service token before a request's body is read.

    FastAPI reads the body before it resolves the dependency that checks them. The sign-ins need
    neither, so their bodies are short.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or answer that it is signed out."""
        if scope["type"] == "http" and (scope["method"], scope["path"]) in SIGN_INS:
            await serve_bounded(self._app, scope, receive, send, SIGN_IN_BYTES)
            return
        if scope["type"] == "http" and needs_session(scope["method"], scope["path"]):
            request = Request(scope)
            try:
                if await token_of(request) is None:
                    await session_of(request)
            except SignedOut as signed_out:
                await (await _signed_out(request, signed_out))(scope, receive, send)
                return
            except TooManyFailures as refused:
                await (await _too_many(request, refused))(scope, receive, send)
                return
            except (StateUnavailable, DatabaseFailed) as failed:
                await (await _state_unavailable(request, failed))(scope, receive, send)
                return
        await self._app(scope, receive, send)


class UrlEncodedForms:
    """Middleware that refuses multipart forms: no page sends one, and they cost too much.

    Each names the character set of its fields, and some decoders of Python take seconds or raise.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or answer 415."""
        if scope["type"] == "http" and _is_multipart(request := Request(scope)):
            text = "Send forms as application/x-www-form-urlencoded."
            refused = error_page(request, text, 415) if wants_page(request) else _error(text, 415)
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)


class SecurityHeaders:
    """Middleware that adds security headers; only static files may be cached.

    Starlette's own kind of middleware completes an answer that breaks off, so that an export cut by
    an error would pass for the whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request with the headers added to its answer."""
        headers = dict(HEADERS)
        if scope["type"] == "http":
            is_static = scope["path"].startswith("/admin/static/")
            headers["Cache-Control"] = "max-age=3600" if is_static else "no-store"
            if services_of(Request(scope)).config.serves_https:
                headers["Strict-Transport-Security"] = TRANSPORT

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                sent.update(headers)
                sent.setdefault("Content-Security-Policy", POLICY)  # a view has its own
            await send(message)

        await self._app(scope, receive, send_with_headers)


def needs_session(method: str, path: str) -> bool:
    """Return whether the request may have a body and is no sign-in."""
    return method not in ("GET", "HEAD") and (method, path) not in SIGN_INS


def _is_multipart(request: Request) -> bool:
    return "multipart" in request.headers.get("content-type", "").lower()


async def _signed_out(request: Request, error: Exception) -> Response:
    if not wants_page(request):
        return JSONResponse({"error": str(error)}, 401)
    where = ENDED if has_session_cookie(request) else "/admin/sign-in"
    return redirect(where) if is_part(request) else RedirectResponse(where, 303)


async def _password_due(request: Request, _: Exception) -> Response:
    if wants_page(request):
        return RedirectResponse("/admin/password", 303)
    where = f"{services_of(request).config.path_prefix}/admin/password"
    return _error(f"Change your password first, on {where}.", 403)


async def _second_factor_due(request: Request, _: Exception) -> Response:
    if not wants_page(request):
        where = f"{services_of(request).config.path_prefix}/admin/account"
        return _error(f"Set up a second factor first, on {where}.", 403)
    if request.headers.get("HX-Request"):
        return redirect("/admin/account")
    return RedirectResponse("/admin/account", 303)


async def _second_factor_needed(_: Request, __: Exception) -> Response:
    """Answer a sign-in of the API; the pages lead to the second step."""
    return _error("Send a code of your second factor too, as code.", 401)


async def _local_sign_in_off(_: Request, __: Exception) -> Response:
    """Answer a sign-in of the API; the page shows it itself."""
    return _error("Passwords are switched off here: sign in with OpenID Connect.", 401)


async def _forbidden(request: Request, _: Exception) -> Response:
    text = "This request did not come from our own page; reload it and try again."
    return error_page(request, text, 403) if wants_page(request) else _error(text, 403)


async def _not_permitted(request: Request, error: Exception) -> Response:
    if wants_page(request):
        return error_page(request, str(error), 403)
    return JSONResponse({"error": str(error), "code": "not_permitted"}, 403)


async def _recent_sign_in_needed(request: Request, error: Exception) -> Response:
    if wants_page(request):
        return await ask_who(request, str(error))
    return JSONResponse({"error": str(error), "code": "recent_sign_in_needed"}, 403)


async def _too_many(_: Request, error: Exception) -> Response:
    """Answer a sign-in of the API that was not checked; the page shows it itself."""
    assert isinstance(error, TooManyFailures)  # noqa: S101 - registered so
    return JSONResponse({"error": too_many_attempts(error)}, 429, retry_after(error))


async def _call_error(request: Request, error: Exception) -> Response:
    status = {UnknownName: 404, Conflict: 409, Busy: 429}.get(type(error), 422)
    text = str(error)
    if wants_page(request):
        refused = error_page(request, text, status, _wrong_fields(error))
    else:
        refused = _error(text, status)
    if isinstance(error, Busy):
        refused.headers["Retry-After"] = str(error.seconds)
    return refused


def _wrong_fields(error: Exception) -> list[tuple[str, str]]:
    """Return the field that the error is about, with the text beside it."""
    match error:
        case BadArgument():
            return [(error.argument, str(error).removeprefix(f"{error.argument}: "))]
        case UnusableCluster() if error.about:
            return [(error.about, str(error))]
        case _:
            return []


async def _state_unavailable(request: Request, error: Exception) -> Response:
    """Answer while the database does not answer or is full: nothing was changed."""
    log.warning("The state's database failed", exc_info=error)
    text = "The server's database does not answer, or cannot be written. Try again later."
    refused = error_page(request, text, 503) if wants_page(request) else _error(text, 503)
    refused.headers["Retry-After"] = "5"
    return refused


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: unknown pages and methods."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered so
    status = error.status_code
    text = "This page does not exist." if status == 404 else str(error.detail)
    return error_page(request, text, status) if wants_page(request) else _error(text, status)


async def _invalid(request: Request, error: Exception) -> Response:
    """Name the invalid field and the reason, never its value: it may be a secret."""
    assert isinstance(error, RequestValidationError | ValidationError)  # noqa: S101 - registered so
    wrong = dict.fromkeys((_field(item["loc"]), value_fact(item)) for item in error.errors())
    text = " ".join(f"{field}: {message}" for field, message in wrong)
    return error_page(request, text, 422, wrong) if wants_page(request) else _error(text, 422)


def _field(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location if part not in {"body", "query", "path"})


def _error(text: str, status: int) -> Response:
    return JSONResponse({"error": text}, status)
