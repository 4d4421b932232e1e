"""Templates, what they all know, and how values read on a page."""

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
    """How long ago, in the unit people would say."""
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
    """For a column that says UTC itself."""
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
    """The file's address with its content's mark, so that a new release is loaded at once."""
    mark = sha256((HERE / "static" / name).read_bytes()).hexdigest()[:8]
    return f"/admin/static/{name}?v={mark}"


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
    """A template as an answer; `session` is who looks at it."""
    known = {"session": session, "csrf": session.csrf if session else "", **values}
    return _templates.TemplateResponse(request, template, known, status_code=status)


def wants_page(request: Request) -> bool:
    """Whether a person's browser asks, not a program of the API."""
    return not request.url.path.startswith("/admin/api")


def wrong_page(request: Request, text: str, status: int) -> Response:
    """What went wrong, as a fragment for htmx or as a page of its own."""
    is_part = request.headers.get("HX-Request") == "true"
    response = page(
        request, "wrong_part.html" if is_part else "wrong.html", text=text, status=status
    )
    if is_part:
        # htmx leaves an error's body aside; a banner at the top shows it
        response.status_code = 200
        response.headers["HX-Retarget"] = "#wrong"
        response.headers["HX-Reswap"] = "innerHTML"
    return response


def reload() -> Response:
    """Has htmx load the page anew: what was changed shows everywhere."""
    return Response(status_code=204, headers={"HX-Refresh": "true"})


def lead_to(path: str, name: str = "") -> Response:
    """Has htmx go to another page; `name` is what it is about, escaped here."""
    return Response(status_code=204, headers={"HX-Redirect": path + quote(name)})
