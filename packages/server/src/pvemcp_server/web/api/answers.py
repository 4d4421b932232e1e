"""Error answers that all routes of the admin REST API share, those of the HTTP layer included."""

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
        "model": GateRefusal | Wrong,
        "description": "The path, the host or the body is ambiguous or unreadable",
    },
    401: {"model": Wrong, "description": "Not signed in, or the service token is not valid"},
    403: {
        "model": Wrong | GateRefusal,
        "description": "The session's token is missing or wrong, or the page is of another origin; "
        "`not_permitted`: to the administrator's role or the service token; "
        "`recent_sign_in_needed`: confirm it's you with `POST /session/confirm`, and send it again",
    },
    404: {"model": Wrong, "description": "Not found"},
    408: {"model": GateRefusal, "description": "The body took longer than 20 seconds to arrive"},
    413: {"model": GateRefusal, "description": "The body is larger than 256 KiB"},
    415: {"model": Wrong, "description": "A multipart form"},
    421: {"model": GateRefusal, "description": "The server is not known under this host's name"},
    409: {"model": Wrong, "description": "Another change was made at the same time"},
    422: {"model": Wrong, "description": "Not possible; the answer says why"},
    429: {
        "model": Wrong,
        "description": "Too many requests of the same administrator or token wait already, or "
        "wrong service tokens came from the address; see Retry-After",
    },
    431: {"description": "The head is larger than 64 KiB; no body, and the connection ends"},
    503: {
        "model": Wrong,
        "description": "The database does not answer, or cannot be written; without a body, all "
        "connections are in use, and this one ends",
    },
}
