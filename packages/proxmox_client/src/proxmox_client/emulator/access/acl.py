"""The privileges of the ACL on a path: propagation, groups, pools and NoAccess."""

from collections.abc import Callable, Iterable, Iterator

from proxmox_client.emulator.access.roles import builtin_roles
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.user_config import AclEntry

Roles = dict[str, bool]
"""Roles by name, each with whether it propagates below its path."""
Level = Callable[[list[AclEntry]], Iterator[list[AclEntry]]]
RolesOn = Callable[[str], Roles]


class EffectivePrivileges:
    """The effective privileges of a cluster's ACL."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state

    def to_user(self, userid: str, path: str) -> dict[str, bool]:
        """Return a user's privileges on a path, including those of groups and pools."""
        if userid == "root@pam":
            return dict.fromkeys(self._privileges("Administrator"), True)
        user = self._state.user_config.users.get(userid)
        groups = user.groups if user else set()

        def level(entries: list[AclEntry]) -> Iterator[list[AclEntry]]:
            yield [entry for entry in entries if (entry.kind, entry.ugid) == ("user", userid)]
            yield [entry for entry in entries if entry.kind == "group" and entry.ugid in groups]

        return self._with_pool(path, lambda where: self._roles(where, level))

    def to_token(self, name: str, path: str) -> dict[str, bool]:
        """Return the privileges of a token's own entries on a path."""

        def level(entries: list[AclEntry]) -> Iterator[list[AclEntry]]:
            yield [entry for entry in entries if (entry.kind, entry.ugid) == ("token", name)]

        return self._with_pool(path, lambda where: self._roles(where, level))

    def _with_pool(self, path: str, roles_on: RolesOn) -> dict[str, bool]:
        roles = roles_on(path)
        pooled = {name for pool in self._pools_of(path) for name in roles_on(f"/pool/{pool}")}
        if "NoAccess" in pooled:
            roles = {"NoAccess": False}
        elif "NoAccess" not in roles:
            roles = dict.fromkeys(pooled, False) | roles
        privileges: dict[str, bool] = {}
        for role, below in roles.items():
            for privilege in self._privileges(role):
                privileges[privilege] = privileges.get(privilege, False) or below
        return privileges

    def _roles(self, path: str, level: Level) -> Roles:
        """Return the roles on a path; entries closer to it replace those from above."""
        roles: Roles = {}
        for prefix in prefixes(path):
            here = [entry for entry in self._at(prefix) if entry.propagate or prefix == path]
            for entries in level(here) if here else ():
                if entries:
                    roles = _combined(entries)
                    break
        return roles

    def _at(self, path: str) -> list[AclEntry]:
        return [entry for entry in self._state.user_config.acl if entry.path == path]

    def _privileges(self, role: str) -> Iterable[str]:
        builtin = builtin_roles(self._state.release)
        return builtin.get(role) or self._state.user_config.roles.get(role, frozenset())

    def _pools_of(self, path: str) -> list[str]:
        kind, _, name = path.strip("/").partition("/")
        if kind == "vms" and name.isdigit():
            return [pool.poolid for pool in self._state.pools.values() if int(name) in pool.vmids]
        if kind == "storage" and name:
            return [pool.poolid for pool in self._state.pools.values() if name in pool.storages]
        return []


def _combined(entries: list[AclEntry]) -> Roles:
    if any(entry.role == "NoAccess" for entry in entries):
        return {"NoAccess": True}
    return {entry.role: entry.propagate for entry in entries}


def prefixes(path: str) -> list[str]:
    """Return a path and its parents, from the top."""
    parts = [part for part in path.split("/") if part]
    return ["/", *("/" + "/".join(parts[: number + 1]) for number in range(len(parts)))]
