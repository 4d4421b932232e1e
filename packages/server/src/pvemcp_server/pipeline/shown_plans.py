"""Plans that dry runs have shown: the call after one carries out that plan, or is refused."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pvemcp_server.approvals import TIME, PlannedCall
from pvemcp_server.errors import Precondition
from pvemcp_server.pipeline.answers import clean_line
from pvemcp_server.store.shown_plan_repository import ShownPlanRepository

PLAN_CHARACTERS: Final = 3_000  # of the present plan in an error


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

        A plan that was shown counts for one call, which changes what the next one would do. The
        error shows the present plan, and the next identical call is held to that.
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
        plan = " ".join(call.shown_plan)
        whole = "dry_run shows it whole. " if len(plan) > PLAN_CHARACTERS else ""
        raise Precondition(
            f"{changed} has changed since the dry run of {shown.shown:{TIME}}; nothing was sent. "
            f"It would now: {clean_line(plan, PLAN_CHARACTERS)}",
            hint=f"{whole}Repeat the identical call to carry that out.",
        )

    def _digest(self, text: str) -> str:
        return hmac.digest(self.key(), text.encode("utf-8", "surrogatepass"), "sha256").hex()
