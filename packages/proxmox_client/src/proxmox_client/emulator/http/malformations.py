"""Malformed bodies of successful responses, by name."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import msgspec

from proxmox_client.emulator.http.messages import Response

Change = Callable[[Any], Any]


def _everywhere(change: Change) -> Change:
    """Return a function that changes every number and text inside a JSON value."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changed(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [changed(inner) for inner in value]
        return change(value)

    return changed


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first_row(change: Change) -> Change:
    """Return a function that changes the first row of a list, or an object."""

    def changed(data: Any) -> Any:
        if isinstance(data, list):
            return [change(data[0]), *data[1:]] if data else data
        return change(data)

    return changed


MALFORMATIONS: Final[dict[str, Change | bytes]] = {
    "html": b"<html><body><h1>502 Bad Gateway</h1></body></html>",
    "empty": b"",
    "text": b'"unexpected"',
    "half": lambda data: data,
    "null": lambda _: None,
    "list": lambda data: [data],
    "null-row": _first_row(lambda _: None),
    "null-fields": _first_row(_everywhere(lambda _: None)),
    "swapped-types": _first_row(
        _everywhere(lambda value: {"": 1} if _is_number(value) else [value])
    ),
    "texts": _everywhere(lambda value: str(value) if _is_number(value) else value),
    "fractions": _everywhere(lambda value: value + 0.5 if _is_number(value) else value),
    "huge-numbers": _everywhere(lambda value: 2**63 + 7 if _is_number(value) else value),
}
"""The new body, or the function that changes the data of the response.

html and empty come with status 200, `half` is cut in the middle and complete by its length, and
`null-row`, `null-fields` and `swapped-types` change the first row of a list only.
"""


def malformed(response: Response, shape: str) -> Response:
    """Return a successful response with a malformed body; errors stay unchanged."""
    if response.status != 200:
        return response
    change = MALFORMATIONS[shape]
    if isinstance(change, bytes):
        content_type = "text/html" if shape == "html" else response.content_type
        return replace(response, body=change, content_type=content_type)
    body = msgspec.json.decode(response.body)
    if isinstance(body, dict) and "data" in body:
        body["data"] = change(body["data"])
    # the standard library's encoder has no bound for numbers
    text = json.dumps(body).encode()
    return replace(response, body=text[: len(text) // 2] if shape == "half" else text)
