"""Approvals: what waits for an administrator, decisions, and the webhook that reports it."""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from pvemcp_server.access.fields import Argument, Fields
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Column, Command, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.approvals import APPROVED_LIFE
from pvemcp_server.audit import Event, Outcome
from pvemcp_server.errors import CallError, UnknownName, Unrecorded
from pvemcp_server.store.columns import CLOCK_SKEW, HIGHEST_ID, utc_now
from pvemcp_server.store.records import ApprovalRecord, ApprovalState, WebhookRecord

subject = Subject(
    "Approvals",
    {
        "approvals": "Approve or decline calls of clients that cannot ask their user.",
        "approvals webhook": "The URL that is notified when a call waits.",
    },
)
Number = Annotated[int, Field(ge=0, le=HIGHEST_ID, description="Number of the approval")]
MINUTES: Final = int(APPROVED_LIFE.total_seconds()) // 60


class Approval(BaseModel):
    """A call that waits for an administrator, or did.

    `client`, `plan` and `arguments` may contain text of the client and of guests: they are data.
    """

    number: int
    state: str = Field(description="waiting, approved, declined, used, expired or void")
    key: str
    client: str = Field(description="As the client program calls itself")
    tool: str
    cluster: str
    plan: list[str]
    arguments: dict[str, Any]
    created: datetime
    expires: datetime
    decided_by: str | None
    decided: datetime | None
    used: datetime | None = Field(description="When the client got the decision")


class WebhookFields(Fields):
    """The webhook to set."""

    url: Annotated[str, Argument()] = Field(description="URL that gets a POST for each new one")


class ShownWebhook(BaseModel):
    """The webhook without its secret, and without the rest of its URL, which may be one too."""

    receiver: str = Field(description="Scheme, host and port")
    created: datetime


class NewWebhook(ShownWebhook):
    """The webhook with the secret that signs its messages."""

    secret: str


@subject.operation(
    "approvals.list",
    Route("GET", "/approvals"),
    Command(
        "approvals list",
        columns=(
            *("number", "state", "key", "tool", "cluster"),
            *(Column("plan", " ".join), "created", "expires", "decided_by"),
        ),
    ),
    may=AUDITORS,
)
async def list_approvals(context: AdminContext) -> list[Approval]:
    """List the approvals that wait, the oldest first, then decided and expired ones."""
    approvals = context.services.approvals
    names = {key.id: key.name for key in await context.services.access.keys.callers()}
    records = [*await approvals.waiting(), *await approvals.ended()]
    return [_shown(record, names.get(record.key_id, record.key_id)) for record in records]


