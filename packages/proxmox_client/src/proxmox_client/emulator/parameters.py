"""Request parameters: parsed from forms or JSON, and converted to the types of the schema."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.http.messages import Request
from proxmox_client.emulator.http.multipart import parse_multipart
from proxmox_client.schema import Endpoint, Parameter


def read(request: Request) -> dict[str, Any]:
    """Parse the parameters of a request; a repeated name becomes a list.

    Raise ApiError (400) for JSON that is not an object.
    """
    values: dict[str, Any] = {}
    content_type = request.headers.get("content-type", "")
    _collect(values, request.query)
    if content_type.startswith("application/json") and request.body:
        values.update(_json(request.body))
    elif content_type.startswith("multipart/form-data"):
        values.update(parse_multipart(content_type, request.body)[0])
    else:
        _collect(values, request.body.decode("utf-8", "replace"))
    return values


def typed(endpoint: Endpoint, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert validated parameters to the types of the schema."""
    result = {}
    for name, value in values.items():
        parameter = endpoint.parameter(name)
        result[name] = _typed(parameter, value) if parameter else value
    return result


def _typed(parameter: Parameter, value: Any) -> Any:
    match parameter.type:
        case "integer":
            return int(value)
        case "number":
            return float(value)
        case "boolean":
            return value in (True, 1, "1")
        case "array":
            return list(value) if isinstance(value, list) else [value]
        case _:
            return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _collect(values: dict[str, Any], text: str) -> None:
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in values:
            values[name] = value
        elif isinstance(values[name], list):
            values[name].append(value)
        else:
            values[name] = [values[name], value]


def _json(body: bytes) -> dict[str, Any]:
    try:
        values = msgspec.json.decode(body)
    except msgspec.DecodeError:
        values = None
    if not isinstance(values, dict):
        raise ApiError("malformed JSON string", status=400)
    return {name: _form_value(value) for name, value in values.items()}


def _form_value(value: Any) -> Any:
    """Convert a JSON value to what a form would hold; null becomes a blank, as in Proxmox."""
    if isinstance(value, bool):
        return int(value)
    return " " if value is None else value


def stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert parameters to what configuration files hold: booleans become 0 and 1."""
    return {
        name: int(value) if isinstance(value, bool) else value for name, value in values.items()
    }
