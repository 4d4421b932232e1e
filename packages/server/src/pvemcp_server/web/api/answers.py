"""What the answers of the admin REST API have in common."""

from typing import Any, Final

from fastapi import status
from pydantic import BaseModel

CREATED: Final = status.HTTP_201_CREATED
GONE: Final = status.HTTP_204_NO_CONTENT


class Wrong(BaseModel):
    """Why it was not done."""

    error: str


class GateError(BaseModel):
    """The error object of JSON-RPC."""

    code: int
    message: str
    data: dict[str, int]


class GateRefusal(BaseModel):
    """An answer of the gate, which does not know that the path was one of the API."""

    jsonrpc: str
    id: None
    error: GateError


REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": GateRefusal, "description": "The path is ambiguous; says how to spell it"},
    401: {"model": Wrong, "description": "Nobody is signed in"},
    403: {"model": Wrong, "description": "The token of the session is missing or wrong"},
    404: {"model": Wrong, "description": "There is no such thing"},
    422: {"model": Wrong, "description": "Not possible as asked; says what is wrong"},
}
