"""Prompts, resources and completion: what clients offer their users beside the tools."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from proxmox_client import NotFound
from pvemcp_server.audit.mask import mask_text
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.http.gate import caller_of, client_program
from pvemcp_server.mcp import completion, resources
from pvemcp_server.mcp.elicitation import SdkConversation, SilentConversation
from pvemcp_server.mcp.middleware import RecordedError, shows_views
from pvemcp_server.mcp.prompts import PLAYBOOKS, QUESTIONS, Prompt, prompts
from pvemcp_server.pipeline.answers import clean_line
from pvemcp_server.pipeline.pipeline import Pipeline, Result, UnknownTool
from pvemcp_server.query.binder import is_valid
from pvemcp_server.query.sources import TOOL as EXECUTE
from pvemcp_server.query.sources import catalog_of
from pvemcp_server.store.question_repository import QuestionRepository
from pvemcp_server.store.records import SavedQuery
from pvemcp_server.store.repository import Repository
from pvemcp_server.toolkit.call import Call
from pvemcp_server.views.catalog import VIEWS, View, find_view

Context = ServerRequestContext[Any, Any]
Ref = types.PromptReference | types.ResourceTemplateReference
Contents = types.TextResourceContents | types.BlobResourceContents


@dataclass(frozen=True)
class CatalogHandlers:
    """Handlers of prompts/*, resources/* and completion/complete."""

    pipeline: Pipeline
    saved_queries: Repository[SavedQuery]
    questions: QuestionRepository

    async def list_prompts(
        self, ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListPromptsResult:
        """List the prompts whose tools the caller may use."""
        offered = await self._prompts(ctx)
        return types.ListPromptsResult(prompts=[_described(prompt) for prompt in offered.values()])

    async def get_prompt(
        self, ctx: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        """Fill in a prompt; raise MCPError for an unknown one and for wrong arguments."""
        prompt = (await self._prompts(ctx)).get(params.name)
        if prompt is None:
            name = mask_text(clean_line(params.name, 100))
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {name}")
        try:
            text = prompt.filled(params.arguments or {})
        except BadArgument as wrong:
            raise MCPError(types.INVALID_PARAMS, mask_text(str(wrong))) from None
        message = types.PromptMessage(role="user", content=types.TextContent(text=text))
        return types.GetPromptResult(description=prompt.description, messages=[message])

    async def list_resources(
        self, ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        """List the resources without slots, and one for each cluster the caller reaches."""
        call = await self._call(ctx, resources.CLUSTER.tool)
        names = await call.reachable() if call else []
        families = resources.families_for(caller_of(ctx), self.pipeline.tools)
        shown = self._views(ctx) if shows_views(ctx) else []
        return types.ListResourcesResult(
            resources=[*resources.fixed_resources(families, names), *map(resources.of_view, shown)]
        )

    async def list_templates(
        self, ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        """List the templates of resources that the caller may read."""
        families = resources.families_for(caller_of(ctx), self.pipeline.tools)
        return types.ListResourceTemplatesResult(resource_templates=resources.templates(families))

    async def read_resource(
        self, ctx: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        """Read a resource by a call of its tool, with all checks and the audit of a call."""
        uri = str(params.uri)
        if (view := find_view(uri)) and view in self._views(ctx):
            return types.ReadResourceResult(contents=[resources.view_contents(view)])
        match = resources.find(uri)
        if match is None:
            raise _not_found(uri)
        family, values = match
        try:
            result = await self.pipeline.call(
                caller_of(ctx),
                family.tool,
                family.call_arguments(values),
                SdkConversation(client_program(ctx), ctx, params, self.questions),
            )
        except UnknownTool:
            raise _not_found(uri, error=RecordedError) from None
        return types.ReadResourceResult(contents=_contents(uri, result))

    async def complete(
        self, ctx: Context, params: types.CompleteRequestParams
    ) -> types.CompleteResult:
        """Complete an argument of a prompt or a slot of a resource template."""
        name = params.argument.name
        if name not in await self._arguments(ctx, params.ref):
            return completion.complete_result([])
        call = await self._call(ctx, completion.TOOLS.get(name, ""))
        if call is None:
            return completion.complete_result([])
        chosen = (params.context.arguments or {}) if params.context else {}
        values = await completion.complete(call, name, params.argument.value, chosen.get("cluster"))
        return completion.complete_result(values)

    def _views(self, ctx: Context) -> list[View]:
        """Return the views of the tools that the caller may call."""
        tools, caller = self.pipeline.tools.values(), caller_of(ctx)
        names = {tool.view for tool in tools if tool.view and caller.may_call(tool)}
        return [view for name, view in VIEWS.items() if name in names]

    async def _arguments(self, ctx: Context, ref: Ref) -> Collection[str]:
        """Return the names that can be completed there: none where the caller sees nothing."""
        if isinstance(ref, types.ResourceTemplateReference):
            families = resources.families_for(caller_of(ctx), self.pipeline.tools)
            return next((f.slots for f in families if f.template == ref.uri), ())
        prompt = (await self._prompts(ctx)).get(ref.name)
        return prompt.slots if prompt else ()

    async def _call(self, ctx: Context, tool: str) -> Call | None:
        """Open a call that looks up names; None when the caller may not call the tool."""
        declared, caller = self.pipeline.tools.get(tool), caller_of(ctx)
        if declared is None or not caller.may_call(declared):
            return None
        return await self.pipeline.open(declared, caller, SilentConversation())

    async def _prompts(self, ctx: Context) -> dict[str, Prompt]:
        """Return the prompts for this caller, by name.

        A saved query is left out if the caller could not run it: it would reveal hidden names.
        """
        queries = await self.saved_queries.all()
        call = await self._call(ctx, EXECUTE) if queries else None
        saved: list[Prompt] = []
        if call is not None:
            catalog, now = catalog_of(call.caller, await call.reachable()), datetime.now(UTC)
            saved = [_of_query(q) for q in queries if is_valid(q.query, catalog, now)]
        return prompts((*QUESTIONS, *PLAYBOOKS, *saved), caller_of(ctx), self.pipeline.tools)


def _contents(uri: str, result: Result) -> list[Contents]:
    """Return the data, then the notes, if any: missing parts, or the age of the data."""
    if isinstance(result.cause, UnknownName | BadArgument | NotFound):
        raise _not_found(uri, result.blocks[0], error=RecordedError)
    if result.cause is not None:
        raise RecordedError(types.INTERNAL_ERROR, result.blocks[0], {"uri": uri})
    kinds = (resources.JSON, resources.PLAIN)
    return [
        types.TextResourceContents(uri=uri, mime_type=kind, text=text.lstrip("\n"))
        for kind, text in zip(kinds, result.blocks, strict=False)
    ]


def _described(prompt: Prompt) -> types.Prompt:
    arguments = [
        types.PromptArgument(
            name=name,
            description=f"{slot.description}; {slot.default} when absent"
            if slot.default
            else slot.description,
            required=slot.default is None,
        )
        for name, slot in prompt.slots.items()
    ]
    return types.Prompt(
        name=prompt.name, title=prompt.title, description=prompt.description, arguments=arguments
    )


def _of_query(saved: SavedQuery) -> Prompt:
    """Return a prompt that runs a query which an administrator has saved."""
    query = json.dumps(saved.query).replace("{", "{{").replace("}", "}}")
    return Prompt(
        f"query-{saved.name}",
        saved.name,
        saved.description,
        f"Run this saved query with ExecuteQuery, exactly as it is, and sum up the result: {query}",
        (EXECUTE,),
    )


def _not_found(uri: str, reason: str = "", error: type[MCPError] = MCPError) -> MCPError:
    message = f"Resource not found. {reason}".strip()
    return error(types.INVALID_PARAMS, message, {"uri": uri})
