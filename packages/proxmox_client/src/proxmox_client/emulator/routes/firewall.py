"""Firewall configuration; nothing is filtered."""

import hashlib
from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.firewall import RuleSet

NODE_LEVEL = "/nodes/{node}/firewall"
LEVELS = (
    "/cluster/firewall",
    NODE_LEVEL,
    "/nodes/{node}/qemu/{vmid}/firewall",
    "/nodes/{node}/lxc/{vmid}/firewall",
)


def levels(path: str, *, nodes: bool = True) -> list[str]:
    """Return a path on every level of the firewall; nodes have rules and options only."""
    return [f"{level}{path}" for level in LEVELS if nodes or level != NODE_LEVEL]


@route("GET", *levels("/options"))
def options(request: ApiRequest) -> dict[str, Any]:
    """GET …/firewall/options."""
    current = _rules(request).options
    return {**current, "digest": _digest(current)}


@route("PUT", *levels("/options"))
def set_options(request: ApiRequest) -> None:
    """PUT …/firewall/options."""
    current = _rules(request).options
    for name in str(request.get("delete", "")).split(","):
        current.pop(name, None)
    current.update(stored(request.params_without("delete", "digest", "node", "vmid")))


@route("GET", *levels("/rules"), "/cluster/firewall/groups/{group}")
def rules(request: ApiRequest) -> list[dict[str, Any]]:
    """GET …/firewall/rules and of a group."""
    listed = _rule_list(request)
    digest = _digest(listed)
    return [{**rule, "pos": position, "digest": digest} for position, rule in enumerate(listed)]


@route("POST", *levels("/rules"), "/cluster/firewall/groups/{group}")
def add_rule(request: ApiRequest) -> None:
    """POST …/firewall/rules and to a group: a rule is added at the top by default."""
    rule = request.params_without("digest", "node", "vmid", "group", "pos")
    _rule_list(request).insert(request.get("pos", 0), rule)


@route("DELETE", *levels("/rules/{pos}"))
def delete_rule(request: ApiRequest) -> None:
    """DELETE …/firewall/rules/{pos}."""
    listed, position = _rules(request).rules, request.params["pos"]
    if position >= len(listed):
        raise request.invalid(pos=f"no rule at position {position}")
    del listed[position]


@route("GET", "/cluster/firewall/groups")
def groups(request: ApiRequest) -> list[dict[str, Any]]:
    """GET /cluster/firewall/groups."""
    by_name = _rules(request).groups
    return [{"group": name, "digest": _digest(listed)} for name, listed in by_name.items()]


@route("POST", "/cluster/firewall/groups")
def create_group(request: ApiRequest) -> None:
    """POST /cluster/firewall/groups."""
    by_name, name = _rules(request).groups, request.params["group"]
    if name in by_name:
        raise ApiError(f"Security group '{name}' already exists")
    by_name[name] = []


@route("GET", *levels("/aliases", nodes=False))
def aliases(request: ApiRequest) -> list[dict[str, Any]]:
    """GET …/firewall/aliases."""
    listed = _rules(request).aliases
    return [{**alias, "digest": _digest(listed)} for alias in listed]


@route("POST", *levels("/aliases", nodes=False))
def create_alias(request: ApiRequest) -> None:
    """POST …/firewall/aliases."""
    alias = request.params_without("node", "vmid")
    _rules(request).aliases.append({**alias, "ipversion": 6 if ":" in alias["cidr"] else 4})


@route("GET", *levels("/ipset", nodes=False))
def ip_sets(request: ApiRequest) -> list[dict[str, Any]]:
    """GET …/firewall/ipset."""
    by_name = _rules(request).ip_sets
    return [{"name": name, "digest": _digest(entries)} for name, entries in by_name.items()]


@route("POST", *levels("/ipset", nodes=False))
def create_ip_set(request: ApiRequest) -> None:
    """POST …/firewall/ipset."""
    _rules(request).ip_sets.setdefault(request.params["name"], [])


@route("GET", *levels("/ipset/{name}", nodes=False))
def ip_set(request: ApiRequest) -> list[dict[str, Any]]:
    """GET …/firewall/ipset/{name}."""
    entries = _entries(request)
    return [{**entry, "digest": _digest(entries)} for entry in entries]


@route("POST", *levels("/ipset/{name}", nodes=False))
def add_to_ip_set(request: ApiRequest) -> None:
    """POST …/firewall/ipset/{name}."""
    _entries(request).append(request.params_without("name", "node", "vmid"))


@route("GET", *levels("/refs", nodes=False))
def references(request: ApiRequest) -> list[dict[str, Any]]:
    """GET …/firewall/refs."""
    rule_set = _rules(request)
    rows: list[dict[str, Any]] = [
        {"type": "ipset", "name": name, "ref": f"+dc/{name}", "scope": "dc"}
        for name in rule_set.ip_sets
    ]
    rows += [
        {"type": "alias", "name": alias["name"], "ref": f"dc/{alias['name']}", "scope": "dc"}
        for alias in rule_set.aliases
    ]
    return rows


def _rules(request: ApiRequest) -> RuleSet:
    """Return the rule set of the level in the path."""
    level = request.guest.path if "vmid" in request.params else request.params.get("node", "")
    return request.state.firewalls.setdefault(level, RuleSet())


def _rule_list(request: ApiRequest) -> list[dict[str, Any]]:
    """Return the rules of the level, or of the group in the path."""
    if "group" not in request.params:
        return _rules(request).rules
    by_name, name = _rules(request).groups, request.params["group"]
    if name not in by_name:
        raise ApiError(f"no such security group '{name}'")
    return by_name[name]


def _entries(request: ApiRequest) -> list[dict[str, Any]]:
    by_name, name = _rules(request).ip_sets, request.params["name"]
    if name not in by_name:
        raise ApiError(f"no such IPSet '{name}'")
    return by_name[name]


def _digest(value: Any) -> str:
    text = str(value) if value else ""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
