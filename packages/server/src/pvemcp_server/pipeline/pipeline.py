"""One way for every call: find, authorise, validate, confirm, intend, run, write, record."""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from pydantic import BaseModel

from proxmox_client import ProxmoxError
from pvemcp_formats import Format
from pvemcp_server.access.limits import CallLimits
from pvemcp_server.access.model import Caller, Effect
from pvemcp_server.audit.mask import mask_text
from pvemcp_server.clusters import Clusters, explain
from pvemcp_server.errors import CallError, Unrecorded
from pvemcp_server.pipeline.answers import Writer, Written, page_of
from pvemcp_server.pipeline.arguments import option, read_arguments
from pvemcp_server.pipeline.audit_recorder import Recorder
from pvemcp_server.pipeline.confirmation import confirm
from pvemcp_server.pipeline.decisions import Asking, Decision
from pvemcp_server.pipeline.protocols import CurrentSettings, Records
from pvemcp_server.pipeline.sanitize import clean_line
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.missing_privileges import note_lacks
from pvemcp_server.toolkit.plan import Plan, carry_out
from pvemcp_server.toolkit.registry import Answer, Document, Tool

ERROR_CHARACTERS = 4_000
log = logging.getLogger(__name__)


class UnknownTool(Exception):
    """There is no such tool for this caller, whether or not others have it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Unknown tool: {clean_line(name, 100)}")


class Conversation(Protocol):
    """What the pipeline needs of the protocol while a call runs."""

    @property
    def client(self) -> str: ...

    @property
    def wants_progress(self) -> bool: ...

    async def progress(self, done: float, total: float | None, message: str) -> None: ...

    async def ask(self, question: str) -> Decision: ...


@dataclass(frozen=True, slots=True)
class Started:
    """A Proxmox task that a call began and did not wait for."""

    cluster: str
    upid: str
    answer: Document
    format: Format
    warnings: tuple[str, ...] = ()  # what was to be known before


@dataclass(frozen=True, slots=True)
class Result:
    """What the client gets: text blocks, which tell of a failure when it has a cause."""

    blocks: tuple[str, ...]
    cause: Exception | None = None  # of the failure
    started: Started | None = None

    @property
    def failed(self) -> bool:
        return self.cause is not None


@dataclass
class Pipeline:
    """Answers tool calls. Tools themselves know nothing of rights, formats or records."""

    tools: Mapping[str, Tool]
    clusters: Clusters
    settings: CurrentSettings
    records: Records
    limits: CallLimits = field(default_factory=CallLimits)
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # calls had better end soon

    async def call(
        self, caller: Caller, name: str, arguments: Mapping[str, Any], conversation: Conversation
    ) -> Result:
        """The result of a call; raises UnknownTool, or Asking when a person has to agree first."""
        recorder = Recorder(self.records, caller, name, conversation.client)
        tool = self.tools.get(name)
        if tool is None or not caller.may_call(tool.name, tool.effect):
            await recorder.refused(
                "unknown tool" if tool is None else "tool not granted", arguments
            )
            raise UnknownTool(name)
        return await self._guarded(tool, arguments, caller, conversation, recorder)

    async def _guarded(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        caller: Caller,
        conversation: Conversation,
        recorder: Recorder,
    ) -> Result:
        """Every failure becomes a text that helps; every end of a call is recorded."""
        recorder.begin(tool, arguments)
        try:
            accepted = read_arguments(tool, arguments)
            call = await self.open(tool, caller, conversation, accepted)
            recorder.call = call
            # beside the gate's places: a message of HTTP+SSE holds none while its call runs
            with self.limits.running(
                f"tools {caller.key_id}", call.settings.concurrent_calls_per_key
            ):
                written, started = await self._answer(tool, accepted, call, conversation, recorder)
        except Asking:
            raise
        except asyncio.CancelledError:
            await recorder.cancelled("the server" if self.closing.is_set() else "the client")
            raise
        except (CallError, ProxmoxError, TimeoutError) as error:
            asked = recorder.call
            text = explain(error) if asked is None else await asked.explain(error)
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
        """A call of that tool, with the options among the arguments."""
        settings = await self.settings.current()
        return Call(
            caller=caller,
            tool=tool.name,
            effect=tool.effect,
            source=self.clusters,
            settings=settings,
            conversation=conversation,
            closing=self.closing,
            deadline=monotonic() + settings.call_deadline_seconds,
            **(_options(tool, accepted, settings.row_cap) if accepted else {}),
        )

    async def _answer(
        self,
        tool: Tool,
        accepted: BaseModel,
        call: Call,
        conversation: Conversation,
        recorder: Recorder,
    ) -> tuple[Written, Started | None]:
        own = {name: getattr(accepted, name) for name in tool.arguments.model_fields}
        async with asyncio.timeout(call.seconds_left):
            answer: Answer = await tool.run(call, **own)
        wanted, started = _format(accepted, call), None
        if isinstance(answer, Plan):
            plan = answer
            answer = await self._carry_out(tool, call, plan, conversation, recorder)
            if answer.get("status") == "running":
                started = Started(plan.cluster.name, call.upids[-1], answer, wanted, plan.warnings)
        writer = Writer(
            tool=tool,
            accepted=accepted,
            format=wanted,
            row_cap=call.settings.row_cap,
            notes=call.notes,
        )
        return writer.write(answer), started

    async def _carry_out(
        self, tool: Tool, call: Call, plan: Plan, conversation: Conversation, recorder: Recorder
    ) -> Document:
        if call.dry_run:
            await note_lacks(plan.cluster, *tool.needs, so="will refuse this")
            return plan.preview()
        if call.effect is Effect.DESTROY:
            await confirm(conversation, plan.sentence, call.settings)
        await recorder.intends()
        return await carry_out(call, plan)

    async def _failed(self, recorder: Recorder, cause: Exception, text: str) -> Result:
        await recorder.failed(text)
        # an argument that is repeated may be a key that was put in the wrong place
        return Result((clean_line(mask_text(text), ERROR_CHARACTERS),), cause)


def _options(tool: Tool, accepted: BaseModel, row_cap: int) -> dict[str, Any]:
    return {
        "dry_run": option(accepted, "dry_run", False),
        "wait": option(accepted, "wait", False),
        "fields": tuple(option(accepted, "fields") or ()),
        "page": page_of(tool, accepted, row_cap),
    }


def _format(accepted: BaseModel, call: Call) -> Format:
    """The call's own wish, else the key's, else the setting."""
    wanted = option(accepted, "format")
    return Format(wanted or call.caller.output_format or call.settings.output_format)
