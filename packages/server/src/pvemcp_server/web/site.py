"""The admin site: pages, REST API and static files as one application, mounted under /admin."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from pvemcp_server.errors import AccessDenied, CallError, UnknownName
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.services import Services
from pvemcp_server.web import pages
from pvemcp_server.web.api import create_api
from pvemcp_server.web.session import PasswordDue, SignedOut
from pvemcp_server.web.templates import wants_page, wrong_page

STATIC: Final = Path(__file__).with_name("static")
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send "Origin: null"
    "Cross-Origin-Opener-Policy": "same-origin",
}


def admin_site(services: Services, pipeline: Pipeline) -> FastAPI:
    """The application; `pipeline` runs the calls that administrators try out as a key."""
    api = create_api()
    site = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for one in (site, api):
        one.state.services, one.state.pipeline = services, pipeline
        one.add_exception_handler(SignedOut, _signed_out)
        one.add_exception_handler(PasswordDue, _password_due)
        one.add_exception_handler(AccessDenied, _denied)
        one.add_exception_handler(CallError, _wrong)
        one.add_exception_handler(HTTPException, _http)
        one.add_exception_handler(RequestValidationError, _unreadable)
        one.add_exception_handler(ValidationError, _unreadable)
    for page in pages.routers(services.config):
        site.include_router(page)
    site.mount("/static", StaticFiles(directory=STATIC), name="static")
    site.mount("/api", api)
    site.middleware("http")(_guarded)
    return site


async def _guarded(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Headers that keep a page to itself; nothing but static files may be kept by a cache."""
    response = await call_next(request)
    response.headers.update(HEADERS)
    is_static = request.url.path.startswith("/admin/static/")
    response.headers["Cache-Control"] = "max-age=3600" if is_static else "no-store"
    return response


async def _signed_out(request: Request, _: Exception) -> Response:
    if not wants_page(request):
        return JSONResponse({"error": "Sign in first."}, 401)
    if request.headers.get("HX-Request"):
        return Response(status_code=204, headers={"HX-Redirect": "/admin/sign-in"})
    return RedirectResponse("/admin/sign-in", 303)


async def _password_due(request: Request, _: Exception) -> Response:
    if wants_page(request):
        return RedirectResponse("/admin/password", 303)
    return JSONResponse({"error": "Change your password first, on /admin/password."}, 403)


async def _denied(request: Request, _: Exception) -> Response:
    text = "This request did not come from our own page; reload it and try again."
    return wrong_page(request, text, 403) if wants_page(request) else _error(text, 403)


async def _wrong(request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, UnknownName) else 422
    if wants_page(request):
        return wrong_page(request, str(error), status)
    return _error(str(error), status)


async def _http(request: Request, error: Exception) -> Response:
    """What the framework refuses: no such page, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered so
    status = error.status_code
    text = "There is no such page." if status == 404 else str(error.detail)
    return wrong_page(request, text, status) if wants_page(request) else _error(text, status)


async def _unreadable(request: Request, error: Exception) -> Response:
    """Says which field is wrong and why, and never what was in it: it may be a secret."""
    assert isinstance(error, RequestValidationError | ValidationError)  # noqa: S101 - registered so
    facts = [f"{_field(one['loc'])}: {one['msg']}" for one in error.errors()]
    text = "; ".join(dict.fromkeys(facts))
    return wrong_page(request, text, 422) if wants_page(request) else _error(text, 422)


def _field(place: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in place if part not in {"body", "query", "path"})


def _error(text: str, status: int) -> Response:
    return JSONResponse({"error": text}, status)
