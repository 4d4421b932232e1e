"""Property strings: several values in one parameter, like `virtio=…,bridge=vmbr0`."""

from collections.abc import Mapping

from proxmox_client.schema.parameter import Parameter


class BadPropertyString(ValueError):
    """A text that is not a property string of these parts."""


def parse(text: str, parts: Mapping[str, Parameter]) -> dict[str, str]:
    """Parse a property string to values by part name, with aliases resolved."""
    values: dict[str, str] = {}
    for piece in text.split(","):
        if not piece.strip():
            continue
        name, value = _split(piece, parts, values)
        _store(name, value, parts, values)
    return values


def _split(piece: str, parts: Mapping[str, Parameter], values: dict[str, str]) -> tuple[str, str]:
    name, equals, value = piece.partition("=")
    if name and equals and value:
        return name, value
    if equals or not piece:
        raise BadPropertyString("missing key in comma-separated list property")
    default = next((key for key, part in parts.items() if part.is_default_key), None)
    if default is None:
        raise BadPropertyString("value without key, but schema does not define a default key")
    if default in values:
        raise BadPropertyString("missing key in comma-separated list property")
    return default, piece


def _store(name: str, value: str, parts: Mapping[str, Parameter], values: dict[str, str]) -> None:
    part = parts.get(name)
    if part is not None and part.key_alias:
        values[part.key_alias] = name
    target = part.alias if part is not None and part.alias else name
    if target in values:
        raise BadPropertyString(f"duplicate key in comma-separated list property: {target}")
    values[target] = value
