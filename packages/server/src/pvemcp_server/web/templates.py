"""Jinja templates: their filters and globals, and the responses made from them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from pvemcp_server import __version__
from pvemcp_server.access.sessions import Session
from pvemcp_server.admin.operation import operations
from pvemcp_server.admin.permission import RoleAuthority
from pvemcp_server.errors import counted
from pvemcp_server.program_name import this_command
from pvemcp_server.web.figures import bytes_text
from pvemcp_server.web.static_files import static_url

HERE: Final = Path(__file__).parent


class Navigation(NamedTuple):
    """An entry of the navigation, for those who may run the `operation` that the page shows.

    `icon` is the path of an SVG drawing of 24 by 24 units.
    """

    title: str
    path: str
    operation: str
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


def _span(seconds: int) -> str:
    """Format a span of time in its largest whole unit: 5 minutes."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds % size == 0:
            return counted(seconds // size, unit)
    return counted(seconds, "second")


def _axis(most: int) -> int:
    """Return the end of an axis that reaches `most`: a round number with a whole half."""
    power = 1
    while True:
        for tenths in (10, 15, 20, 30, 40, 50, 60, 80):
            end, rest = divmod(tenths * power, 10)
            if end >= most and not rest and end % 2 == 0:
                return end
        power *= 10


def _isolated(text: str) -> str:
    """Return a text for a place without tags, in which its direction stays its own."""
    return text if text.isascii() else f"\u2068{text}\u2069"


def _command() -> str:
    """Return this command as its users type it, without the folders of an absolute path.

    Strangers read the sign-in page.
    """
    path = Path(this_command())
    return path.name if path.is_absolute() else str(path)


_environment = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "age": _age,
    "counted": counted,
    "time": _time,
    "moment": _moment,
    "number": _number,
    "isolated": _isolated,
    "bytes": bytes_text,
    "axis": _axis,
    "span": _span,
    "seconds": lambda count: timedelta(seconds=count),
}
_environment.globals |= {
    "static": static_url,
    "navigation": NAVIGATION,
    "version": __version__,
    "command": _command(),
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

    A template asks `may("keys.create")` before it shows what runs an operation. `due` hides the
    navigation while the administrator may use one page only. Each link and form action begins with
    `root`, the path of the public URL.
    """
    context = {
        "session": session,
        "csrf": session.csrf if session else "",
        "may": partial(visible, session),
        "due": False,
        **values,
        "root": request.state.site.services.config.path_prefix,
    }
    return _templates.TemplateResponse(request, template, context, status_code=status)


def endpoint_of(request: Request) -> str:
    """Return the endpoint's URL as the visitor reaches it: by the public URL, or else by Host."""
    return f"{request.state.base_url}/mcp"


def visible(session: Session | None, operation: str) -> bool:
    """Return whether the role of the session's administrator permits the operation."""
    permission = operations()[operation].permission
    return session is not None and RoleAuthority(session.admin.role).permits(permission)


def entry_page(session: Session) -> str:
    """Return the first page of the navigation that shows something to the administrator."""
    return next(
        (each.path for each in NAVIGATION.values() if visible(session, each.operation)),
        "/admin/account",
    )


def wants_page(request: Request) -> bool:
    """Decide whether to answer with a page; requests of the REST API get JSON."""
    return not request.url.path.startswith("/admin/api")


def is_part(request: Request) -> bool:
    """Return whether htmx asks for a part of a page."""
    return request.headers.get("HX-Request") == "true"


def error_page(
    request: Request, text: str, status: int, wrong: Iterable[tuple[str, str]] = ()
) -> Response:
    """Render an error as a fragment for htmx or as a page.

    `wrong` has the names of the form's fields that the error is about, each with what is wrong.
    """
    part = is_part(request)
    name = "error_part.html" if part else "error.html"
    response = page(request, name, text=text, status=status, wrong=list(wrong))
    if part:
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
