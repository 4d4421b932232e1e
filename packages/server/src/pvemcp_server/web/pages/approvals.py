"""Page Approvals: calls that wait for an administrator, decisions of late, and the webhook."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response

from pvemcp_server.admin import approvals
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.web.session import Reading, RowNumber, SignedIn, Writing, may
from pvemcp_server.web.templates import Navigation, page, reload

router = APIRouter(prefix="/approvals")
navigation = Navigation(
    "Approvals",
    "/admin/approvals",
    operation="approvals.list",
    icon="M12 3l8 3v6c0 5-4 8-8 9-4-1-8-4-8-9V6zM8.5 12l2.5 2.5 4.5-5",
)


@router.get("", dependencies=[may("approvals.list")])
async def show(request: Request, session: SignedIn, context: Reading) -> Response:
    return page(
        request,
        "approvals.html",
        session,
        here="approvals",
        setting=(await context.services.settings.current()).unconfirmed_destructive,
        webhook=await context.services.approvals.webhook.configured(),
        **await _lists(context),
    )


@router.get("/lists", dependencies=[may("approvals.list")])
async def show_lists(request: Request, session: SignedIn, context: Reading) -> Response:
    return page(request, "approvals_lists.html", session, **await _lists(context))


@router.post("/{number}/approve", dependencies=[may("approvals.approve")])
async def approve(
    request: Request, session: SignedIn, context: Writing, number: RowNumber
) -> Response:
    await approvals.approve(context, number)
    return await show_lists(request, session, context)


@router.post("/{number}/decline", dependencies=[may("approvals.decline")])
async def decline(
    request: Request, session: SignedIn, context: Writing, number: RowNumber
) -> Response:
    await approvals.decline(context, number)
    return await show_lists(request, session, context)


@router.post("/webhook", dependencies=[may("approvals.webhook.set")])
async def set_webhook(
    request: Request, session: SignedIn, context: Writing, url: Annotated[str, Form()]
) -> Response:
    webhook = await approvals.set_webhook(context, approvals.WebhookFields(url=url.strip()))
    return page(request, "webhook_shown.html", session, webhook=webhook)


@router.post("/webhook/test", dependencies=[may("approvals.webhook.test")])
async def send_test(request: Request, session: SignedIn, context: Writing) -> Response:
    await approvals.send_test(context)
    return page(request, "webhook_tested.html", session)


@router.post("/webhook/remove", dependencies=[may("approvals.webhook.remove")])
async def remove_webhook(context: Writing) -> Response:
    await approvals.remove_webhook(context)
    return reload()


async def _lists(context: AdminContext) -> dict[str, Any]:
    listed = await approvals.list_approvals(context)
    return {
        "waiting": [each for each in listed if each.state == "waiting"],
        "ended": [each for each in listed if each.state != "waiting"],
        "minutes": approvals.MINUTES,
    }
