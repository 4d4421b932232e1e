"""What a running call may say and ask, by the means of each protocol era."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from pvemcp_server.pipeline.decisions import Asking, Decision
from pvemcp_server.pipeline.sanitize import clean_line

PROGRESS_SECONDS: Final = 0.25  # the least time between two reports
ANSWER_SECONDS: Final = 300.0  # how long a person may think, in the eras where the call waits
QUESTION: Final = "confirm"
FORM: Final[types.ElicitRequestedSchema] = {
    "type": "object",
    "properties": {
        QUESTION: {
            "type": "boolean",
            "title": "Do it",
            "description": "Yes, go on",
            "default": False,
        }
    },
    "required": [QUESTION],
}

Context = ServerRequestContext[Any, Any]


class SdkConversation:
    """The conversation of one request."""

    def __init__(
        self,
        ctx: Context,
        params: types.InputResponseRequestParams,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ctx = ctx
        self._params = params
        self._clock = clock
        self._told = -1.0  # the progress last sent
        self._told_at = -PROGRESS_SECONDS

    @property
    def client(self) -> str:
        """Name and version of the client program, as it calls itself."""
        known = self._ctx.session.client_params
        return f"{known.client_info.name} {known.client_info.version}" if known else ""

    @property
    def wants_progress(self) -> bool:
        return bool(self._ctx.meta and self._ctx.meta.get("progress_token") is not None)

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Passed on when it is news, and not too soon after the last time."""
        now = self._clock()
        if done <= self._told or now - self._told_at < PROGRESS_SECONDS:
            return
        self._told, self._told_at = done, now
        await self._ctx.session.report_progress(done, total, clean_line(message))

    async def ask(self, question: str) -> Decision:
        """The person's decision; raises Asking when the call has to come again with it."""
        if not _can_fill_forms(self._ctx.session.client_capabilities):
            return Decision.CANNOT_ASK
        if self._ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return self._answered(question)
        return await self._wait_for_answer(question)

    def _answered(self, question: str) -> Decision:
        """The answer to exactly this question; what has changed since is asked anew."""
        state = hashlib.sha256(question.encode()).hexdigest()
        answer = (self._params.input_responses or {}).get(QUESTION)
        if isinstance(answer, types.ElicitResult) and self._params.request_state == state:
            return _decision(answer)
        form = types.ElicitRequestFormParams(message=question, requested_schema=FORM)
        requests: types.InputRequests = {QUESTION: types.ElicitRequest(params=form)}
        raise Asking(types.InputRequiredResult(input_requests=requests, request_state=state))

    async def _wait_for_answer(self, question: str) -> Decision:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return _decision(
                    await self._ctx.session.elicit_form(question, FORM, self._ctx.request_id)
                )
        except (MCPError, ValidationError, TimeoutError):
            # a refusal or a lost connection is no leave: whoever can be asked has to agree
            return Decision.NO_ANSWER


@dataclass(frozen=True)
class Silent:
    """The conversation of a call that nobody follows: it only looks up names."""

    client: str = ""
    wants_progress: bool = False

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Nobody is there to be told."""

    async def ask(self, _question: str) -> Decision:
        return Decision.CANNOT_ASK


def _decision(answer: types.ElicitResult) -> Decision:
    agreed = answer.action == "accept" and (answer.content or {}).get(QUESTION) is True
    return Decision.YES if agreed else Decision.NO


def _can_fill_forms(capabilities: types.ClientCapabilities | None) -> bool:
    elicitation = capabilities.elicitation if capabilities else None
    # before there were modes, an empty capability meant forms
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)
