"""Who sent a message: the gate has put the caller into the request's state."""

from typing import Any

from mcp.server.context import ServerRequestContext

from pvemcp_server.access.model import Caller


def caller_of(ctx: ServerRequestContext[Any, Any]) -> Caller:
    """The caller of this very message; in a legacy session each message brings its own key."""
    caller = getattr(getattr(ctx.request, "state", None), "caller", None)
    if not isinstance(caller, Caller):
        raise TypeError("this server may only be reached through the gate")
    return caller


def principal(ctx: ServerRequestContext[Any, Any]) -> str:
    """What a question's state is bound to: the key, so that nobody else can answer."""
    return caller_of(ctx).key_id
