"""Prompts, resources and completion: what clients offer people beside the tools."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from proxmox_client import NotFound
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.mcp import completion, resources
from pvemcp_server.mcp.callers import caller_of
from pvemcp_server.mcp.elicitation import SdkConversation, Silent
from pvemcp_server.mcp.prompts import PLAYBOOKS, QUESTIONS, Prompt, prompts
from pvemcp_server.pipeline.pipeline import Pipeline, Result, UnknownTool
from pvemcp_server.pipeline.sanitize import clean_line
from pvemcp_server.query.binder import is_valid
from pvemcp_server.query.sources import TOOL as EXECUTE
from pvemcp_server.query.sources import catalog_of
from pvemcp_server.store.records import SavedQuery
from pvemcp_server.toolkit.call import Call

Context = ServerRequestContext[Any, Any]
Ref = types.PromptReference | types.ResourceTemplateReference
Contents = types.TextResourceContents | types.BlobResourceContents


class SavedQueries(Protocol):
    async def all(self) -> Sequence[SavedQuery]: ...


@dataclass(frozen=True)
class Offers:
    """Handlers of prompts/*, resources/* and completion/complete."""

    pipeline: Pipeline
    saved: SavedQueries

    async def list_prompts(
        self, ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListPromptsResult:
        offered = await self._prompts(ctx)
        return types.ListPromptsResult(prompts=[_described(one) for one in offered.values()])

    async def get_prompt(
        self, ctx: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult:
        found = (await self._prompts(ctx)).get(params.name)
        if found is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {clean_line(params.name, 100)}")
        try:
            text = found.filled(params.arguments or {})
        except BadArgument as wrong:
            raise MCPError(types.INVALID_PARAMS, str(wrong)) from None
        message = types.PromptMessage(role="user", content=types.TextContent(text=text))
        return types.GetPromptResult(description=found.description, messages=[message])

    async def list_resources(
        self, ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        call = await self._call(ctx, resources.CLUSTER.tool)
        names = await call.reachable() if call else []
        places = resources.open_to(caller_of(ctx), self.pipeline.tools)
        return types.ListResourcesResult(resources=resources.listed(places, names))

    async def list_templates(
        self, ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        places = resources.open_to(caller_of(ctx), self.pipeline.tools)
        return types.ListResourceTemplatesResult(resource_templates=resources.templates(places))

    async def read_resource(
        self, ctx: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri = str(params.uri)
        found = resources.find(uri)
        if found is None:
            raise _not_found(uri)
        place, values = found
        try:
            result = await self.pipeline.call(
                caller_of(ctx), place.tool, place.question(values), SdkConversation(ctx, params)
            )
        except UnknownTool:
            raise _not_found(uri) from None
        return types.ReadResourceResult(contents=_contents(uri, result))

    async def complete(
        self, ctx: Context, params: types.CompleteRequestParams
    ) -> types.CompleteResult:
        name = params.argument.name
        if name not in await self._arguments(ctx, params.ref):
            return completion.answer([])
        call = await self._call(ctx, completion.TOOLS.get(name, ""))
        if call is None:
            return completion.answer([])
        chosen = (params.context.arguments or {}) if params.context else {}
        values = await completion.complete(call, name, params.argument.value, chosen.get("cluster"))
        return completion.answer(values)

    async def _arguments(self, ctx: Context, ref: Ref) -> Collection[str]:
        """What can be filled in there: nothing where nothing is offered."""
        if isinstance(ref, types.ResourceTemplateReference):
            places = resources.open_to(caller_of(ctx), self.pipeline.tools)
            return next((place.slots for place in places if place.template == ref.uri), ())
        prompt = (await self._prompts(ctx)).get(ref.name)
        return prompt.slots if prompt else ()

    async def _call(self, ctx: Context, tool: str) -> Call | None:
        """A call of that tool, as far as the caller may make it; for names, not for answers."""
        declared, caller = self.pipeline.tools.get(tool), caller_of(ctx)
        if declared is None or not caller.may_call(declared.name, declared.effect):
            return None
        return await self.pipeline.open(declared, caller, Silent())

    async def _prompts(self, ctx: Context) -> dict[str, Prompt]:
        saved = [_of_query(one) for one in await self._askable(ctx)]
        return prompts((*QUESTIONS, *PLAYBOOKS, *saved), caller_of(ctx), self.pipeline.tools)

    async def _askable(self, ctx: Context) -> list[SavedQuery]:
        """The saved queries that this caller could ask: others would tell what is hidden."""
        saved = await self.saved.all()
        call = await self._call(ctx, EXECUTE) if saved else None
        if call is None:
            return []
        catalog, now = catalog_of(call.caller, await call.reachable()), datetime.now(UTC)
        return [one for one in saved if is_valid(one.query, catalog, now)]


def _contents(uri: str, result: Result) -> list[Contents]:
    """The data, then the notes where there are any: what is missing, or how old it is."""
    if isinstance(result.cause, UnknownName | BadArgument | NotFound):
        raise _not_found(uri, result.blocks[0])
    if result.failed:
        raise MCPError(types.INTERNAL_ERROR, result.blocks[0], {"uri": uri})
    kinds = (resources.JSON, resources.PLAIN)
    return [
        types.TextResourceContents(uri=uri, mime_type=kind, text=text)
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
    """A query that an administrator has saved, as a prompt that runs it."""
    query = json.dumps(saved.query).replace("{", "{{").replace("}", "}}")
    return Prompt(
        f"query-{saved.name}",
        saved.name,
        saved.description,
        f"Run this saved query with ExecuteQuery, exactly as it is, and sum up the result: {query}",
        (EXECUTE,),
    )


def _not_found(uri: str, reason: str = "") -> MCPError:
    message = f"Resource not found. {reason}".strip()
    return MCPError(types.INVALID_PARAMS, message, {"uri": uri})
