"""The caller of a message, as the gate has put it into the request's state."""

from typing import Any

from mcp.server.context import ServerRequestContext

from pvemcp_server.access.model import Caller


def caller_of(ctx: ServerRequestContext[Any, Any]) -> Caller:
    """Return the caller of this very message: in a session each message brings its own key."""
    caller = getattr(getattr(ctx.request, "state", None), "caller", None)
    if not isinstance(caller, Caller):
        raise TypeError("the server was reached without the gate")
    return caller


def principal(ctx: ServerRequestContext[Any, Any]) -> str:
    """Return what the state of a question is bound to: the key, so no other key can answer."""
    return caller_of(ctx).key_id
