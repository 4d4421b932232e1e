"""Error answers that all routes of the admin REST API share."""

from typing import Any, Final

from pydantic import BaseModel


class Wrong(BaseModel):
    """The reason why a request was not carried out."""

    error: str


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


REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {
        "model": GateRefusal,
        "description": "The path is ambiguous; the answer says how to write it",
    },
    401: {"model": Wrong, "description": "Not signed in"},
    403: {"model": Wrong, "description": "The session's token is missing or wrong"},
    404: {"model": Wrong, "description": "Not found"},
    422: {"model": Wrong, "description": "Not possible; the answer says why"},
}
