"""Confirmation of calls that lose data: by the user, or an administrator if no client can ask."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from pvemcp_server.approvals import TIME, Approvals, PlannedCall
from pvemcp_server.audit import Outcome
from pvemcp_server.errors import ApprovalNeeded, ConfirmationNeeded, Unrecorded
from pvemcp_server.pipeline.answers import clean_line
from pvemcp_server.settings import Values
from pvemcp_server.store.records import ApprovalRecord
from pvemcp_server.toolkit.call import Conversation, Decision
from pvemcp_server.toolkit.plan import lines

if TYPE_CHECKING:
    from mcp_types import InputRequiredResult

QUESTION_CHARACTERS: Final = 1_000
SENTENCE_CHARACTERS: Final = 600  # of a piece of a sentence in a question
BOX: Final = "Do it"  # title of the field that has to be ticked for consent
RecordDecision = Callable[[Outcome, str], Awaitable[None]]
Approve = Callable[[], Awaitable[None]]
_OUTCOMES: Final = {
    Decision.YES: Outcome.ACCEPTED,
    Decision.OUTDATED: Outcome.ACCEPTED,
    Decision.NO: Outcome.DECLINED,
    Decision.NOT_TICKED: Outcome.DECLINED,
    Decision.DISMISSED: Outcome.NO_ANSWER,
    Decision.NO_ANSWER: Outcome.NO_ANSWER,
}
_UNATTENDED: Final = "Without a user"  # the field `unattended` on the page of the key
_NO_CONSENT: Final[Mapping[Decision, tuple[str, str]]] = {
    Decision.NO: ("The user declined", ""),
    Decision.OUTDATED: (
        "The configuration was changed after the user was asked, so the consent does not count",
        "Repeat the call: it is planned and asked again from the present configuration.",
    ),
    Decision.NOT_TICKED: (
        f"The user accepted the question without ticking {BOX!r}, which is no consent",
        f"Repeat the call to ask again: it takes the tick at {BOX!r} and Accept.",
    ),
    Decision.DISMISSED: (
        "The question was dismissed without a decision",
        (
            "Repeat the call to ask again. A client that runs without a user dismisses every "
            f"question: an administrator decides for its key by '{_UNATTENDED}'."
        ),
    ),
    Decision.NO_ANSWER: (
        "The client was asked for the user's consent and gave no decision",
        "Repeat the call to ask again.",
    ),
}
"""Decisions that are no consent, as a fact, and the next step."""
_WHOLE: Final = 200_000  # characters; no sentence is longer
_SETTING: Final = Values.model_fields["unconfirmed_destructive"].title


class InputRequired(Exception):
    """A question is this call's result (2026-07-28): the call is repeated with the answer."""

    def __init__(self, result: "InputRequiredResult") -> None:
        super().__init__("the call has to be repeated with the user's answer")
        self.result = result


class Agreed(Exception):
    """The user has agreed after some time: the call is planned again, and asks no second time.

    It does ask if its question is another one by then.
    """


