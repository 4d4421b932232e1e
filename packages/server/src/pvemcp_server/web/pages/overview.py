"""The first page: how things stand."""

from fastapi import APIRouter, Request, Response

from pvemcp_server.web.administration import overview, settings
from pvemcp_server.web.session import Reading, RowNumber, SignedIn, Writing
from pvemcp_server.web.templates import page

router = APIRouter()


@router.get("/")
async def show(request: Request, session: SignedIn, acting: Reading) -> Response:
    bars = await overview.calls_by_hour(acting)
    return page(
        request,
        "overview.html",
        session,
        here="overview",
        enabled=(await acting.services.settings.current()).enabled,
        notices=await overview.notices(acting),
        bars=bars,
        most=max(bar.calls for bar in bars),
        calls=sum(bar.calls for bar in bars),
        failed=sum(bar.failed for bar in bars),
        failures=await overview.recent_failures(acting),
    )


@router.get("/overview/clusters")
async def show_clusters(request: Request, session: SignedIn, acting: Reading) -> Response:
    """Asked for by the page once it stands: a silent cluster must not hold it up."""
    found = await overview.health(acting)
    return page(request, "overview_clusters.html", session, clusters=found)


@router.post("/overview/endpoint")
async def switch(request: Request, session: SignedIn, acting: Writing) -> Response:
    form = await request.form()
    enabled = form.get("enabled") == "true"
    await settings.change_settings(acting, {"enabled": enabled})
    return page(request, "endpoint_switch.html", session, enabled=enabled)


@router.post("/overview/notices/{notice}/dismiss")
async def dismiss(acting: Writing, notice: RowNumber) -> Response:
    await overview.dismiss(acting, notice)
    return Response()
