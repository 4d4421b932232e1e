"""Page Overview: clusters, the endpoint's switch, calls, failures, notices."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from pvemcp_server.admin import audit, overview, settings
from pvemcp_server.web.session import Reading, RowNumber, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, entry_page, page, visible

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
    bars = await audit.calls_by_hour(context)
    return page(
        request,
        "overview.html",
        session,
        here="overview",
        enabled=(await context.services.settings.current()).enabled,
        notices=await overview.list_notices(context),
        waiting=len(await context.services.approvals.waiting()),
        bars=bars,
        most=max(bar.calls for bar in bars),
        calls=sum(bar.calls for bar in bars),
        failed=sum(bar.failed for bar in bars),
        failures=await audit.recent_failures(context),
    )


@router.get("/overview/clusters", dependencies=[may("overview.clusters")])
async def show_clusters(request: Request, session: SignedIn, context: Reading) -> Response:
    """Render the clusters after the page, so that a slow cluster does not delay it."""
    clusters = await overview.cluster_health(context)
    return page(request, "overview_clusters.html", session, clusters=clusters)


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
