"""What the answers of the admin REST API have in common."""

from typing import Any, Final

from fastapi import status
from pydantic import BaseModel

CREATED: Final = status.HTTP_201_CREATED
GONE: Final = status.HTTP_204_NO_CONTENT


class Wrong(BaseModel):
    """Why it was not done."""

    error: str


REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": Wrong, "description": "Nobody is signed in"},
    403: {"model": Wrong, "description": "The token of the session is missing or wrong"},
    404: {"model": Wrong, "description": "There is no such thing"},
    422: {"model": Wrong, "description": "Not possible as asked; says what is wrong"},
}
