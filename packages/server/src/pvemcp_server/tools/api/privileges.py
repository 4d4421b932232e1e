"""The privileges that Proxmox asks for a request, by the permission check in its schema."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from proxmox_client import ProxmoxError
from proxmox_client.api.access import Permissions
from pvemcp_server.clusters import Cluster
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tools.api.request import ApiRequest, filled


class _UnknownCheckError(Exception):
    """Proxmox decides by more than privileges on paths that the request names."""


async def required(cluster: Cluster, request: ApiRequest) -> tuple[str, str]:
    """Return what Proxmox asks for, in words, and what the account lacks; empty if not known."""
    check = request.endpoint.permissions
    if check is None:
        is_root = cluster.account.partition("!")[0] == "root@pam"
        return "root@pam", "" if is_root else f"{cluster.account} is not root@pam"
    try:
        filled = _filled(check, request.values)
    except _UnknownCheckError:
        return "", ""
    paths = sorted({path for path, *_ in _privileges(filled)})
    try:
        answers = await asyncio.gather(*map(cluster.pve.access.permissions, paths))
    except ProxmoxError:  # the plan stands without it
        return _in_words(filled), ""
    held = dict(zip(paths, answers, strict=True))
    lacking = _lacking(filled, held)
    return _in_words(filled), f"{cluster.account} lacks {lacking}" if lacking else ""


def _filled(check: Any, values: Mapping[str, Any]) -> Any:
    """Return the check with the values of the request in its paths."""
    match check:
        case str():
            return check
        case ["and" | "or" as word, *parts]:
            return [word, *(_filled(part, values) for part in parts)]
        case ["perm", str(), _, "require_param", str(name), *_] if not values.get(name):
            return "all"
        case ["perm", str(path), privileges, *rest]:
            return ["perm", filled(path, lambda name: _value(values, name)), privileges, *rest]
    raise _UnknownCheckError


def _value(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value:
        raise _UnknownCheckError
    return value


def _privileges(check: Any) -> Iterator[tuple[str, list[str]]]:
    match check:
        case ["and" | "or", *parts]:
            for part in parts:
                yield from _privileges(part)
        case ["perm", str(path), privileges, *_]:
            yield path, privileges


def _lacking(check: Any, held: Mapping[str, Permissions]) -> str:
    """Return the missing privileges in words; empty if the check passes."""
    match check:
        case ["perm", str(path), privileges, *rest]:
            own = held[path].get(path, {})
            missing = [each for each in privileges if each not in own]
            if "any" in rest and len(missing) < len(privileges):
                return ""
            return f"{_joined(missing, rest)} on {shown_name(path)}" if missing else ""
        case ["and", *parts]:
            return " and ".join(filter(None, (_lacking(part, held) for part in parts)))
        case ["or", *parts]:
            each = [_lacking(part, held) for part in parts]
            return " or ".join(each) if all(each) else ""
    return ""


def _in_words(check: Any) -> str:
    match check:
        case ["perm", str(path), privileges, *rest]:
            return f"{_joined(privileges, rest)} on {shown_name(path)}"
        case ["and" | "or" as word, *parts]:
            return f" {word} ".join(filter(None, map(_in_words, parts)))
    return ""


def _joined(privileges: list[str], rest: list[Any]) -> str:
    return (" or " if "any" in rest else " and ").join(privileges)
