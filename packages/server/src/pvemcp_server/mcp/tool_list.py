"""The list of tools for each caller, cached in its wire form."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, get_args

import mcp_types as types
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from pvemcp_server.access.model import Caller
from pvemcp_server.mcp.callers import caller_of
from pvemcp_server.toolkit.registry import Tool

# A list depends on the key, so no client may share its cache; changes are announced as well
CACHE_HINTS: Final[dict[CacheableMethod, CacheHint]] = {
    method: CacheHint(ttl_ms=60_000, scope="private") for method in get_args(CacheableMethod)
}
CACHED_LISTS: Final = 256


def visible_tools(tools: Mapping[str, Tool], caller: Caller) -> list[types.Tool]:
    """Return the tools this caller may call, in the order of the registry."""
    return [describe(tool) for tool in tools.values() if caller.may_call(tool.name, tool.effect)]


def describe(tool: Tool) -> types.Tool:
    """Return the tool as clients see it."""
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=types.ToolAnnotations.model_validate(tool.annotations, by_name=False),
    )


class ListCache:
    """Middleware that caches tools/list by the caller's rights and the protocol version.

    `Caller.version` changes with every right, so a cached list never shows a revoked tool.
    """

    def __init__(self) -> None:
        self._lists: OrderedDict[tuple[str, str], HandlerResult] = OrderedDict()

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        if ctx.method != "tools/list" or (ctx.params or {}).get("cursor") is not None:
            return await call_next(ctx)
        key = (caller_of(ctx).version, ctx.protocol_version)
        if key not in self._lists:
            self._lists[key] = await call_next(ctx)
        self._lists.move_to_end(key)
        if len(self._lists) > CACHED_LISTS:
            self._lists.popitem(last=False)
        return self._lists[key]
