"""What is granted on a path: propagation, groups, pools and NoAccess."""

from collections.abc import Callable, Iterable, Iterator

from proxmox_client.emulator.access.roles import builtin_roles
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.people import Grant

Roles = dict[str, bool]
"""Roles by name, and whether each reaches below its path."""
Level = Callable[[list[Grant]], Iterator[list[Grant]]]
RolesOn = Callable[[str], Roles]


class Granted:
    """Reads the grants of a cluster."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state

    def to_user(self, userid: str, path: str) -> dict[str, bool]:
        """A user's privileges on a path, through their groups and pools as well."""
        if userid == "root@pam":
            return dict.fromkeys(self._privileges("Administrator"), True)
        user = self._state.people.users.get(userid)
        groups = user.groups if user else set()

        def level(grants: list[Grant]) -> Iterator[list[Grant]]:
            yield [grant for grant in grants if (grant.kind, grant.whom) == ("user", userid)]
            yield [grant for grant in grants if grant.kind == "group" and grant.whom in groups]

        return self._with_pool(path, lambda where: self._roles(where, level))

    def to_token(self, name: str, path: str) -> dict[str, bool]:
        """The privileges granted to a token itself."""

        def level(grants: list[Grant]) -> Iterator[list[Grant]]:
            yield [grant for grant in grants if (grant.kind, grant.whom) == ("token", name)]

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
        """The roles on a path: what is granted closer to it replaces what comes from above."""
        found: Roles = {}
        for prefix in prefixes(path):
            here = [grant for grant in self._at(prefix) if grant.propagate or prefix == path]
            for grants in level(here):
                if grants:
                    found = _combined(grants)
                    break
        return found

    def _at(self, path: str) -> list[Grant]:
        return [grant for grant in self._state.people.grants if grant.path == path]

    def _privileges(self, role: str) -> Iterable[str]:
        builtin = builtin_roles(self._state.release)
        return builtin.get(role) or self._state.people.roles.get(role, frozenset())

    def _pools_of(self, path: str) -> list[str]:
        kind, _, name = path.strip("/").partition("/")
        if kind == "vms" and name.isdigit():
            return [pool.poolid for pool in self._state.pools.values() if int(name) in pool.vmids]
        if kind == "storage" and name:
            return [pool.poolid for pool in self._state.pools.values() if name in pool.storages]
        return []


def _combined(grants: list[Grant]) -> Roles:
    if any(grant.role == "NoAccess" for grant in grants):
        return {"NoAccess": True}
    return {grant.role: grant.propagate for grant in grants}


def prefixes(path: str) -> list[str]:
    """A path and everything above it, from the top."""
    parts = [part for part in path.split("/") if part]
    return ["/", *("/" + "/".join(parts[: number + 1]) for number in range(len(parts)))]
