"""The description of the administration API, made once in a process: it takes half a second."""

from copy import deepcopy
from functools import cache
from typing import Any

from pvemcp_server.web.api import create_api


@cache
def _description() -> dict[str, Any]:
    return create_api().openapi()


def description() -> dict[str, Any]:
    """Return the OpenAPI description, which the caller may change."""
    return deepcopy(_description())
