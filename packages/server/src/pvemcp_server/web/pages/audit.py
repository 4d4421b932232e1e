"""Page Audit: every call and change, live, filtered, exported, verified."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from pvemcp_server.admin import audit, clusters, connections, keys
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.errors import UnknownName
from pvemcp_server.web.audited import audited
from pvemcp_server.web.session import Reading, RowNumber, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, page

router = APIRouter(prefix="/audit")
navigation = Navigation(
    "Audit",
    "/admin/audit",
    operation="audit.list",
    icon="M9 6h11M9 12h11M9 18h11M4 6h.01M4 12h.01M4 18h.01",
)
PAGE = 50


class SearchForm(audit.SearchPage):
    """The search of the form, which also sends its empty fields."""

    @classmethod
    def of(cls, request: Request) -> "SearchForm":
        """Read the query string; empty fields count as absent."""
        values = {name: value for name, value in request.query_params.items() if value}
        return cls.model_validate(values)

    @property
    def query_string(self) -> str:
        """The search as the query of a URL."""
        return urlencode(self.model_dump(mode="json", exclude_none=True, exclude={"limit"}))


RANGES = {"": "All", "1h": "Last hour", "24h": "Last day", "7d": "Last week"}


@router.get("", dependencies=[may("audit.list")])
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    search = SearchForm.of(request)
    return page(
        request,
        "audit.html",
        session,
        here="audit",
        search=search,
        ranges=RANGES,
        since=request.query_params.get("since", ""),
        filters=_filters(search),
        chart=await audit.chart(context, search),
        **await _entries(request, context, search),
        forwarding=await audit.forwarding(context),
        keys=await keys.list_keys(context),
        connections=await connections.known_connections(context),
        clusters=[cluster.name for cluster in await clusters.list_clusters(context)],
    )


@router.get("/entries", dependencies=[may("audit.list")])
async def entries(request: Request, session: SignedIn, context: Reading) -> Response:
    """Render the table alone; a live page polls it."""
    search = SearchForm.of(request)
    values = await _entries(request, context, search)
    return page(request, "audit_entries.html", session, search=search, **values)


@router.get("/chart", dependencies=[may("audit.chart")])
async def show_chart(request: Request, session: SignedIn, context: Reading) -> Response:
    """Render the chart alone; a live page polls it, less often than the table."""
    chart = await audit.chart(context, SearchForm.of(request))
    return page(request, "audit_chart.html", session, chart=chart, link=_link(request))


@router.get("/entries/{seq}", dependencies=[may("audit.list")])
async def entry(request: Request, session: SignedIn, context: Reading, seq: RowNumber) -> Response:
    entries = await audit.find_entries(context, audit.SearchPage(before=seq + 1, limit=1))
    if not entries:
        raise UnknownName("entry", seq, [])
    return page(request, "audit_entry.html", session, entry=entries[0])


@router.post("/verify", dependencies=[may("audit.verify")])
async def verify(request: Request, session: SignedIn, context: Writing) -> Response:
    return page(request, "audit_verified.html", session, verified=await audit.verify(context))


async def _entries(request: Request, context: AdminContext, search: SearchForm) -> dict[str, Any]:
    entries = await audit.find_entries(context, search.model_copy(update={"limit": PAGE}))
    shown = {"entries": entries, "older": "", "link": _link(request)}
    shown["audited"] = await audited(context.services.clusters, entries)
    if entries:
        older = search.model_copy(update={"before": entries[-1].seq, "limit": 1})
        has_older = await audit.find_entries(context, older)
        shown["older"] = older.query_string if has_older else ""
    return shown


def _link(request: Request) -> Callable[..., str]:
    """Return how a link changes the search of this page: a value of "" removes a condition.

    A range as `24h` stays one, so that a page that is kept open goes on with the present.
    """
    present = {name: value for name, value in request.query_params.items() if name != "before"}

    def link(**changes: Any) -> str:
        values = {**present, **changes}
        return urlencode({name: value for name, value in values.items() if value not in ("", None)})

    return link


def _filters(search: SearchForm) -> dict[str, str]:
    """Return the conditions that apply, in words, without the time."""
    values = search.model_dump(exclude_none=True, exclude={"limit", "before", "since", "until"})
    return {name: str(value) for name, value in values.items()}
