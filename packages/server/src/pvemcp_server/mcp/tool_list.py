"""Lists as each caller may see them, kept ready in their wire form."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, get_args

import mcp_types as types
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from pvemcp_server.access.model import Caller
from pvemcp_server.mcp.callers import caller_of
from pvemcp_server.toolkit.registry import Tool

# What a list shows depends on the key, so no cache may share it; changes are announced besides
CACHE_HINTS: Final[dict[CacheableMethod, CacheHint]] = {
    method: CacheHint(ttl_ms=60_000, scope="private") for method in get_args(CacheableMethod)
}
KEPT: Final = 256


def visible_tools(tools: Mapping[str, Tool], caller: Caller) -> list[types.Tool]:
    """The tools that this caller may call, in the order of the registry."""
    return [describe(tool) for tool in tools.values() if caller.may_call(tool.name, tool.effect)]


def describe(tool: Tool) -> types.Tool:
    """The tool as clients see it."""
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=types.ToolAnnotations.model_validate(tool.annotations, by_name=False),
    )


class ListCache:
    """Answers tools/list from memory while neither the caller's rights nor the era differ."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], HandlerResult] = OrderedDict()

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        if ctx.method != "tools/list" or (ctx.params or {}).get("cursor") is not None:
            return await call_next(ctx)
        key = (caller_of(ctx).version, ctx.protocol_version)
        if key not in self._kept:
            self._kept[key] = await call_next(ctx)
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]