@subject.operation(
    "approvals.approve",
    Route("POST", "/approvals/{number}/approve"),
    Command(
        "approvals approve",
        text=f"Approved {{number}}: the client has {MINUTES} minutes to repeat the call.",
    ),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def approve(context: AdminContext, number: Number) -> Approval:
    """Approve exactly this plan; the client's next identical call carries it out, once."""
    return await _decide(context, number, Outcome.ACCEPTED)


@subject.operation(
    "approvals.decline",
    Route("POST", "/approvals/{number}/decline"),
    Command("approvals decline", text="Declined {number}."),
    may=OWNERS,
)
async def decline(context: AdminContext, number: Number) -> Approval:
    """Decline a call; the client's next identical call is refused."""
    return await _decide(context, number, Outcome.DECLINED)


@subject.operation(
    "approvals.webhook",
    Route("GET", "/approvals/webhook"),
    Command("approvals webhook show", text="{receiver}, since {created}"),
    may=AUDITORS,
)
async def get_webhook(context: AdminContext) -> ShownWebhook:
    """Return the webhook, without its secret."""
    return _shown_webhook(await _webhook(context))


@subject.operation(
    "approvals.webhook.set",
    Route("PUT", "/approvals/webhook"),
    Command("approvals webhook set", text="Secret of the signatures, shown only now: {secret}"),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def set_webhook(context: AdminContext, new: WebhookFields) -> NewWebhook:
    """Set the URL that is notified; the secret of its signatures is in this answer only."""
    webhook, secret = await context.services.approvals.webhook.configure(new.url)
    await context.changed("approvals.webhook.set", receiver=webhook.receiver)
    return NewWebhook(**_shown_webhook(webhook).model_dump(), secret=secret)


@subject.operation(
    "approvals.webhook.test",
    Route("POST", "/approvals/webhook/test"),
    Command("approvals webhook test", text="{receiver} has accepted the message."),
    may=OWNERS,
)
async def send_test(context: AdminContext) -> ShownWebhook:
    """Send one signed message with the event `test`; raise CallError if it is not accepted."""
    webhook, approvals = await _webhook(context), context.services.approvals
    await context.recorded("approvals.webhook.test", receiver=webhook.receiver)
    await approvals.webhook.post(webhook, {"event": "test", "url": approvals.page})
    return _shown_webhook(webhook)


@subject.operation(
    "approvals.webhook.remove",
    Route("DELETE", "/approvals/webhook"),
    Command("approvals webhook remove", text="Removed the webhook."),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def remove_webhook(context: AdminContext) -> None:
    """Remove the webhook with its secret."""
    webhook = await _webhook(context)
    await context.services.store.webhooks.remove(webhook.id)
    await context.changed("approvals.webhook.remove", receiver=webhook.receiver)


async def _decide(context: AdminContext, number: int, outcome: Outcome) -> Approval:
    """Decide, and record it like a user's answer to a confirmation."""
    services = context.services
    is_approved = outcome is Outcome.ACCEPTED
    record = await services.approvals.decide(number, context.by, approve=is_approved)
    if record is None:
        waiting = await services.approvals.waiting()
        raise UnknownName(
            "approval",
            number,
            [each.id for each in waiting],
            where="waits",
            blind="It was decided, has expired, or its call has changed.",
        )
    key = await services.access.keys.caller(record.key_id)
    try:
        await services.audit.decision(_event(context, record, key.name, outcome))
    except Unrecorded:
        await services.approvals.withdraw(number)
        raise
    return _shown(record, key.name)


def _event(context: AdminContext, record: ApprovalRecord, key: str, outcome: Outcome) -> Event:
    return Event(
        tool=record.tool,
        key_id=record.key_id,
        key_name=key,
        address=context.address,
        client=record.client,
        acting=context.by,
        cluster=record.cluster,
        arguments=record.arguments,
        outcome=outcome,
        reason=f"Approval {record.id}: {' '.join(record.plan)}",
    )


async def _webhook(context: AdminContext) -> WebhookRecord:
    webhook = await context.services.approvals.webhook.configured()
    if webhook is None:
        raise CallError("There is no webhook.", hint="Set its URL first.")
    return webhook


def _shown_webhook(webhook: WebhookRecord) -> ShownWebhook:
    return ShownWebhook(receiver=webhook.receiver, created=webhook.created)


def _shown(record: ApprovalRecord, key: str) -> Approval:
    return Approval(
        number=record.id,
        state=_state(record),
        key=key,
        client=record.client,
        tool=record.tool,
        cluster=record.cluster,
        plan=record.plan,
        arguments=record.arguments,
        created=record.created,
        expires=record.expires,
        decided_by=record.decided_by,
        decided=record.decided,
        used=record.answered,
    )


def _state(record: ApprovalRecord) -> str:
    """Return the state with what follows from the time and from the client's next call."""
    if record.state is ApprovalState.APPROVED and record.answered:
        return "used"
    is_open = record.state in (ApprovalState.WAITING, ApprovalState.APPROVED)
    now, begun = utc_now(), record.decided or record.created
    has_time = record.expires > now and begun < now + CLOCK_SKEW
    return "expired" if is_open and not has_time else record.state.value
