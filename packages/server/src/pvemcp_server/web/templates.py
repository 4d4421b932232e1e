"""Jinja templates: their filters and globals, and the responses made from them."""

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from pvemcp_server import __version__
from pvemcp_server.access.sessions import Session

HERE: Final = Path(__file__).parent


class Navigation(NamedTuple):
    """An entry of the navigation; `icon` is the path of an SVG drawing of 24 by 24 units."""

    title: str
    path: str
    icon: str


NAVIGATION: Final[dict[str, Navigation]] = {}
"""The entry of each page, by its subject; `web/pages` fills it."""


def _age(then: datetime | None) -> str:
    """Format how long ago a moment was, in its largest unit."""
    if then is None:
        return "never"
    seconds = (datetime.now(UTC) - then).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{abs(seconds) / size:.0f} {unit}" + (" ago" if seconds > 0 else " from now")
    return "just now"


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""


def _moment(moment: datetime) -> str:
    """Format a moment for a column whose header says UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _number(count: int) -> str:
    return f"{count:,}"


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _static(name: str) -> str:
    """Return a file's URL with a hash of its content, so that caches load a new release."""
    digest = sha256((HERE / "static" / name).read_bytes()).hexdigest()[:8]
    return f"/admin/static/{name}?v={digest}"


_environment = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "age": _age,
    "time": _time,
    "moment": _moment,
    "size": _size,
    "number": _number,
}
_environment.globals |= {
    "static": _static,
    "navigation": NAVIGATION,
    "version": __version__,
}
_templates = Jinja2Templates(env=_environment)


def page(
    request: Request,
    template: str,
    session: Session | None = None,
    /,
    *,
    status: int = 200,
    **values: Any,
) -> Response:
    """Render a template; `session` is the signed-in administrator's.

    `due` hides the navigation while the administrator may use one page only.
    """
    csrf = session.csrf if session else ""
    context = {"session": session, "csrf": csrf, "due": False, **values}
    return _templates.TemplateResponse(request, template, context, status_code=status)


def wants_page(request: Request) -> bool:
    """Decide whether to answer with a page; requests of the REST API get JSON."""
    return not request.url.path.startswith("/admin/api")


def error_page(request: Request, text: str, status: int) -> Response:
    """Render an error as a fragment for htmx or as a page."""
    is_part = request.headers.get("HX-Request") == "true"
    response = page(
        request, "error_part.html" if is_part else "error.html", text=text, status=status
    )
    if is_part:
        # htmx ignores the body of an error status, so the banner is sent with 200
        response.status_code = 200
        response.headers["HX-Retarget"] = "#errors"
        response.headers["HX-Reswap"] = "innerHTML"
    return response


def reload() -> Response:
    """Make htmx reload the page, so that a change shows everywhere."""
    return Response(status_code=204, headers={"HX-Refresh": "true"})


def redirect(path: str, name: str = "") -> Response:
    """Make htmx open another page; `name` is appended to the path, URL-encoded."""
    return Response(status_code=204, headers={"HX-Redirect": path + quote(name)})
