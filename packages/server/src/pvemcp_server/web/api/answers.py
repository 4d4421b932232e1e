"""Error answers that all routes of the admin REST API share."""

from typing import Any, Final, Literal

from pydantic import BaseModel


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


REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {
        "model": GateRefusal,
        "description": "The path is ambiguous; the answer says how to write it",
    },
    401: {"model": Wrong, "description": "Not signed in"},
    403: {
        "model": Wrong,
        "description": "The session's token is missing or wrong; `not_permitted`: to the "
        "administrator's role or the service token; `recent_sign_in_needed`: confirm it's you with "
        "`POST /session/confirm`, and send it again",
    },
    404: {"model": Wrong, "description": "Not found"},
    422: {"model": Wrong, "description": "Not possible; the answer says why"},
}
