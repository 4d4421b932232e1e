"""A request's parameters: from forms or JSON, and into the types the schema gives them."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.http.messages import Request
from proxmox_client.emulator.http.multipart import fields_of
from proxmox_client.schema import Endpoint, Parameter


def read(request: Request) -> dict[str, Any]:
    """The parameters of a request; a name given twice becomes a list."""
    values: dict[str, Any] = {}
    kind = request.headers.get("content-type", "")
    _collect(values, request.query)
    if kind.startswith("application/json") and request.body:
        values.update(_json(request.body))
    elif kind.startswith("multipart/form-data"):
        values.update(fields_of(kind, request.body)[0])
    else:
        _collect(values, request.body.decode("utf-8", "replace"))
    return values


def typed(endpoint: Endpoint, values: Mapping[str, Any]) -> dict[str, Any]:
    """Checked parameters in their types; a boolean is one."""
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
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """A JSON value as a form would carry it; null is stored as a blank, as Proxmox does."""
    if isinstance(value, bool):
        return int(value)
    return " " if value is None else value


def stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as configurations keep them: booleans are 0 and 1."""
    return {
        name: int(value) if isinstance(value, bool) else value for name, value in values.items()
    }
