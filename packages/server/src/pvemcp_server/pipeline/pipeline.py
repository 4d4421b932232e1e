"""The pipeline: find, authorize, validate, confirm, record the intent, run, write, record."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from shlex import quote
from time import monotonic
from typing import Any, Self

from anyio import CancelScope
from pydantic import BaseModel

from proxmox_client import ProxmoxError, requester
from pvemcp_formats import Format
from pvemcp_server.access.budgets import DestructiveBudgets
from pvemcp_server.access.key_threads import in_key_thread
from pvemcp_server.access.limits import CallLimits
from pvemcp_server.access.model import Caller, Effect
from pvemcp_server.approvals import Approvals, PlannedCall
from pvemcp_server.audit import Audit, Outcome, current_call
from pvemcp_server.audit.mask import SECRET_OF_CLIENTS, mask, mask_text, secret_fields_of
from pvemcp_server.clusters import Clusters, explain
from pvemcp_server.errors import (
    ApprovalNeeded,
    CallError,
    InsufficientScope,
    Precondition,
    RightsChanged,
    ServerStops,
    StateUnavailable,
    StoreAway,
    ToolsetMissing,
    Unanswered,
    Unrecorded,
    folded,
)
from pvemcp_server.oauth.scopes import Scope, is_sufficient
from pvemcp_server.pipeline.answers import MANY_CELLS, Writer, Written, clean_line
from pvemcp_server.pipeline.arguments import read_arguments
from pvemcp_server.pipeline.audit_recorder import Recorder
from pvemcp_server.pipeline.chart_image import Picture, draw
from pvemcp_server.pipeline.confirmation import (
    Agreed,
    InputRequired,
    Unattended,
    always_asking,
    confirm,
    question_of,
    require_approval,
)
from pvemcp_server.pipeline.open_writes import OpenWrite, OpenWrites
from pvemcp_server.pipeline.pagination import page_of
from pvemcp_server.pipeline.selection import with_selected
from pvemcp_server.pipeline.shown_plans import ShownPlans
from pvemcp_server.pipeline.undo_log import StoredUndos
from pvemcp_server.services import Services
from pvemcp_server.settings import Settings, Values
from pvemcp_server.store.database import MOST_LOSSES, DatabaseFailed, is_away, waits
from pvemcp_server.toolkit.arguments import WriteOptions
from pvemcp_server.toolkit.bulk import BulkPlan
from pvemcp_server.toolkit.call import Call, Conversation
from pvemcp_server.toolkit.charts import Chart, require_charts
from pvemcp_server.toolkit.collisions import Circumstances, circumstances
from pvemcp_server.toolkit.missing_privileges import note_missing_privileges
from pvemcp_server.toolkit.plan import ConfirmedRead, Plan, lines
from pvemcp_server.toolkit.registry import Answer, Document, Rows, Tool
from pvemcp_server.toolkit.undo import KeptUndo, Undo, UndoLog, merged
from pvemcp_server.toolkit.undo_check import require_unchanged

ERROR_CHARACTERS = 4_000
CLIENT_CHARACTERS = 200
PLAN_CHARACTERS = 2_000  # of each sentence
CIRCUMSTANCES_SECONDS = 5.0  # for what a plan shows beside its own facts
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


class _Undoing(Exception):
    """The call is answered by the one that undoes a write."""

    def __init__(self, kept: KeptUndo) -> None:
        super().__init__(kept.undo.call.text)
        self.kept = kept


@dataclass(frozen=True, slots=True)
class Started:
    """A Proxmox task that a call started and did not wait for."""

    tool: str  # by whose permission it is: for Undo, that of the call which it made
    cluster: str
    upid: str
    answer: Document
    format: Format
    warnings: tuple[str, ...] = ()  # of the plan


@dataclass(frozen=True, slots=True)
class Result:
    """The text blocks for the client; those of a failed call describe its cause.

    Notes begin with a line end: some clients join the blocks of a result without a separator, so
    that the notes would be read as part of the data.
    """

    blocks: tuple[str, ...]
    cause: Exception | None = None  # of the failure
    started: Started | None = None
    values: Mapping[str, Any] | None = None  # of an answer: what the blocks say, for views
    picture: Picture | None = None  # of an answer: its chart, if the call asks for it


def granted_tools(tools: Mapping[str, Tool], caller: Caller) -> list[str]:
    """Return the names of the tools that the caller may call, in the order of the registry."""
    return [tool.name for tool in tools.values() if caller.may_call(tool)]


def _toolset_error(tool: Tool, caller: Caller) -> ToolsetMissing:
    """Return the error for a tool that the role grants in a toolset that the key lacks."""
    toolset = str(tool.toolset)
    options = " ".join(f"--toolset {each}" for each in sorted({*caller.toolsets, toolset}))
    add = f"pvemcp keys change {quote(caller.key_name)} {options}"
    return ToolsetMissing(tool.name, toolset, add)


def _undo_field(undos: Collection[Undo]) -> dict[str, str]:
    return {"undo": "; ".join(undo.call.text for undo in undos)} if undos else {}


def _loses_data(tool: Tool, plan: Plan) -> bool:
    return tool.effect is Effect.DESTROY or bool(plan.loses)


def _require_switched_on(tool: Tool, settings: Values) -> None:
    """Raise Precondition for a tool that the settings keep off."""
    if not tool.is_switched_on(settings):
        title = Values.model_fields[tool.guarded_by].title
        raise Precondition(
            f"{tool.name} is switched off on this server.",
            hint=f"An owner can switch it on: setting '{title}' ({tool.guarded_by}).",
        )


async def _drawn(call: Call, chart: Chart, written: Written) -> Written:
    """Return the answer with its chart."""
    picture = await in_key_thread(call.caller.holder, partial(draw, chart))
    return replace(written, picture=picture)


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
    undo_log: UndoLog
    shown_plans: ShownPlans
    budgets: DestructiveBudgets
    limits: CallLimits = field(default_factory=CallLimits)
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server stops
    has_same_rights: Callable[[Caller], Awaitable[bool]] = _has_fixed_rights
    running: dict[CancelScope, Caller] = field(default_factory=dict)
    open_writes: OpenWrites = field(default_factory=OpenWrites)

    @classmethod
    def of(cls, services: Services, tools: Mapping[str, Tool], **more: Any) -> Self:
        """Return the pipeline of a process; `more` are further fields."""
        return cls(
            tools,
            services.clusters,
            services.settings,
            services.audit,
            services.approvals,
            StoredUndos(services.store.undos),
            ShownPlans(
                services.store.shown_plans, partial(services.store.vault.derive, "shown plans")
            ),
            services.access.budgets,
            services.access.limits,
            **more,
        )

    async def end_refused(self) -> None:
        """Cancel the calls of clients whose key is refused by now, or has other rights."""
        for scope, caller in list(self.running.items()):
            if not caller.acting and not await self.has_same_rights(caller):
                scope.cancel()

    async def call(
        self,
        caller: Caller,
        name: str,
        arguments: Mapping[str, Any],
        conversation: Conversation,
        undoing: KeptUndo | None = None,
    ) -> Result:
        """Return the result of a call; `undoing` is the write that it reverses for Undo.

        Raise UnknownTool, or InputRequired if the user has to decide first. Every failure becomes
        a text with the next step. Every outcome is recorded: an unexpected error with an incident
        number, a cancellation too.
        """
        tool = self.tools.get(name)
        declared = secret_fields_of(tool.accepted) if tool else frozenset()
        masked = mask(arguments, declared | SECRET_OF_CLIENTS)
        masked |= {"undoes": mask_text(undoing.done)} if undoing else {}
        recorder = Recorder(self.audit, caller, name, conversation.client, masked, undoing)
        current_call.set(recorder.call_id)
        if tool is None or not caller.is_granted(tool):
            await recorder.refused("unknown tool" if tool is None else "tool not granted")
            raise UnknownTool(name, granted_tools(self.tools, caller))
        tool = tool.of(caller) if tool.write_permission else tool
        if tool.toolset and tool.toolset not in caller.toolsets:
            await recorder.refused("toolset not in the key")
            missing = _toolset_error(tool, caller)
            return Result((str(missing),), missing)
        if caller.scopes is not None and not is_sufficient(caller.scopes, tool.scope):
            beyond = InsufficientScope(tool.name, tool.scope)
            return await self._failed(recorder, beyond, str(beyond))
        requester.set(caller.holder)
        waited = waits.get()
        waits.set(True)  # a session's task may have begun before
        with CancelScope() as scope:
            self.running[scope] = caller
            try:
                return await self._answer(tool, arguments, conversation, recorder)
            except asyncio.CancelledError:  # at any await, also of an error's explanation
                by = "a change of its rights" if scope.cancel_called else "the client"
                await recorder.cancelled("the server" if self.closing.is_set() else by)
                raise
            finally:
                waits.set(waited)
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
        """Return the result of a granted call, recorded unless it is cancelled.

        When the database is lost before anything is sent, the call begins again: its first
        statement then waits for the database.
        """
        caller, losses = recorder.caller, 0
        try:
            tool = tool.under(await self.settings.current()) if tool.charts else tool
            accepted = read_arguments(tool, arguments)
            call = recorder.call = await self.open(tool, caller, conversation, accepted)
            # beside the gate's slots: a message of HTTP+SSE holds none while its call runs
            most = call.settings.concurrent_calls_per_key
            async with self.limits.running(f"tools {caller.holder}", most, shared=True):
                while True:
                    try:
                        async with call.places:
                            written, started = await self._run(tool, accepted, call, recorder)
                        break
                    except (Agreed, StateUnavailable, DatabaseFailed) as cause:
                        was_lost = await self._begins_again(cause, recorder, losses)
                        losses, deadline = losses + was_lost, call.deadline
                        call = recorder.call = await self.open(tool, caller, conversation, accepted)
                        if was_lost:
                            call.deadline = deadline
        except InputRequired:
            try:
                await recorder.waiting()
            except Unrecorded as error:
                return Result((str(error),), error)
            raise
        except _Undoing as other:
            return await self._undo(other.kept, accepted, caller, conversation)
        except (CallError, ProxmoxError, TimeoutError) as error:
            opened = recorder.call
            text = explain(error) if opened is None else await opened.explain(error)
            return await self._failed(recorder, error, text)
        except Exception as error:  # noqa: BLE001 - logged there, with its traceback
            return await self._failed_here(recorder, error)
        try:
            await recorder.answered(written)
        except Unrecorded as error:
            return Result((str(error),), error)
        blocks = (written.data, f"\n{written.notes}") if written.notes else (written.data,)
        values = {**written.values, "notes": written.notes}
        return Result(blocks, started=started, values=values, picture=written.picture)

    async def _begins_again(self, cause: Exception, recorder: Recorder, losses: int) -> bool:
        """Return whether the call begins again as the database was lost, not as its user agreed.

        Raise the cause of a loss after MOST_LOSSES, of one after the intent of a write, and of
        other failures.
        """
        if isinstance(cause, Agreed):
            if not await self.has_same_rights(recorder.caller):
                raise RightsChanged from None
            return False
        if losses == MOST_LOSSES or recorder.is_write or not is_away(cause):
            raise cause
        return True

    async def _failed_here(self, recorder: Recorder, error: Exception) -> Result:
        """Return the result of a failure of this server: its database is away, or an incident."""
        if is_away(error):
            log.warning("Call of %s failed: the database does not answer", recorder.name)
            away = StoreAway(was_sent=recorder.is_write)
            return await self._failed(recorder, away, str(away))
        incident = secrets.token_hex(4)
        log.error("Call of %s failed, incident %s", recorder.name, incident, exc_info=error)
        text = f"The server failed on this call; its log says why under incident {incident}."
        return await self._failed(recorder, error, text)

    async def _undo(
        self, kept: KeptUndo, accepted: BaseModel, caller: Caller, conversation: Conversation
    ) -> Result:
        """Return the result of the call that undoes a write: its own role, consent and audit."""
        options = accepted.model_dump(include={*WriteOptions.model_fields}, exclude_none=True)
        call = kept.undo.call
        result = await self.call(
            caller, call.tool, {**call.arguments, **options}, conversation, undoing=kept
        )
        if result.cause is None and not options["dry_run"]:
            try:
                with CancelScope(shield=True):  # it is done, also if the client has gone
                    await self.undo_log.remove(kept)
            except DatabaseFailed:
                log.exception("The undo of a write could not be removed, so Undo finds it again")
        return result

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
            undo_log=self.undo_log,
            kinds=tool.kinds,
            closing=self.closing,
            deadline=monotonic() + settings.call_deadline_seconds,
        )
        if accepted is not None:
            call.limits = self.limits  # `_answer` gives its places back
            options = vars(accepted)  # those that this kind of tool has
            call.dry_run = options.get("dry_run", False)
            call.wait = options.get("wait", False)
            if options.get("chart"):
                require_charts()
                call.draws = True
            call.fields = tuple(options.get("fields") or ())
            call.page = page_of(tool, accepted, settings.row_cap)
        return call

    async def _run(
        self, tool: Tool, accepted: BaseModel, call: Call, recorder: Recorder
    ) -> tuple[Written, Started | None]:
        """Run the tool within the call's deadline, carry out its plan, and write the answer."""
        if tool.guarded_by:
            _require_switched_on(tool, call.settings)
        arguments = {name: getattr(accepted, name) for name in tool.arguments.model_fields}
        async with asyncio.timeout(call.seconds_left):
            if recorder.undoing:  # also when the user has agreed after some time
                await require_unchanged(call, recorder.undoing)
            requested = arguments
            advice: tuple[str, ...] = ()
            if tool.bulk:
                by_query = arguments["query"] is not None
                arguments, advice = await with_selected(call, arguments)
                selected = {"vmids": arguments["vmids"]} if by_query else {}
                recorder.arguments = {**recorder.arguments, **selected}
            answer: Answer = await tool.run(call, **arguments)
        if isinstance(answer, KeptUndo):
            raise _Undoing(answer)
        preferred = vars(accepted).get("format") or call.caller.output_format
        output_format, started = Format(preferred or call.settings.output_format), None
        if isinstance(answer, ConfirmedRead):
            planned = self._planned(tool, call, answer, arguments, recorder)
            await self._confirm(tool, call, planned, recorder)
            await recorder.intent()
            answer = await answer.carry_out(call)
        elif isinstance(answer, Plan | BulkPlan):
            plan = answer.advised(advice) if advice else answer
            planned = self._planned(tool, call, plan, arguments, recorder)
            planned = replace(planned, requested=requested)
            answer = await self._carry_out(tool, call, plan, planned, recorder)
            if answer.get("task_status") == "running":
                started = Started(
                    tool.name,
                    plan.cluster.name,
                    call.upids[-1],
                    answer,
                    output_format,
                    plan.warnings,
                )
        writer = Writer(tool, accepted, output_format, call.page, call.notes)
        if not isinstance(answer, Rows):
            return writer.document(answer), started
        if len(answer.rows[call.page]) * len(call.fields or answer.columns) > MANY_CELLS:
            write = partial(writer.rows, answer)
            written = await in_key_thread(call.caller.holder, write)
        else:
            written = writer.rows(answer)
        return await _drawn(call, call.chart, written) if call.chart else written, started

    async def _carry_out(
        self,
        tool: Tool,
        call: Call,
        plan: Plan | BulkPlan,
        planned: PlannedCall,
        recorder: Recorder,
    ) -> Document:
        """Preview the plan, or confirm it, record the intent, and only then change anything.

        A plan is carried out if a dry run of the same call has shown the same one, or none.
        """
        if call.dry_run:
            required = tool.needs if plan.needs is None else plan.needs
            await note_missing_privileges(plan.cluster, *required, so="will refuse this")
        await self._check_limits(tool, call, plan)
        if call.dry_run:
            await self.shown_plans.keep(planned)
            around = await self._around(call, plan, planned)
            undos = self._undos(call.caller, [part.undo for part in plan.parts if part.undo])
            return {**plan.preview(), **around.fields, **_undo_field(undos)}
        await self.shown_plans.require_same(planned)
        with self.open_writes.opened(tool.name, plan.cluster.name, plan.vmids) as own:
            if tool.effect is Effect.DESTROY or plan.needs_consent:
                own.is_waiting, beside = True, ""
                if call.settings.confirm_destructive == "ask":
                    progress = (part.progress for part in plan.parts)
                    around = await self._around(call, plan, planned, own)
                    beside = " ".join(filter(None, (*progress, around.text)))
                await self._confirm(tool, call, planned, recorder, beside)
                own.is_waiting = False
            await recorder.intent()
            try:
                answer = await plan.checked(partial(self._check_write, tool, call)).carry_out(call)
            except (CallError, ProxmoxError, TimeoutError, asyncio.CancelledError) as error:
                if call.upids or isinstance(error, Unanswered | asyncio.CancelledError):
                    with CancelScope(shield=True):  # a part of it may be done
                        undos = self._undos(call.caller, call.undos)
                        await self._keep(call, plan, recorder, undos)
                raise
        undos = self._undos(call.caller, call.undos)
        await self._keep(call, plan, recorder, undos)
        return {**answer, **_undo_field(undos)}

    def _undos(self, caller: Caller, undos: Iterable[Undo]) -> list[Undo]:
        """Return the calls that undo a write, in their order, if the caller may make them."""
        calls = merged(undos)
        allowed = all(caller.may_call(self.tools[undo.call.tool]) for undo in calls)
        return calls if allowed else []

    async def _keep(
        self, call: Call, plan: Plan | BulkPlan, recorder: Recorder, undos: list[Undo]
    ) -> None:
        """Keep how the write is undone; without that its answer still names the calls."""
        if recorder.undoing:
            return
        done = clean_line(mask_text(plan.sentences[0]), PLAN_CHARACTERS)
        add = partial(self.undo_log.add, call.caller.key_id, plan.cluster.name, done)
        try:
            for undo in reversed(undos):  # Undo makes the last one that was kept
                await add(undo.call.vmids or plan.vmids, undo)
            if not undos:
                new = {part.ids["vmid"] for part in plan.parts if "vmid" in part.ids}
                await add(plan.vmids | new, None)
        except DatabaseFailed:
            log.exception("How a write is undone could not be stored, so Undo does not know it")

    async def _check_limits(self, tool: Tool, call: Call, plan: Plan | BulkPlan) -> None:
        """Raise Frozen, OverBudget or InsufficientScope before anyone is asked for consent.

        A dry run notes it.
        """
        loses = any(_loses_data(tool, part) for part in plan.parts)
        scopes, needed = call.caller.scopes, Scope.DESTROY if loses else Scope.WRITE
        if scopes is not None and not is_sufficient(scopes, needed):
            if not call.dry_run:
                raise InsufficientScope(tool.name, needed)
            call.notes.add(f"The access token lacks the scope {needed}; this would be refused.")
        if freeze := await self.clusters.freezes.of(plan.cluster.name):
            if not call.dry_run:
                raise freeze.error
            call.notes.add(f"{freeze.fact} Until that ends, this would be refused.")
        destructive = sum(part.guests for part in plan.parts if _loses_data(tool, part))
        if destructive and call.caller.key_id:
            most = call.settings.destructive_calls_per_day_per_key
            budget = await self.budgets.of(call.caller.key_id, most)
            if destructive > budget.left:
                if not call.dry_run:
                    raise self.budgets.error(budget, destructive)
                call.notes.add(f"{budget.fact(destructive)} It would be refused today.")

    async def _check_write(self, tool: Tool, call: Call, plan: Plan) -> None:
        """Raise Frozen or OverBudget right before a write is sent: consent may have taken long.

        The freeze comes first, as what is not sent costs nothing; the client checks it again before
        each request of the plan.
        """
        await self.clusters.freezes.refuse(plan.cluster.name)
        if call.caller.key_id and _loses_data(tool, plan):
            most = call.settings.destructive_calls_per_day_per_key
            await self.budgets.spend(call.caller.key_id, most, plan.guests)

    async def _around(
        self,
        call: Call,
        plan: Plan | BulkPlan,
        planned: PlannedCall,
        own: OpenWrite | None = None,
    ) -> Circumstances:
        """Return how long the plan takes, what it collides with, and since when its guests run."""
        try:
            async with asyncio.timeout(min(CIRCUMSTANCES_SECONDS, call.seconds_left)):
                facts = await self.open_writes.facts(self.approvals, planned, plan.vmids, own)
                return await circumstances(plan.cluster, plan.parts, facts)
        except (CallError, ProxmoxError, DatabaseFailed, TimeoutError):
            pass
        except Exception:  # the plan itself needs none of it, so it never fails a write
            log.exception("What a write of %s collides with could not be read", plan.cluster.name)
        return Circumstances(collides="What it collides with could not be read.")

    def _planned(
        self,
        tool: Tool,
        call: Call,
        plan: Plan | BulkPlan | ConfirmedRead,
        arguments: Mapping[str, Any],
        recorder: Recorder,
    ) -> PlannedCall:
        """Return the call as its user or an administrator decides about it."""
        return PlannedCall(
            caller=call.caller,
            client=clean_line(recorder.client, CLIENT_CHARACTERS),
            tool=tool.name,
            cluster=plan.cluster.name,
            arguments=arguments,
            plan=plan.sentences,
            shown_arguments=recorder.arguments,
            shown_plan=tuple(
                clean_line(line, PLAN_CHARACTERS)
                for each in plan.sentences
                for line in lines(mask_text(each))  # a secret is recognized in the whole only
            ),
            digest=plan.digest or "",
        )

    async def _confirm(
        self, tool: Tool, call: Call, planned: PlannedCall, recorder: Recorder, beside: str = ""
    ) -> None:
        """Return once the user, an administrator or a setting lets the plan be carried out."""
        beside = question_of([mask_text(beside)]) if beside else ""
        planned = replace(planned, beside=beside)
        await confirm(
            call.conversation,
            question_of(planned.plan),
            always_asking(call.settings) if tool.guarded_by else call.settings,
            recorder.decided,
            partial(require_approval, self.approvals, planned, recorder.decided),
            beside,
            planned.digest,
        )

    async def _failed(self, recorder: Recorder, cause: Exception, text: str) -> Result:
        waits = isinstance(cause, ApprovalNeeded)
        await recorder.failed(text, Outcome.WAITING if waits else Outcome.ERROR)
        # an argument repeated in the text may be a key that was sent in the wrong place
        return Result((clean_line(mask_text(text), ERROR_CHARACTERS),), cause)
