"""Approvals: asked for by a call, decided by an administrator, used by the next identical call."""

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from pydantic import SecretBytes, SecretStr

from pvemcp_server.access.model import Caller
from pvemcp_server.approvals.webhook import Webhook
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import ApprovalRecord, ApprovalState

WAITING_LIFE: Final = timedelta(hours=1)  # for the decision; a refusal is reported as long
APPROVED_LIFE: Final = timedelta(minutes=15)  # for the client to repeat the call
ENDED_SHOWN: Final = 50
PAGE: Final = "/admin/approvals"
TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class PlannedCall:
    """A call whose plan needs consent.

    `arguments` are those of the tool, validated; options such as `format` change no plan.
    Administrators see the shown forms: secrets masked, texts visible.
    """

    caller: Caller
    client: str
    tool: str
    cluster: str
    arguments: Mapping[str, Any] = field(repr=False)
    plan: tuple[str, ...] = field(repr=False)  # its sentences
    shown_arguments: Mapping[str, Any]
    shown_plan: tuple[str, ...]
    digest: str = ""  # of the configuration that the plan was made from
    beside: str = ""  # facts that are shown with the plan, and may change
    requested: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The arguments as the client gave them: a query, where `arguments` has its guests."""

    @property
    def shown(self) -> tuple[str, ...]:
        """What an administrator reads: the plan, and the facts beside it."""
        return (*self.shown_plan, *filter(None, [self.beside]))

    @cached_property
    def identity(self) -> str:
        """What makes two calls identical: key, tool, cluster and arguments."""
        return _text(self.caller.key_id, self.tool, self.cluster, dict(self.arguments))

    @property
    def request(self) -> str:
        """What makes a call the one of a dry run: the same client asks for the same."""
        return _text(self.caller.key_id, self.caller.acting, self.tool, dict(self.requested))

    @property
    def shown_in_dry_run(self) -> str:
        """The plan as a dry run shows it, with the cluster that it is for."""
        return _text(self.cluster, *self.plan)

    @cached_property
    def planned(self) -> str:
        """What an administrator decides: the sentences, under the caller's present rights.

        Made from another configuration, the same sentences are another plan.
        """
        rights = (self.caller.version, self.caller.digest.hex())
        return _text(*self.plan, *rights, *filter(None, [self.digest]))


class Approvals:
    """The approvals of all keys; every process sees the same ones."""

    def __init__(
        self, store: Store, base_url: str, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.page = f"{base_url}{PAGE}"
        self.webhook = Webhook(store)
        self._approvals = store.approvals
        self._vault = store.vault
        self._clock = clock

    async def use(self, call: PlannedCall) -> ApprovalRecord | None:
        """Use up the approval of exactly this call and plan; None when there is none."""
        return await self._approvals.answer(
            ApprovalState.APPROVED,
            now=self._clock(),
            key_id=call.caller.key_id,
            call_digest=self._digest(call.identity),
            plan_digest=self._digest(call.planned),
        )

    async def use_refusal(self, call: PlannedCall) -> ApprovalRecord | None:
        """Use up an administrator's refusal of this call, whatever its plan is by now."""
        return await self._approvals.answer(
            ApprovalState.DECLINED,
            now=self._clock(),
            key_id=call.caller.key_id,
            call_digest=self._digest(call.identity),
        )

    async def ask(self, call: PlannedCall) -> tuple[ApprovalRecord, bool] | None:
        """Return the open approval of this call and plan, and whether it is new.

        Return None when the most calls of the key, or of its user, wait already.
        """
        now = self._clock()
        return await self._approvals.ask(
            call.caller.holder,
            now=now,
            expires=now + WAITING_LIFE,
            key_id=call.caller.key_id,
            client=call.client,
            tool=call.tool,
            cluster=call.cluster,
            arguments=dict(call.shown_arguments),
            plan=list(call.shown),
            call_digest=self._digest(call.identity),
            plan_digest=self._digest(call.planned),
        )

    async def why_not(self, call: PlannedCall) -> str:
        """Return why the last approval of this call does not count; empty if there is none.

        One for another key is not named: a key learns nothing of the calls of others.
        """
        given = await self._approvals.given(call.tool, call.cluster, ENDED_SHOWN)
        for approval in given:
            if approval.call_digest == self._digest(call.identity):
                return f"Approval {approval.id} does not count: {self._fault(approval, call)}."
        return ""

    def _fault(self, approval: ApprovalRecord, call: PlannedCall) -> str:
        if approval.answered is not None:
            return f"it was used at {approval.answered:{TIME}}, and each counts once"
        if approval.state is ApprovalState.APPROVED and approval.expires <= self._clock():
            return f"it expired at {approval.expires:{TIME}}"
        if tuple(approval.plan[: len(call.shown_plan)]) != call.shown_plan:
            return "the plan has changed since"
        return "the configuration, or the key, its role or the cluster, has changed since"

    async def others(self, call: PlannedCall) -> list[ApprovalRecord]:
        """Return the approvals that wait on the same cluster, without those of this very call."""
        own = self._digest(call.identity)
        waiting = await self.waiting()
        return [a for a in waiting if a.cluster == call.cluster and a.call_digest != own]

    def notify(self, approval: ApprovalRecord, call: PlannedCall) -> None:
        """Notify the webhook of a new approval, in the background; there may be none."""
        self.webhook.send(
            {
                "event": "approval.requested",
                "number": approval.id,
                "key": call.caller.key_name,
                "tool": approval.tool,
                "cluster": approval.cluster,
                "plan": approval.plan,
                "expires_at": approval.expires.isoformat(timespec="seconds"),
                "url": f"{self.page}#approval-{approval.id}",
            }
        )

    async def decide(self, number: int, by: str, *, approve: bool) -> ApprovalRecord | None:
        """Decide a waiting approval; return None when it does not wait, or not any more."""
        now = self._clock()
        return await self._approvals.decide(
            number,
            ApprovalState.APPROVED if approve else ApprovalState.DECLINED,
            by=by,
            now=now,
            expires=now + (APPROVED_LIFE if approve else WAITING_LIFE),
        )

    async def withdraw(self, number: int) -> None:
        """Make an approval void, because the audit could not record it."""
        await self._approvals.change(number, state=ApprovalState.VOID)

    async def waiting(self) -> list[ApprovalRecord]:
        """Return the approvals that wait for a decision, the oldest first."""
        return await self._approvals.waiting(self._clock())

    async def ended(self) -> list[ApprovalRecord]:
        """Return the last approvals that do not wait any more, the newest first."""
        return await self._approvals.ended(self._clock(), ENDED_SHOWN)

    def _digest(self, text: str) -> str:
        key = self._vault.derive("approvals")
        return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def _text(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold; two secrets that differ stay different."""
    if isinstance(value, SecretStr | SecretBytes):
        return str(value.get_secret_value())
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)
