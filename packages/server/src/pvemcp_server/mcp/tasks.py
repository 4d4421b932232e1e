"""The tasks extension: Proxmox tasks as MCP tasks, for clients that announce it (2026-07-28).

A task is stored before its id is sent, belongs to the key that started it, and Proxmox is asked
about it only when the client is. All other clients get the UPID and use GetTask.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import decode_header_value
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from proxmox_client import ProxmoxError, Task, TaskOutcome, Upid
from proxmox_client.properties import whole_number
from pvemcp_formats import Format, encode_document, tidy
from pvemcp_server.access.model import Effect
from pvemcp_server.audit import Outcome
from pvemcp_server.audit.log_secrets import mask_line
from pvemcp_server.clusters import explain
from pvemcp_server.errors import CallError, InsufficientScope
from pvemcp_server.http.gate import caller_of, client_program
from pvemcp_server.mcp.elicitation import SilentConversation
from pvemcp_server.mcp.middleware import RecordedError
from pvemcp_server.oauth.scopes import Scope, is_sufficient
from pvemcp_server.pipeline.answers import DOCUMENT_CHARACTERS, Cleaner, clean_line, single_lines
from pvemcp_server.pipeline.audit_recorder import Recorder
from pvemcp_server.pipeline.pipeline import Pipeline, Started
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.mcp_task_repository import McpTaskRepository
from pvemcp_server.store.records import McpTask
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.task_wait import outcome_fields
from pvemcp_server.toolkit.write_target import require_no_protected_tag, writable_cluster

EXTENSION: Final = "io.modelcontextprotocol/tasks"
LIFE: Final = timedelta(days=1)
POLL_MS: Final = 2_000

Context = ServerRequestContext[Any, Any]


class TaskParams(types.RequestParams):
    """Parameters of tasks/get and tasks/cancel."""

    task_id: str


class TaskUpdateParams(TaskParams):
    """Parameters of tasks/update: answers to a task's questions. Ours ask before they start."""

    input_responses: dict[str, Any] | None = None


def knows_tasks(ctx: Context) -> bool:
    """Return whether the client of this very request announces the tasks extension."""
    capabilities = ctx.session.client_capabilities
    extensions = capabilities.extensions if capabilities and capabilities.extensions else {}
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and EXTENSION in extensions


