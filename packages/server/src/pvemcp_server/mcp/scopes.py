"""Step-up: a call beyond the scopes of its access token is answered with 403 and what to ask for.

Before the SDK's transports, since an answer of theirs is 200. Over HTTP+SSE, where the message was
accepted before it is read, and for what only the plan of a call shows, the pipeline refuses the
call with a text.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.types import Scope

from pvemcp_server.access import Caller
from pvemcp_server.errors import InsufficientScope
from pvemcp_server.http import errors
from pvemcp_server.oauth.addresses import Addresses
from pvemcp_server.oauth.scopes import Scope as TokenScope
from pvemcp_server.oauth.scopes import included, is_sufficient
from pvemcp_server.oauth.step_ups import StepUps
from pvemcp_server.toolkit.registry import Tool


@dataclass(frozen=True)
class ScopeChecks:
    """What the messages of a request need beyond the scopes of its access token."""

    tools: Mapping[str, Tool]
    step_ups: StepUps

    def check(self, scope: Scope, caller: Caller, granted: Collection[str]) -> None:
        """Raise Refused when one of the posted messages needs a wider scope than those granted."""
        needed: dict[TokenScope, str] = {}
        for message in _messages(scope["state"]["body"]):
            need = self._need(caller, message)
            if need is not None and not is_sufficient(granted, need):
                needed[need] = _name(message)
        if needed:
            most = included(needed)[-1]
            if _is_legacy(scope):  # clients of 2026-07-28 ask their user
                self.step_ups.add(caller.key_id, most)
            raise _refused(scope, granted, most, needed[most])

    def _need(self, caller: Caller, message: Mapping[str, Any]) -> TokenScope | None:
        """Return the scope that a message needs; None where no scope is missing.

        A tool that is unknown or not granted is no matter of scopes, whatever they are.
        """
        if message.get("method") == "tasks/cancel":
            return TokenScope.WRITE
        tool = self.tools.get(_name(message)) if message.get("method") == "tools/call" else None
        return tool.of(caller).scope if tool and caller.may_call(tool) else None


def _refused(scope: Scope, granted: Collection[str], need: TokenScope, tool: str) -> errors.Refused:
    """Return the 403 in the form of the client's revision.

    Until 2025-11-25 the challenge names all that the next token is to have; later what the call
    needs, and clients add what they had.
    """
    scopes = included({*granted, need}) if _is_legacy(scope) else [need]
    metadata = Addresses(scope["state"]["base_url"]).resource_metadata(scope["path"])
    return errors.insufficient_scope(str(InsufficientScope(tool, need)), metadata, " ".join(scopes))


def _is_legacy(scope: Scope) -> bool:
    version = Headers(scope=scope).get("mcp-protocol-version")
    return version not in MODERN_PROTOCOL_VERSIONS


def _messages(body: bytes) -> Iterator[dict[str, Any]]:
    """Yield the messages of a body; the transport refuses one that has none."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return
    for message in parsed if isinstance(parsed, list) else [parsed]:
        if isinstance(message, dict):
            yield message


def _name(message: Mapping[str, Any]) -> str:
    """Return the tool of a call, or the method of any other message."""
    params = message.get("params")
    name = params.get("name") if isinstance(params, dict) else None
    return name if isinstance(name, str) else str(message.get("method"))
