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

    @cached_property
    def identity(self) -> str:
        """What makes two calls identical: key, tool, cluster and arguments."""
        return _text(self.caller.key_id, self.tool, self.cluster, dict(self.arguments))

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
            plan=list(call.shown_plan),
            call_digest=self._digest(call.identity),
            plan_digest=self._digest(call.planned),
        )

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
