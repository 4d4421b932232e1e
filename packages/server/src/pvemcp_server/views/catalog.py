"""The views of MCP Apps: each is one HTML file without external requests.

A client that announces the extension finds a view's URI at its tools, reads the file once, and
shows it in a sandbox with the tool's answer. What a view reads again is a call like any other.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

EXTENSION: Final = "io.modelcontextprotocol/ui"
MIME_TYPE: Final = "text/html;profile=mcp-app"
_FILES: Final = files(__package__) / "files"


@dataclass(frozen=True)
class View:
    """A view: `scripts` and `styles` are its files beside those that all views have."""

    name: str
    title: str
    scripts: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        return f"ui://{self.name}"

    @property
    def html(self) -> str:
        """The whole page; no file of a view has `</script` or `</style`."""
        return _page(self)


_LINES: Final = ("uplot.min.js", "lines.js")
_LINE_STYLES: Final = ("uplot.min.css", "lines.css")
VIEWS: Final[Mapping[str, View]] = {
    view.name: view
    for view in (
        View("attention", "What needs attention", ("attention.js",), ("attention.css",)),
        View("guest", "Guest", (*_LINES, "guest.js"), (*_LINE_STYLES, "guest.css")),
        View("inventory", "Guests", ("inventory.js",), ("inventory.css",)),
        View("metrics", "Metrics", (*_LINES, "metrics.js"), _LINE_STYLES),
        View("plan", "Plan", ("plan.js",), ("plan.css",)),
        View("topology", "Cluster", ("topology.js",), ("topology.css",)),
    )
}


@cache
def _page(view: View) -> str:
    script = "\n".join(_read(name) for name in ("core.js", *view.scripts))
    style = "\n".join(_read(name) for name in ("core.css", *view.styles))
    script = f'"use strict";\n{script}\n'
    page = _read("view.html").replace("{title}", view.title).replace("{style}", style)
    return page.replace("{script_hash}", _source(script)).replace("{script}", script)


def _source(script: str) -> str:
    """Return the source expression of a Content-Security-Policy that allows only this script."""
    return f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}"


def _read(name: str) -> str:
    return (_FILES / name).read_text("utf-8").strip()


def find_view(uri: str) -> View | None:
    """Return the view of a URI; None for any other URI."""
    return next((view for view in VIEWS.values() if view.uri == uri), None)