@dataclass(frozen=True)
class McpTasks:
    """Handlers of tasks/get, tasks/update and tasks/cancel."""

    pipeline: Pipeline
    rows: McpTaskRepository

    async def create(self, ctx: Context, started: Started) -> dict[str, Any]:
        """Store the running Proxmox task of a call; return the MCP task as the call's result."""
        caller, now = caller_of(ctx), utc_now()
        task = await self.rows.keep(
            caller.holder,
            id=secrets.token_urlsafe(32),
            key_id=caller.key_id,
            cluster=started.cluster,
            tool=started.tool,
            upid=started.upid,
            status="working",
            message="running",
            result={
                "answer": dict(started.answer),
                "format": started.format.value,
                "warnings": [clean_line(warning) for warning in started.warnings],
            },
            created=now,
            changed=now,
            expires=now + LIFE,
        )
        return {"resultType": "task", **_described(task)}

    async def get(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        """Return the state of a task, and its result when it has ended."""
        task = await self._find(ctx, params)
        if task.status == "working":
            task = await self._refreshed(ctx, task)
        else:
            await self._require_visible(ctx, task)
        detail = _described(task)
        if task.status == "completed":
            detail["result"] = task.result
        return detail

    async def update(self, ctx: Context, params: TaskUpdateParams) -> dict[str, Any]:
        """Accept an update without effect: our tasks never wait for input."""
        await self._find(ctx, params)
        return {}

    async def cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        """Stop the Proxmox task; an ended one does not change."""
        task = await self._find(ctx, params)
        scopes = caller_of(ctx).scopes
        if scopes is not None and not is_sufficient(scopes, Scope.WRITE):
            raise MCPError(
                types.INVALID_REQUEST, str(InsufficientScope("tasks/cancel", Scope.WRITE))
            )
        if task.status == "working":
            await self._stop(ctx, task)
        return {}

    async def _find(self, ctx: Context, params: TaskParams) -> McpTask:
        """Return the caller's task; raise MCPError, the same for other callers' tasks."""
        check_request(ctx, params)
        task = await self.rows.find(id=params.task_id, key_id=caller_of(ctx).key_id)
        if task is None or task.expires <= utc_now():
            raise MCPError(types.INVALID_PARAMS, "Unknown task")
        return task

    async def _require_visible(self, ctx: Context, task: McpTask) -> None:
        """Raise MCPError unless the caller may still see the task: its result is stored here."""
        try:
            await self._in_proxmox(ctx, task)
        except CallError:
            raise MCPError(types.INVALID_PARAMS, "Unknown task") from None
        except ProxmoxError as error:
            raise MCPError(types.INTERNAL_ERROR, explain(error)) from None

    async def _refreshed(self, ctx: Context, task: McpTask) -> McpTask:
        """Return the task with its current state in Proxmox; the end of a task is stored."""
        try:
            pve = await self._in_proxmox(ctx, task)
            if (await pve.status()).running:
                tail = await pve.tail(1)
                return await self._changed(
                    task, message=clean_line(mask_line("".join(tail))) or "running"
                )
            ended = await pve.outcome()
        except (CallError, ProxmoxError) as error:
            return await self._changed(task, message=clean_line(explain(error)))
        return await self._changed(
            task,
            status="completed",
            message=clean_line(ended.exit_status),
            result=_result(task.result, ended),
        )

    async def _stop(self, ctx: Context, task: McpTask) -> None:
        """Stop the Proxmox task, with an intent before and the outcome after in the audit."""
        client, arguments = client_program(ctx), {"cluster": task.cluster, "upid": task.upid}
        recorder = Recorder(self.pipeline.audit, caller_of(ctx), "tasks/cancel", client, arguments)
        await recorder.intent()
        try:
            await (await self._in_proxmox(ctx, task, writes=True)).stop()
        except asyncio.CancelledError:
            await recorder.cancelled("the client")
            raise
        except (CallError, ProxmoxError) as error:
            await recorder.failed(explain(error))
            raise RecordedError(types.INTERNAL_ERROR, explain(error)) from None
        except MCPError as refused:  # the tool is not granted any more
            await recorder.failed(refused.message, Outcome.REFUSED)
            raise RecordedError(refused.code, refused.message) from None
        await recorder.succeeded()
        await self._changed(task, status="cancelled", message="cancelled by the client")

    async def _in_proxmox(self, ctx: Context, task: McpTask, *, writes: bool = False) -> Task:
        """Return the Proxmox task.

        Raise MCPError if the caller may no longer use its tool, and CallError if the role no
        longer shows its guest, or if what `writes` changes is protected by now. A guest that is
        gone, as after its removal, is no secret.
        """
        tool, caller = self.pipeline.tools.get(task.tool), caller_of(ctx)
        if tool is None or not caller.may_call(tool):
            raise MCPError(types.INVALID_PARAMS, "Unknown task")
        permission = (writes and tool.write_permission) or ""  # without it, the tool only reads
        if permission and not caller.resources(permission, Effect.WRITE, task.cluster):
            raise MCPError(types.INVALID_PARAMS, "Unknown task")
        call: Call = await self.pipeline.open(tool, caller, SilentConversation())
        cluster = await (writable_cluster if writes else Call.cluster)(call, task.cluster)
        upid = Upid.parse(task.upid or "")
        vmid = whole_number(upid.id)
        if vmid is not None and vmid in (await cluster.inventory.view()).by_vmid:
            guest = await cluster.guest(vmid)
            if writes:
                await require_no_protected_tag(
                    call, cluster, guest.tag_list, f"Guest {guest.vmid} on {cluster.name}"
                )
        return cluster.pve.task(upid)

    async def _changed(self, task: McpTask, **values: Any) -> McpTask:
        if all(getattr(task, name) == value for name, value in values.items()):
            return task
        return await self.rows.change(task.id, changed=utc_now(), **values) or task


def require_extension(ctx: Context) -> None:
    """Raise MCPError, as the specification has it, for a client that does not know tasks."""
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(types.METHOD_NOT_FOUND, "Method not found", ctx.method)
    if not knows_tasks(ctx):
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This needs the tasks extension",
            {"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )


def check_request(ctx: Context, params: TaskParams) -> None:
    """Raise MCPError unless the extension is announced and the routing header names the task."""
    require_extension(ctx)
    if ctx.request and decode_header_value(ctx.request.headers.get("mcp-name")) != params.task_id:
        raise MCPError(types.HEADER_MISMATCH, "mcp-name header does not match taskId")


def _result(stored: Mapping[str, Any], ended: TaskOutcome) -> dict[str, Any]:
    """Return the result that the call would have had with `wait`."""
    answer = {**stored["answer"], **outcome_fields(ended)}
    if not ended.ok:
        answer |= {"success": False, "log": list(map(mask_line, ended.log_tail))}
    cells = Cleaner(DOCUMENT_CHARACTERS).value(answer, "log")
    output_format = Format(stored["format"])
    rows = tidy([cells])
    if output_format is Format.CSV:
        rows = single_lines(rows)
    data = encode_document(rows[0], output_format)
    notes = ["\n" + "\n".join(warnings)] if (warnings := stored.get("warnings")) else []
    texts = [data, *notes]
    content: list[types.ContentBlock] = [types.TextContent(text=text) for text in texts]
    result = types.CallToolResult(content=content, is_error=not ended.ok)
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


def _described(task: McpTask) -> dict[str, Any]:
    return {
        "taskId": task.id,
        "status": task.status,
        "statusMessage": task.message,
        "createdAt": task.created.isoformat(timespec="milliseconds"),
        "lastUpdatedAt": task.changed.isoformat(timespec="milliseconds"),
        "ttlMs": int((task.expires - task.created) / timedelta(milliseconds=1)),
        "pollIntervalMs": POLL_MS,
    }


METHODS: Final[Mapping[str, type[TaskParams]]] = {
    "tasks/get": TaskParams,
    "tasks/update": TaskUpdateParams,
    "tasks/cancel": TaskParams,
}
