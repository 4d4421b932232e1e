"""Requests that have no method of their own, checked before they are sent."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from proxmox_client.errors import BadParameters
from proxmox_client.paths import join


def checked(release: str, method: str, path: str, parameters: Mapping[str, Any]) -> str:
    """The path to ask, encoded; BadParameters for what the schema of this release doesn't know."""
    # the schema takes a moment to load, and most users never ask for it
    from proxmox_client import schema

    found = schema.load(release).find(method, path)
    if found is None:
        message = f"{method} {path} does not exist in Proxmox VE {release}"
        raise BadParameters(501, "", message, {"path": message})
    endpoint, in_path = found
    given = {name: value for name, value in parameters.items() if value is not None}
    errors = endpoint.check({**in_path, **given})
    if errors:
        named = "; ".join(f"{name}: {text}" for name, text in errors.items())
        raise BadParameters(400, "", f"{method} {path}: {named}", errors)
    return join(*(unquote(segment) for segment in path.strip("/").split("/")))
