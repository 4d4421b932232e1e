"""The application of the pages on which users sign in, consent and see their connections."""

from functools import cache

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.errors import (
    AccessDenied,
    CallError,
    DoneUnrecorded,
    OAuthError,
    OverBudget,
    TooManyFailures,
    Unrecorded,
)
from pvemcp_server.web.application import SecurityHeaders, UrlEncodedForms, add_handlers
from pvemcp_server.web.oauth import connections, consent, sign_in
from pvemcp_server.web.oauth.request import RefusedRequest
from pvemcp_server.web.oauth.session import SIGN_IN, SignInNeeded, at
from pvemcp_server.web.session import retry_after, too_many_attempts
from pvemcp_server.web.templates import page


@cache
def application() -> FastAPI:
    """Return the application, built once; it has no state of its own."""
    site = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    add_handlers(site)
    site.add_exception_handler(SignInNeeded, _sign_in_needed)
    site.add_exception_handler(RefusedRequest, _refused_request)
    site.add_exception_handler(OAuthError, _oauth_error)
    site.add_exception_handler(OverBudget, _over_budget)
    site.add_exception_handler(TooManyFailures, _too_many)
    site.add_exception_handler(AccessDenied, _forbidden)
    for error in (CallError, Unrecorded, DoneUnrecorded):
        site.add_exception_handler(error, _call_error)
    for router in (
        consent.router,
        sign_in.router,
        sign_in.callback_router,
        connections.router,
    ):
        site.include_router(router)
    site.add_middleware(UrlEncodedForms)
    site.add_middleware(SecurityHeaders)  # added last, so it sees every answer
    return site


async def _sign_in_needed(request: Request, _: Exception) -> Response:
    return RedirectResponse(at(request, SIGN_IN), 303)


async def _refused_request(request: Request, error: Exception) -> Response:
    """Show what is wrong; only the authorization endpoint answers the client."""
    return _error_page(request, str(error), 400)


async def _oauth_error(request: Request, error: Exception) -> Response:
    """Show what is wrong with client or redirect URI: an answer could go to an attacker."""
    return _error_page(request, str(error), 400)


async def _over_budget(request: Request, error: Exception) -> Response:
    return _error_page(request, str(error), 429)


async def _too_many(request: Request, error: Exception) -> Response:
    assert isinstance(error, TooManyFailures)  # noqa: S101 - registered so
    response = _error_page(request, too_many_attempts(error), 429)
    response.headers.update(retry_after(error))
    return response


async def _forbidden(request: Request, _: Exception) -> Response:
    return _error_page(request, "This form did not come from this browser's page; reload it.", 403)


async def _call_error(request: Request, error: Exception) -> Response:
    return _error_page(request, str(error), 422)


def _error_page(request: Request, text: str, status: int) -> Response:
    return page(request, "oauth_error.html", text=text, then="", to="", status=status)
