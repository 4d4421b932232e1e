"""The firewall, as configuration only: nothing is filtered."""

import hashlib
from typing import Any

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.firewall import RuleSet

NODE_LEVEL = "/nodes/{node}/firewall"
LEVELS = (
    "/cluster/firewall",
    NODE_LEVEL,
    "/nodes/{node}/qemu/{vmid}/firewall",
    "/nodes/{node}/lxc/{vmid}/firewall",
)


def levels(path: str, *, nodes: bool = True) -> list[str]:
    """A path on every level that has a firewall; a node's has rules and options only."""
    return [f"{level}{path}" for level in LEVELS if nodes or level != NODE_LEVEL]


@route("GET", *levels("/options"))
def options(call: Call) -> dict[str, Any]:
    """GET …/firewall/options."""
    found = _rules(call).options
    return {**found, "digest": _digest(found)}


@route("PUT", *levels("/options"))
def set_options(call: Call) -> None:
    """PUT …/firewall/options."""
    found = _rules(call).options
    for name in str(call.get("delete", "")).split(","):
        found.pop(name, None)
    given = call.given("delete", "digest", "node", "vmid")
    found.update(stored(given))


@route("GET", *levels("/rules"), "/cluster/firewall/groups/{group}")
def rules(call: Call) -> list[dict[str, Any]]:
    """GET …/firewall/rules and of a group."""
    found = _list(call)
    return [{**rule, "pos": place, "digest": _digest(found)} for place, rule in enumerate(found)]


@route("POST", *levels("/rules"), "/cluster/firewall/groups/{group}")
def add_rule(call: Call) -> None:
    """POST …/firewall/rules and to a group: the newest comes first."""
    given = call.given("digest", "node", "vmid", "group", "pos")
    _list(call).insert(call.get("pos", 0), given)


@route("DELETE", *levels("/rules/{pos}"))
def delete_rule(call: Call) -> None:
    """DELETE …/firewall/rules/{pos}."""
    found, place = _rules(call).rules, call.params["pos"]
    if place >= len(found):
        raise call.bad(pos=f"no rule at position {place}")
    del found[place]


@route("GET", "/cluster/firewall/groups")
def groups(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/firewall/groups."""
    found = _rules(call).groups
    return [{"group": name, "digest": _digest(rules)} for name, rules in found.items()]


@route("POST", "/cluster/firewall/groups")
def create_group(call: Call) -> None:
    """POST /cluster/firewall/groups."""
    found, name = _rules(call).groups, call.params["group"]
    if name in found:
        raise ApiError(f"Security group '{name}' already exists")
    found[name] = []


@route("GET", *levels("/aliases", nodes=False))
def aliases(call: Call) -> list[dict[str, Any]]:
    """GET …/firewall/aliases."""
    found = _rules(call).aliases
    return [{**alias, "digest": _digest(found)} for alias in found]


@route("POST", *levels("/aliases", nodes=False))
def create_alias(call: Call) -> None:
    """POST …/firewall/aliases."""
    given = call.given("node", "vmid")
    _rules(call).aliases.append({**given, "ipversion": 6 if ":" in given["cidr"] else 4})


@route("GET", *levels("/ipset", nodes=False))
def ip_sets(call: Call) -> list[dict[str, Any]]:
    """GET …/firewall/ipset."""
    found = _rules(call).ip_sets
    return [{"name": name, "digest": _digest(entries)} for name, entries in found.items()]


@route("POST", *levels("/ipset", nodes=False))
def create_ip_set(call: Call) -> None:
    """POST …/firewall/ipset."""
    _rules(call).ip_sets.setdefault(call.params["name"], [])


@route("GET", *levels("/ipset/{name}", nodes=False))
def ip_set(call: Call) -> list[dict[str, Any]]:
    """GET …/firewall/ipset/{name}."""
    entries = _entries(call)
    return [{**entry, "digest": _digest(entries)} for entry in entries]


@route("POST", *levels("/ipset/{name}", nodes=False))
def add_to_ip_set(call: Call) -> None:
    """POST …/firewall/ipset/{name}."""
    _entries(call).append(call.given("name", "node", "vmid"))


@route("GET", *levels("/refs", nodes=False))
def references(call: Call) -> list[dict[str, Any]]:
    """GET …/firewall/refs."""
    found = _rules(call)
    rows: list[dict[str, Any]] = [
        {"type": "ipset", "name": name, "ref": f"+dc/{name}", "scope": "dc"}
        for name in found.ip_sets
    ]
    rows += [
        {"type": "alias", "name": each["name"], "ref": f"dc/{each['name']}", "scope": "dc"}
        for each in found.aliases
    ]
    return rows


def _rules(call: Call) -> RuleSet:
    """The rule set of the level a path is on."""
    level = call.guest.path if "vmid" in call.params else call.params.get("node", "")
    return call.state.firewalls.setdefault(level, RuleSet())


def _list(call: Call) -> list[dict[str, Any]]:
    if "group" not in call.params:
        return _rules(call).rules
    found, name = _rules(call).groups, call.params["group"]
    if name not in found:
        raise ApiError(f"no such security group '{name}'")
    return found[name]


def _entries(call: Call) -> list[dict[str, Any]]:
    found, name = _rules(call).ip_sets, call.params["name"]
    if name not in found:
        raise ApiError(f"no such IPSet '{name}'")
    return found[name]


def _digest(value: Any) -> str:
    text = str(value) if value else ""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
