"""The permission check of an endpoint, as published in the API schema."""

from collections.abc import Mapping
from typing import Any

from proxmox_client.emulator.access.principal import Principal, Rights
from proxmox_client.emulator.errors import Forbidden
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.schema import Endpoint

OPEN = frozenset({("GET", "/cluster/options")})
"""Endpoints that every account may read in part, other than published."""


class PermissionCheck:
    """The check of one request of one principal."""

    def __init__(
        self, principal: Principal, rights: Rights, state: ClusterState, params: Mapping[str, Any]
    ) -> None:
        self._principal, self._rights = principal, rights
        self._state, self._params = state, params

    def require(self, endpoint: Endpoint) -> None:
        """Raise Forbidden unless the endpoint's permissions allow the request."""
        rule = endpoint.permissions
        is_open = (endpoint.method, endpoint.path) in OPEN
        if self._principal.is_root or rule in ("all", "world") or is_open:
            return
        if rule is None:
            raise Forbidden("user != root@pam")
        self._check(rule)

    def _check(self, rule: list[Any]) -> None:
        match rule:
            case ["or", *choices]:
                self._any(choices)
            case ["and", *parts]:
                for part in parts:
                    self._check(part)
            case ["perm", path, privileges, *options]:
                self._privileges(
                    path, privileges, dict(zip(options[::2], options[1::2], strict=True))
                )
            case ["userid-param", "self"]:
                if self._params.get("userid") != self._principal.name:
                    raise Forbidden
            case ["userid-param", privilege]:
                realm = str(self._params.get("userid", "")).rpartition("@")[2]
                self._rights.require(f"/access/realm/{realm}", privilege)
            case ["userid-group", privileges, *_]:
                self._users(privileges)
            case ["perm-modify", path]:
                path = self._fill(path)
                self._rights.require_any(path, modify_privileges(path))

    def _any(self, choices: list[Any]) -> None:
        problem: Forbidden | None = None
        for choice in choices:
            try:
                return self._check(choice)
            except Forbidden as refusal:
                problem = refusal
        if problem is not None:
            raise problem
        return None

    def _privileges(self, path: str, privileges: list[str], options: dict[str, Any]) -> None:
        if (name := options.get("require_param")) and not self._params.get(name):
            raise Forbidden
        path = self._fill(path)
        if options.get("any"):
            self._rights.require_any(path, privileges)
        else:
            self._rights.require(path, *privileges)

    def _users(self, privileges: list[str]) -> None:
        """Check privileges over a user: on all groups, or on one of the user's groups."""
        user = self._state.user_config.users.get(str(self._params.get("userid", "")))
        paths = [
            "/access/groups",
            *(f"/access/groups/{name}" for name in (user.groups if user else ())),
        ]
        if not any(self._rights.has_any(path, *privileges) for path in paths):
            raise Forbidden

    def _fill(self, path: str) -> str:
        """Insert the request's values into a path."""
        for name, value in self._params.items():
            path = path.replace(f"{{{name}}}", str(value))
        return path


def modify_privileges(path: str) -> tuple[str, ...]:
    """Return the privileges that allow a change of the ACL on a path; one of them is enough."""
    kind, _, name = path.strip("/").partition("/")
    own = {"vms": "VM.Allocate", "storage": "Datastore.Allocate", "pool": "Pool.Allocate"}
    return ("Permissions.Modify", own[kind]) if name and kind in own else ("Permissions.Modify",)
