"""Page Overview: clusters, the endpoint's switch, calls, failures, notices."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.admin import overview, settings
from pvemcp_server.web.live import LiveOverview
from pvemcp_server.web.session import Reading, RowNumber, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, endpoint_of, entry_page, page, visible

router = APIRouter()
navigation = Navigation(
    "Overview",
    "/admin/",
    operation="overview.calls",
    icon="M4 4h7v7H4zM15 4h5v7h-5zM4 15h7v5H4zM15 15h5v5h-5z",
)


@router.get("/")
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    if not visible(session, navigation.operation):
        return RedirectResponse(entry_page(session), 303)
    facts = await _live(request).facts(context, fresh=True)
    return page(
        request,
        "overview.html",
        session,
        here="overview",
        endpoint=endpoint_of(request),
        **facts.values(),
    )


@router.get("/overview/events", dependencies=[may("overview.calls")])
async def events(request: Request, session: SignedIn, context: Reading) -> Response:
    """Stream the parts of the page whenever they change."""
    del context  # the stream checks the session at each look
    return _live(request).response(request, session)


@router.get("/overview/clusters", dependencies=[may("overview.clusters")])
async def show_clusters(request: Request, session: SignedIn, context: Reading) -> Response:
    """Render the clusters after the page, so that a slow cluster does not delay it."""
    clusters = await _live(request).clusters(context)
    return page(request, "overview_clusters.html", session, clusters=clusters)


@router.get("/overview/clusters/{name}", dependencies=[may("overview.cluster")])
async def show_cluster(
    request: Request, session: SignedIn, context: Reading, name: str
) -> Response:
    use = await overview.cluster_use(context, name)
    return page(request, "overview_cluster.html", session, here="overview", use=use)


@router.post("/overview/endpoint", dependencies=[may("settings.change")])
async def switch(request: Request, session: SignedIn, context: Writing) -> Response:
    form = await request.form()
    enabled = form.get("enabled") == "true"
    await settings.change_settings(context, {"enabled": enabled})
    return page(request, "endpoint_switch.html", session, enabled=enabled)


@router.post("/overview/notices/{notice}/dismiss", dependencies=[may("notices.dismiss")])
async def dismiss(context: Writing, notice: RowNumber) -> Response:
    await overview.dismiss_notice(context, notice)
    return Response()


def _live(request: Request) -> LiveOverview:
    live: LiveOverview = request.state.site.live
    return live
