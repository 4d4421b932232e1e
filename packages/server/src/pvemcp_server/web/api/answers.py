"""Error answers that all routes of the admin REST API share."""

from typing import Any, Final, Literal

from pydantic import BaseModel

from pvemcp_server.admin.operation import Operation
from pvemcp_server.store.records import AdminRole


class Wrong(BaseModel):
    """The reason why a request was not carried out; `code` is for programs."""

    error: str
    code: Literal["not_permitted", "recent_sign_in_needed"] | None = None


class GateError(BaseModel):
    """The error object of JSON-RPC."""

    code: int
    message: str
    data: dict[str, int]


class GateRefusal(BaseModel):
    """An answer of the HTTP gate, which does not know that the path was one of the API."""

    jsonrpc: str
    id: None
    error: GateError


def requirements(operation: Operation) -> dict[str, Any]:
    """Return which roles and which scope permit an operation, for the description of its route."""
    permission = operation.permission
    roles = [role.value for role in AdminRole if role in permission.roles]
    return {"x-roles": roles, **({"x-scope": permission.scope} if permission.scope else {})}


REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {
        "model": GateRefusal,
        "description": "The path is ambiguous; the answer says how to write it",
    },
    401: {"model": Wrong, "description": "Not signed in, or the service token is not valid"},
    403: {
        "model": Wrong,
        "description": "The session's token is missing or wrong; `not_permitted`: to the "
        "administrator's role or the service token; `recent_sign_in_needed`: confirm it's you with "
        "`POST /session/confirm`, and send it again",
    },
    404: {"model": Wrong, "description": "Not found"},
    422: {"model": Wrong, "description": "Not possible; the answer says why"},
}
