"""Error answers that all routes of the admin REST API share, those of the HTTP layer included."""

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
        "model": GateRefusal | Wrong,
        "description": "The path, the host or the body is ambiguous or unreadable",
    },
    401: {"model": Wrong, "description": "Not signed in"},
    403: {
        "model": Wrong | GateRefusal,
        "description": "The session's token is missing or wrong, or the page is of another origin",
    },
    404: {"model": Wrong, "description": "Not found"},
    408: {"model": GateRefusal, "description": "The body took longer than 20 seconds to arrive"},
    413: {"model": GateRefusal, "description": "The body is larger than 256 KiB"},
    415: {"model": Wrong, "description": "A multipart form"},
    421: {"model": GateRefusal, "description": "The server is not known under this host's name"},
    422: {"model": Wrong, "description": "Not possible; the answer says why"},
    431: {"description": "The head is larger than 64 KiB; no body, and the connection ends"},
    503: {"description": "All connections are in use; no body, and the connection ends"},
}