@dataclass(frozen=True, slots=True)
class Unattended:
    """The conversation with a client that runs without a user: it is never asked for consent.

    Such a client may say that it can ask, and then answer every question by itself.
    """

    conversation: Conversation

    @property
    def client(self) -> str:
        return self.conversation.client

    @property
    def wants_progress(self) -> bool:
        return self.conversation.wants_progress

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Report progress, as to every client."""
        await self.conversation.progress(done, total, message)

    async def ask(self, _question: str, _beside: str = "", _digest: str = "") -> Decision:
        """Return CANNOT_ASK: there is no user."""
        return Decision.CANNOT_ASK


def always_asking(settings: Values) -> Values:
    """Return the settings for a guarded tool: none lets it run without consent or approval."""
    stricter = {
        "confirm_destructive": {"allow": "ask"},
        "unconfirmed_destructive": {"allow": "approve"},
    }
    return settings.model_copy(
        update={
            name: instead.get(getattr(settings, name), getattr(settings, name))
            for name, instead in stricter.items()
        }
    )


def question_of(sentences: Iterable[str]) -> str:
    """Return the question about a plan; of a long word, such as a URL, the beginning.

    The first sentence holds the arguments: a long one must push out neither the others nor what
    follows, which is what is lost or disclosed.
    """
    whole = (clean_line(each, _WHOLE) for each in sentences)
    return " ".join(_shortened(line) for each in whole for line in lines(each))


def _shortened(text: str) -> str:
    more = len(text) - SENTENCE_CHARACTERS
    return text if more <= 0 else f"{text[:SENTENCE_CHARACTERS]}… ({more} more characters)"


async def confirm(
    conversation: Conversation,
    question: str,
    settings: Values,
    record: RecordDecision,
    approve: Approve,
    beside: str = "",
    digest: str = "",
) -> None:
    """Return when the call may go on; raise ConfirmationNeeded otherwise, or InputRequired.

    `beside` are facts that are shown with the question and may change until the answer; a consent
    for a plan from a configuration with another `digest` is none.
    `record` stores the answer of a user who was asked; if it cannot, the call is refused.
    A client that could ask but gave no decision counts as a refusal: only a client that cannot
    ask at all leaves the decision to the setting `unconfirmed_destructive`, and with it to
    `approve`, which raises unless an administrator has approved the call.
    """
    if settings.confirm_destructive == "allow":
        return
    if settings.confirm_destructive == "deny":
        raise ConfirmationNeeded(
            "Calls that need the user's consent are switched off here; nothing was changed.",
            hint="An administrator can allow them: setting 'Destructive calls'.",
        )
    decision = await conversation.ask(question, beside, digest)
    if decision in _OUTCOMES:
        await record(_OUTCOMES[decision], " ".join(filter(None, (question, beside))))
    if decision in _NO_CONSENT:
        fact, hint = _NO_CONSENT[decision]
        raise ConfirmationNeeded(f"{fact}; nothing was changed.", hint=hint)
    match decision:
        case Decision.CANNOT_ASK if settings.unconfirmed_destructive == "approve":
            await approve()
        case Decision.CANNOT_ASK if settings.unconfirmed_destructive == "deny":
            raise ConfirmationNeeded(
                f"This needs the user's consent, and this client cannot ask for it: {question} "
                "Nothing was changed.",
                hint="Use a client with MCP elicitation, or have an administrator allow it by the "
                f"setting '{_SETTING}', or for this key by '{_UNATTENDED}'.",
            )


async def require_approval(approvals: Approvals, call: PlannedCall, record: RecordDecision) -> None:
    """Return when an administrator has approved exactly this plan; raise ApprovalNeeded otherwise.

    The approval is used up, whatever becomes of the call. `record` stores its use and each new
    request; if it cannot, the call is refused.
    """
    plan = clean_line(" ".join(call.shown), QUESTION_CHARACTERS)
    if approved := await approvals.use(call):
        by = f"Approval {approved.id}, given by {approved.decided_by}, was used"
        await record(Outcome.USED, f"{by}: {plan}")
        return
    if declined := await approvals.use_refusal(call):
        raise ConfirmationNeeded(
            f"Declined by an administrator (approval number {declined.id}); nothing was changed.",
            hint="The same call would ask for another approval: repeat it only if the user wants "
            "that.",
        )
    why_not = await approvals.why_not(call)
    with anyio.CancelScope(shield=True):  # what waits is recorded, also if the client has gone
        approval = await _request(approvals, call, partial(record, Outcome.WAITING))
    raise ApprovalNeeded(
        f"Nothing was done yet: this call is waiting for approval, number {approval.id}. "
        f"{why_not}{' ' if why_not else ''}It would: {plan} "
        f"It waits until {approval.expires:{TIME}}.",
        hint=f"Ask an administrator to approve number {approval.id} on the Approvals page "
        f"({approvals.page}), then repeat the identical call.",
    )


async def _request(
    approvals: Approvals, call: PlannedCall, record: Callable[[str], Awaitable[None]]
) -> ApprovalRecord:
    """Return the approval that the call waits for; record and report a new one."""
    request = await approvals.ask(call)
    if request is None:
        raise ConfirmationNeeded(
            "This needs an administrator's approval, and too many calls of this key wait for one "
            "already; nothing was changed.",
            hint="Ask an administrator to decide those first.",
        )
    approval, is_new = request
    if is_new:
        try:
            await record(f"Approval {approval.id}: {' '.join(call.shown)}")
        except Unrecorded:
            await approvals.withdraw(approval.id)
            raise
        approvals.notify(approval, call)
    return approval
