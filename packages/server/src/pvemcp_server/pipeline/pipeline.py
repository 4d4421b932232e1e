"""The pipeline: find, authorize, validate, confirm, record the intent, run, write, record."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from shlex import quote
from time import monotonic
from typing import Any

from anyio import CancelScope
from pydantic import BaseModel

from proxmox_client import ProxmoxError, requester
from pvemcp_formats import Format
from pvemcp_server.access.limits import CallLimits
from pvemcp_server.access.model import Caller, Effect
from pvemcp_server.approvals import Approvals, PlannedCall
from pvemcp_server.audit import Audit, Outcome
from pvemcp_server.audit.mask import mask, mask_text, secret_fields_of
from pvemcp_server.clusters import Clusters, explain
from pvemcp_server.errors import (
    ApprovalNeeded,
    CallError,
    RightsChanged,
    ServerStops,
    ToolsetMissing,
    Unrecorded,
    folded,
)
from pvemcp_server.pipeline.answers import Writer, Written, clean_line
from pvemcp_server.pipeline.arguments import read_arguments
from pvemcp_server.pipeline.audit_recorder import Recorder
from pvemcp_server.pipeline.confirmation import (
    Agreed,
    InputRequired,
    Unattended,
    confirm,
    question_of,
    require_approval,
)
from pvemcp_server.pipeline.pagination import page_of
from pvemcp_server.settings import Settings
from pvemcp_server.toolkit.bulk import BulkPlan
from pvemcp_server.toolkit.call import Call, Conversation
from pvemcp_server.toolkit.missing_privileges import note_missing_privileges
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import Answer, Document, Rows, Tool

ERROR_CHARACTERS = 4_000
CLIENT_CHARACTERS = 200
PLAN_CHARACTERS = 2_000  # of each sentence
log = logging.getLogger(__name__)


class UnknownTool(Exception):
    """There is no such tool for this caller, whether or not others have it."""

    def __init__(self, name: str, granted: Collection[str]) -> None:
        similar = [other for other in granted if folded(other) == folded(name)]
        explain = "ExplainAccess" if "ExplainAccess" in granted else "tools/list"
        hint = f"Did you mean {similar[0]}?" if similar else f"{explain} names those that are."
        super().__init__(
            f"Unknown tool: {mask_text(clean_line(name, 100))} does not exist or is not granted to "
            "this key. "
            f"{hint}"
        )


@dataclass(frozen=True, slots=True)
class Started:
    """A Proxmox task that a call started and did not wait for."""

    cluster: str
    upid: str
    answer: Document
    format: Format
    warnings: tuple[str, ...] = ()  # of the plan


@dataclass(frozen=True, slots=True)
class Result:
    """The text blocks for the client; those of a failed call describe its cause."""

    blocks: tuple[str, ...]
    cause: Exception | None = None  # of the failure
    started: Started | None = None

    @property
    def texts(self) -> list[str]:
        """The blocks as clients receive them: data, then the notes on a line of their own.

        Some clients join the blocks of a result without a separator, so that the notes would be
        read as part of the data.
        """
        data, *notes = self.blocks
        return [data, *(f"\n{note}" for note in notes)]


def granted_tools(tools: Mapping[str, Tool], caller: Caller) -> list[str]:
    """Return the names of the tools that the caller may call, in the order of the registry."""
    return [tool.name for tool in tools.values() if caller.may_call(tool)]


def _toolset_error(tool: Tool, caller: Caller) -> ToolsetMissing:
    """Return the error for a tool that the role grants in a toolset that the key lacks."""
    toolset = str(tool.toolset)
    options = " ".join(f"--toolset {each}" for each in sorted({*caller.toolsets, toolset}))
    add = f"pvemcp keys change {quote(caller.key_name)} {options}"
    return ToolsetMissing(tool.name, toolset, add)


async def _has_fixed_rights(_caller: Caller) -> bool:
    return True


@dataclass
class Pipeline:
    """Answers tool calls. Tools themselves know nothing of permissions, formats or the audit.

    A call ends when its key is refused or its rights change, and when the server stops, whatever it
    waits for: a task, its user, Proxmox. Its scope in `running` is cancelled then, and the client
    gets an answer that says so.
    """

    tools: Mapping[str, Tool]
    clusters: Clusters
    settings: Settings
    audit: Audit
    approvals: Approvals
    limits: CallLimits = field(default_factory=CallLimits)
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server stops
    has_same_rights: Callable[[Caller], Awaitable[bool]] = _has_fixed_rights
    running: dict[CancelScope, Caller] = field(default_factory=dict)

    async def end_refused(self) -> None:
        """Cancel the calls of clients whose key is refused by now, or has other rights."""
        for scope, caller in list(self.running.items()):
            if not caller.acting and not await self.has_same_rights(caller):
                scope.cancel()

    async def call(
        self, caller: Caller, name: str, arguments: Mapping[str, Any], conversation: Conversation
    ) -> Result:
        """Return the result of a call.

        Raise UnknownTool, or InputRequired if the user has to decide first. Every failure becomes
        a text with the next step. Every outcome is recorded: an unexpected error with an incident
        number, a cancellation too.
        """
        tool = self.tools.get(name)
        masked = mask(arguments, secret_fields_of(tool.accepted) if tool else ())
        recorder = Recorder(self.audit, caller, name, conversation.client, masked)
        if tool is None or not caller.is_granted(tool):
            await recorder.refused("unknown tool" if tool is None else "tool not granted")
            raise UnknownTool(name, granted_tools(self.tools, caller))
        if tool.toolset and tool.toolset not in caller.toolsets:
            await recorder.refused("toolset not in the key")
            missing = _toolset_error(tool, caller)
            return Result((str(missing),), missing)
        with CancelScope() as scope, requester(caller.key_id):
            self.running[scope] = caller
            try:
                return await self._answer(tool, arguments, conversation, recorder)
            except asyncio.CancelledError:  # at any await, also of an error's explanation
                by = "a change of its rights" if scope.cancel_called else "the client"
                await recorder.cancelled("the server" if self.closing.is_set() else by)
                raise
            finally:
                del self.running[scope]
        given_up = ServerStops() if self.closing.is_set() else RightsChanged()
        return Result((str(given_up),), given_up)

    async def _answer(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        conversation: Conversation,
        recorder: Recorder,
    ) -> Result:
        """Return the result of a granted call, recorded unless it is cancelled."""
        caller = recorder.caller
        try:
            accepted = read_arguments(tool, arguments)
            call = recorder.call = await self.open(tool, caller, conversation, accepted)
            # beside the gate's slots: a message of HTTP+SSE holds none while its call runs
            with self.limits.running(
                f"tools {caller.key_id}", call.settings.concurrent_calls_per_key
            ):
                while True:
                    try:
                        written, started = await self._run(tool, accepted, call, recorder)
                        break
                    except Agreed:
                        if not await self.has_same_rights(caller):
                            raise RightsChanged from None
                        call = recorder.call = await self.open(tool, caller, conversation, accepted)
        except InputRequired:
            try:
                await recorder.waiting()
            except Unrecorded as error:
                return Result((str(error),), error)
            raise
        except (CallError, ProxmoxError, TimeoutError) as error:
            opened = recorder.call
            text = explain(error) if opened is None else await opened.explain(error)
            return await self._failed(recorder, error, text)
        except Exception as error:
            incident = secrets.token_hex(4)
            log.exception("Call of %s failed, incident %s", tool.name, incident)
            text = f"The server failed on this call; its log says why under incident {incident}."
            return await self._failed(recorder, error, text)
        try:
            await recorder.answered(written)
        except Unrecorded as error:
            return Result((str(error),), error)
        blocks = (written.data, written.notes) if written.notes else (written.data,)
        return Result(blocks, started=started)

    async def open(
        self,
        tool: Tool,
        caller: Caller,
        conversation: Conversation,
        accepted: BaseModel | None = None,
    ) -> Call:
        """Open a call of the tool, with the options among its arguments."""
        settings = await self.settings.current()
        if caller.unattended is not None and not caller.acting:  # an administrator is a user
            settings = settings.model_copy(update={"unconfirmed_destructive": caller.unattended})
            conversation = Unattended(conversation)
        call = Call(
            caller=caller,
            tool=tool.name,
            effect=tool.effect,
            source=self.clusters,
            settings=settings,
            conversation=conversation,
            kinds=tool.kinds,
            closing=self.closing,
            deadline=monotonic() + settings.call_deadline_seconds,
        )
        if accepted is not None:
            options = vars(accepted)  # those that this kind of tool has
            call.dry_run = options.get("dry_run", False)
            call.wait = options.get("wait", False)
            call.fields = tuple(options.get("fields") or ())
            call.page = page_of(tool, accepted, settings.row_cap)
        return call

    async def _run(
        self, tool: Tool, accepted: BaseModel, call: Call, recorder: Recorder
    ) -> tuple[Written, Started | None]:
        """Run the tool within the call's deadline, carry out its plan, and write the answer."""
        arguments = {name: getattr(accepted, name) for name in tool.arguments.model_fields}
        async with asyncio.timeout(call.seconds_left):
            answer: Answer = await tool.run(call, **arguments)
        preferred = vars(accepted).get("format") or call.caller.output_format
        output_format, started = Format(preferred or call.settings.output_format), None
        if isinstance(answer, Plan | BulkPlan):
            plan = answer
            answer = await self._carry_out(tool, call, plan, arguments, recorder)
            if answer.get("task_status") == "running":
                started = Started(
                    plan.cluster.name, call.upids[-1], answer, output_format, plan.warnings
                )
        writer = Writer(tool, accepted, output_format, call.page, call.notes)
        if isinstance(answer, Rows):
            return writer.rows(answer), started
        return writer.document(answer), started

    async def _carry_out(
        self,
        tool: Tool,
        call: Call,
        plan: Plan | BulkPlan,
        arguments: Mapping[str, Any],
        recorder: Recorder,
    ) -> Document:
        """Preview the plan, or confirm it, record the intent, and only then change anything."""
        if call.dry_run:
            required = tool.needs if plan.needs is None else plan.needs
            await note_missing_privileges(plan.cluster, *required, so="will refuse this")
            return plan.preview()
        if tool.effect is Effect.DESTROY or plan.needs_consent:
            planned = PlannedCall(
                caller=call.caller,
                client=clean_line(recorder.client, CLIENT_CHARACTERS),
                tool=tool.name,
                cluster=plan.cluster.name,
                arguments=arguments,
                plan=plan.sentences,
                shown_arguments=recorder.arguments,
                shown_plan=tuple(
                    clean_line(mask_text(each), PLAN_CHARACTERS) for each in plan.sentences
                ),
            )
            approve = partial(require_approval, self.approvals, planned, recorder.decided)
            await confirm(
                call.conversation,
                question_of(plan.sentences),
                call.settings,
                recorder.decided,
                approve,
            )
        await recorder.intent()
        return await plan.carry_out(call)

    async def _failed(self, recorder: Recorder, cause: Exception, text: str) -> Result:
        waits = isinstance(cause, ApprovalNeeded)
        await recorder.failed(text, Outcome.WAITING if waits else Outcome.ERROR)
        # an argument repeated in the text may be a key that was sent in the wrong place
        return Result((clean_line(mask_text(text), ERROR_CHARACTERS),), cause)
