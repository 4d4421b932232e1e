"""MCP elicitation and progress: a running call's conversation with its client, in each era."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from pvemcp_server.mcp.question_ids import new_id
from pvemcp_server.mcp.sdk_connection import elicit_with_id
from pvemcp_server.pipeline.answers import clean_line
from pvemcp_server.pipeline.confirmation import BOX, Agreed, InputRequired
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.question_repository import QuestionRepository
from pvemcp_server.toolkit.call import Decision

PROGRESS_SECONDS: Final = 0.25  # the least time between two reports
ANSWER_SECONDS: Final = 300.0  # how long a user may think, in the eras where the call waits
STATE_SECONDS: Final = 600.0  # how long the sealed state of a question is accepted
NONCE_LIFE: Final = timedelta(seconds=2 * STATE_SECONDS)  # longer than any state is accepted
QUESTION: Final = "confirm"
FORM: Final[types.ElicitRequestedSchema] = {
    "type": "object",
    "properties": {
        QUESTION: {
            "type": "boolean",
            "title": BOX,
            "description": "Yes, go on",
            "default": False,
        }
    },
    "required": [QUESTION],
}

Context = ServerRequestContext[Any, Any]


@dataclass
class SdkConversation:
    """The conversation of one request."""

    client: str
    _ctx: Context
    _params: types.InputResponseRequestParams
    _questions: QuestionRepository
    _clock: Callable[[], float] = time.monotonic
    # question and digest that were agreed to, in the eras where the call waits
    _agreed: tuple[str, str] = ("", "")
    _last_progress: float = -1.0
    _last_report: float = -PROGRESS_SECONDS  # time on the clock

    @property
    def wants_progress(self) -> bool:
        return bool(self._ctx.meta and self._ctx.meta.get("progress_token") is not None)

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Report progress that has increased, at most every PROGRESS_SECONDS."""
        now = self._clock()
        if done <= self._last_progress or now - self._last_report < PROGRESS_SECONDS:
            return
        self._last_progress, self._last_report = done, now
        await self._ctx.session.report_progress(done, total, clean_line(message))

    async def ask(self, question: str, beside: str = "", digest: str = "") -> Decision:
        """Return the user's decision; raise InputRequired if the client has to answer first.

        In the era of 2026-07-28 a question is the result of the call, and the client repeats the
        call with the answer and the sealed state of the question. The state is a nonce and two
        hashes. That of the question binds the answer to exactly this question: if the situation has
        changed in between, the question has too, and is asked again; the facts `beside` it are not
        hashed. That of `digest` binds a consent to the configuration that the plan was made from:
        after any change of it, the decision is OUTDATED. The nonce is used up by any answer, in
        every process, so neither a consent nor a refusal can be replayed: the question is asked
        again. In earlier revisions the call waits for the answer, which may take minutes: a consent
        raises Agreed, and counts when the same question comes again, for the same digest.
        """
        if not _can_fill_forms(self._ctx.session.client_capabilities):
            return Decision.CANNOT_ASK
        shown = " ".join(filter(None, (question, beside)))
        if self._ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return await self._wait_for_answer(question, digest, shown)
        hashes = f"{_hash(question)} {_hash(digest)}"
        answer = (self._params.input_responses or {}).get(QUESTION)
        state = self._params.request_state
        if isinstance(answer, types.ElicitResult) and state:
            nonce, _, stated = state.partition(" ")
            if await self._use(nonce):
                decision, is_outdated = _decision(answer), not stated.endswith(_hash(digest))
                if decision is Decision.YES and is_outdated:
                    return Decision.OUTDATED
                if stated == hashes:
                    return decision
        form = types.ElicitRequestFormParams(message=shown, requested_schema=FORM)
        requests: types.InputRequests = {QUESTION: types.ElicitRequest(params=form)}
        state = f"{secrets.token_urlsafe()} {hashes}"
        raise InputRequired(types.InputRequiredResult(input_requests=requests, request_state=state))

    async def _use(self, nonce: str) -> bool:
        """Use up the nonce of a question; return whether this is its first use."""
        now = utc_now()
        return await self._questions.use(nonce, now=now, expires=now + NONCE_LIFE)

    async def _elicit(self, shown: str) -> types.ElicitResult:
        """Return the client's answer, which may reach another process of ours first."""
        state = getattr(self._ctx.request, "state", None)
        process = getattr(state, "process", "")  # of a session; the URL of HTTP+SSE names its own
        if not process:
            return await self._ctx.session.elicit_form(shown, FORM, self._ctx.request_id)
        return await elicit_with_id(self._ctx.session, shown, FORM, new_id(process))

    async def _wait_for_answer(self, question: str, digest: str, shown: str) -> Decision:
        agreed, self._agreed = self._agreed, ("", "")
        if agreed[0] and agreed[1] != digest:
            return Decision.OUTDATED
        if agreed[0] == question:
            return Decision.YES
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                decision = _decision(await self._elicit(shown))
        except (MCPError, ValidationError, TimeoutError):
            # an error or a lost connection is no consent, since this client can ask its user
            return Decision.NO_ANSWER
        if decision is Decision.YES:
            self._agreed = (question, digest)
            raise Agreed
        return decision


@dataclass(frozen=True)
class SilentConversation:
    """The conversation of a call that only looks up names: no client follows it."""

    client: str = ""
    wants_progress: bool = False

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Drop the report."""

    async def ask(self, _question: str, _beside: str = "", _digest: str = "") -> Decision:
        """Return CANNOT_ASK: no client follows this call."""
        return Decision.CANNOT_ASK


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _decision(answer: types.ElicitResult) -> Decision:
    match answer.action:
        case "accept":
            ticked = (answer.content or {}).get(QUESTION) is True
            return Decision.YES if ticked else Decision.NOT_TICKED
        case "cancel":
            return Decision.DISMISSED
        case _:
            return Decision.NO


def _can_fill_forms(capabilities: types.ClientCapabilities | None) -> bool:
    elicitation = capabilities.elicitation if capabilities else None
    # before there were modes, an empty capability meant forms
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)
