"""Replies in place of a server that the user has to sign in at first."""

import json
from collections.abc import Mapping
from typing import Any

from pvemcp_bridge import __version__
from pvemcp_bridge.errors import SignInRequired
from pvemcp_bridge.jsontext import parse
from pvemcp_bridge.messages import Kind, Message

__all__ = ["LIST_CHANGES", "empty_reply", "provisional_reply"]

LIST_CHANGES = tuple(
    f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")
)
_CAPABILITIES = {kind: {"listChanged": True} for kind in ("tools", "prompts", "resources")}
_INFO = {"name": "pvemcp-bridge", "version": __version__}


def provisional_reply(request: Message, required: SignInRequired) -> Message:
    """Answer `initialize` or `server/discover` with the address of the sign-in as instructions."""
    result: dict[str, Any] = {
        "capabilities": _CAPABILITIES,
        "serverInfo": _INFO,
        "instructions": str(required),
    }
    if request.method == "initialize":
        result |= {"protocolVersion": request.params.get("protocolVersion", "")}
    else:
        result |= {
            "resultType": "complete",
            "supportedVersions": [request.version],
            "ttlMs": 0,
            "cacheScope": "private",
        }
    return _reply(request, result)


def empty_reply(request: Message) -> Message:
    """Answer a request without a result, such as `ping`."""
    return _reply(request, {})


def _reply(request: Message, result: Mapping[str, Any]) -> Message:
    text = f'{{"jsonrpc":"2.0","id":{request.raw_id},"result":{json.dumps(result)}}}'
    return Message(text, parse(text), Kind.RESPONSE)
