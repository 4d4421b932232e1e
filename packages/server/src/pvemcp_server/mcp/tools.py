"""The methods tools/list and tools/call."""

import logging
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import mcp_types as types
from mcp.server.context import HandlerResult, ServerRequestContext

from pvemcp_server.access.model import Caller
from pvemcp_server.http.gate import caller_of, client_program
from pvemcp_server.mcp.elicitation import SdkConversation
from pvemcp_server.mcp.middleware import RecordedError, shows_views
from pvemcp_server.mcp.tasks import McpTasks, knows_tasks
from pvemcp_server.pipeline.answers import clean_line
from pvemcp_server.pipeline.chart_image import MIME_TYPE
from pvemcp_server.pipeline.confirmation import InputRequired
from pvemcp_server.pipeline.pipeline import Pipeline, UnknownTool, granted_tools
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.store.question_repository import QuestionRepository
from pvemcp_server.toolkit.registry import Tool
from pvemcp_server.views.catalog import VIEWS

_ALTERNATIVE: Final = 4_000  # characters of the text beside a chart
log = logging.getLogger(__name__)
Context = ServerRequestContext[Any, Any]


@dataclass(frozen=True)
class ToolHandlers:
    """Handlers of tools/*."""

    pipeline: Pipeline
    tasks: McpTasks
    questions: QuestionRepository

    async def list_tools(
        self, ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """List the tools that the caller may call."""
        tools = visible_tools(
            {n: t.under(self.pipeline.settings.values) for n, t in self.pipeline.tools.items()},
            caller_of(ctx),
            with_views=shows_views(ctx),
        )
        return types.ListToolsResult(tools=tools)

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> HandlerResult:
        """Call a tool. A started Proxmox task becomes an MCP task if the client knows these."""
        try:
            result = await self.pipeline.call(
                caller_of(ctx),
                params.name,
                params.arguments or {},
                SdkConversation(client_program(ctx), ctx, params, self.questions),
            )
        except UnknownTool as unknown:
            raise RecordedError(types.INVALID_PARAMS, str(unknown)) from None
        except InputRequired as required:
            return required.result
        if result.started and knows_tasks(ctx):
            try:
                return await self.tasks.create(ctx, result.started)
            except (DatabaseFailed, OSError):
                log.exception("A task could not be stored, so its client gets the UPID")
        content: list[types.ContentBlock] = [types.TextContent(text=text) for text in result.blocks]
        if result.picture:
            alternative, png = result.picture.alternative, b64encode(result.picture.png).decode()
            content.append(types.TextContent(text=f"\n{clean_line(alternative, _ALTERNATIVE)}"))
            content.append(types.ImageContent(data=png, mime_type=MIME_TYPE))
        values = None
        if result.values and self.pipeline.tools[params.name].view and shows_views(ctx):
            callable_tools = granted_tools(self.pipeline.tools, caller_of(ctx))
            values = {**result.values, "tool": params.name, "tools": callable_tools}
        return types.CallToolResult(
            content=content, structured_content=values, is_error=result.cause is not None
        )

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """Return the input schema of a tool; None for an unknown one."""
        tool = self.pipeline.tools.get(name)
        return tool.input_schema if tool else None


def visible_tools(
    tools: Mapping[str, Tool], caller: Caller, *, with_views: bool = False
) -> list[types.Tool]:
    """Return the tools this caller may call, in the order of the registry."""
    mine = (tool.of(caller) for tool in tools.values() if caller.may_call(tool))
    return [describe(tool, with_view=with_views) for tool in mine]


def describe(tool: Tool, *, with_view: bool = False) -> types.Tool:
    """Return the tool as clients see it; its title is among the annotations, for all revisions."""
    view = VIEWS[tool.view] if with_view and tool.view else None
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=types.ToolAnnotations.model_validate(tool.annotations, by_name=False),
        _meta={"ui": {"resourceUri": view.uri}} if view else None,
    )
