"""Plans that dry runs have shown: the call after one carries out that plan, or is refused."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from pvemcp_server.approvals import TIME, PlannedCall
from pvemcp_server.errors import Precondition
from pvemcp_server.pipeline.answers import clean_line
from pvemcp_server.pipeline.confirmation import QUESTION_CHARACTERS
from pvemcp_server.store.shown_plan_repository import ShownPlanRepository


@dataclass(frozen=True, slots=True)
class ShownPlans:
    """The plans shown to all clients, for all processes; only keyed digests of them are kept."""

    repository: ShownPlanRepository
    key: Callable[[], bytes]

    async def keep(self, call: PlannedCall) -> None:
        """Keep the plan that a call was shown."""
        await self.repository.keep(
            self._digest(call.request),
            call.caller.key_id,
            plan_digest=self._digest(call.shown_in_dry_run),
            config_digest=self._digest(call.digest),
        )

    async def require_same(self, call: PlannedCall) -> None:
        """Raise Precondition if a dry run of this call has shown another plan.

        What was shown counts for one call: what that changes makes the next plan another one. The
        error shows the present plan, which the next identical call is held to.
        """
        shown = await self.repository.take(self._digest(call.request))
        if shown is None:
            return
        if shown.plan_digest != self._digest(call.shown_in_dry_run):
            changed = "The plan"
        elif shown.config_digest != self._digest(call.digest):
            changed = "The configuration"
        else:
            return
        await self.keep(call)
        plan = clean_line(" ".join(call.shown_plan), QUESTION_CHARACTERS)
        raise Precondition(
            f"{changed} has changed since the dry run of {shown.shown:{TIME}}; nothing was sent. "
            f"It would now: {plan}",
            hint="Repeat the identical call to carry that out.",
        )

    def _digest(self, text: str) -> str:
        return hmac.digest(self.key(), text.encode("utf-8", "surrogatepass"), "sha256").hex()
