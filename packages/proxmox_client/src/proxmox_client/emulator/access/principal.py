"""The principal of a request and its rights."""

from collections.abc import Iterable
from dataclasses import dataclass

from proxmox_client.emulator.access.acl import EffectivePrivileges
from proxmox_client.emulator.errors import Forbidden
from proxmox_client.emulator.state.cluster import ClusterState

ROOT = "root@pam"


@dataclass(frozen=True, slots=True)
class Principal:
    """A user or an API token."""

    userid: str
    token: str = ""
    privsep: bool = False

    @property
    def name(self) -> str:
        """User ID or token ID, as in tasks and logs."""
        return f"{self.userid}!{self.token}" if self.token else self.userid

    def owns(self, name: str) -> bool:
        """Return whether a task of `name` is theirs; a user owns the tasks of their tokens."""
        return name == self.name or name.partition("!")[0] == self.name

    @property
    def is_root(self) -> bool:
        """Whether they have every privilege; the tokens of root have not."""
        return self.userid == ROOT and not self.token


class Rights:
    """The privileges of one principal in one cluster."""

    def __init__(self, principal: Principal, state: ClusterState) -> None:
        self.principal = principal
        self._state = state
        self._privileges = EffectivePrivileges(state)

    def on(self, path: str) -> dict[str, bool]:
        """Return the privileges on a path, each with whether it propagates below it."""
        of_user = self._privileges.to_user(self.principal.userid, path)
        if not self.principal.token or not self.principal.privsep:
            return of_user
        of_token = self._privileges.to_token(self.principal.name, path)
        return {name: of_user[name] and of_token[name] for name in of_user.keys() & of_token.keys()}

    def has(self, path: str, *privileges: str) -> bool:
        """Return whether all of these privileges are held on a path."""
        return self.principal.is_root or self.on(path).keys() >= set(privileges)

    def has_any(self, path: str, *privileges: str) -> bool:
        """Return whether at least one of these privileges is held on a path."""
        return self.principal.is_root or not self.on(path).keys().isdisjoint(privileges)

    def require(self, path: str, *privileges: str) -> None:
        """Raise Forbidden with the first missing privilege unless all are held."""
        held = None if self.principal.is_root else self.on(path)
        missing = [] if held is None else [name for name in privileges if name not in held]
        if missing:
            raise Forbidden(f"{path}, {missing[0]}")

    def require_any(self, path: str, privileges: Iterable[str]) -> None:
        """Raise Forbidden with all privileges unless one is held."""
        names = tuple(privileges)
        if not self.has_any(path, *names):
            raise Forbidden(f"{path}, {'|'.join(names)}")
