"""The permission an endpoint asks for, as its schema states it."""

from collections.abc import Mapping
from typing import Any

from proxmox_client.emulator.access.principal import Principal, Rights
from proxmox_client.emulator.errors import Forbidden
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.schema import Endpoint


class PermissionCheck:
    """Checks one request of one caller."""

    def __init__(
        self, caller: Principal, rights: Rights, state: ClusterState, params: Mapping[str, Any]
    ) -> None:
        self._caller, self._rights = caller, rights
        self._state, self._params = state, params

    def require(self, endpoint: Endpoint) -> None:
        """Refuse what the endpoint's permissions do not allow."""
        wanted = endpoint.permissions
        if self._caller.is_root or wanted in ("all", "world"):
            return
        if wanted is None:
            raise Forbidden("user != root@pam")
        self._check(wanted)

    def _check(self, wanted: list[Any]) -> None:
        match wanted:
            case ["or", *choices]:
                self._any(choices)
            case ["and", *needed]:
                for each in needed:
                    self._check(each)
            case ["perm", path, privileges, *options]:
                self._privileges(
                    path, privileges, dict(zip(options[::2], options[1::2], strict=True))
                )
            case ["userid-param", "self"]:
                if self._params.get("userid") != self._caller.userid:
                    raise Forbidden
            case ["userid-param", privilege]:
                realm = str(self._params.get("userid", "")).rpartition("@")[2]
                self._rights.require(f"/access/realm/{realm}", privilege)
            case ["userid-group", privileges, *_]:
                self._users(privileges)
            case ["perm-modify", path]:
                self._modify(self._filled(path))

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
        if (needed := options.get("require_param")) and not self._params.get(needed):
            raise Forbidden
        where = self._filled(path)
        if options.get("any"):
            self._rights.require_any(where, privileges)
        else:
            self._rights.require(where, *privileges)

    def _users(self, privileges: list[str]) -> None:
        """Over a user: by way of their groups, or of all groups."""
        user = self._state.user_config.users.get(str(self._params.get("userid", "")))
        paths = [
            "/access/groups",
            *(f"/access/groups/{name}" for name in (user.groups if user else ())),
        ]
        if not any(self._rights.has_any(path, *privileges) for path in paths):
            raise Forbidden(f"/access/groups, {'|'.join(privileges)}")

    def _modify(self, path: str) -> None:
        """Who may change grants on a path."""
        own = {"vms": "VM.Allocate", "storage": "Datastore.Allocate", "pool": "Pool.Allocate"}
        special = own.get(path.strip("/").partition("/")[0])
        allowed = ("Permissions.Modify", *([special] if special else []))
        self._rights.require_any(path, allowed)

    def _filled(self, path: str) -> str:
        """A path with the request's values in it."""
        for name, value in self._params.items():
            path = path.replace(f"{{{name}}}", str(value))
        return path
