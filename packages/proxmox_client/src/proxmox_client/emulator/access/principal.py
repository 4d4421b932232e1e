"""Who asks, and what they may do."""

from collections.abc import Iterable
from dataclasses import dataclass

from proxmox_client.emulator.access.grants import Granted
from proxmox_client.emulator.errors import Forbidden
from proxmox_client.emulator.state.cluster import ClusterState

ROOT = "root@pam"


@dataclass(frozen=True, slots=True)
class Principal:
    """A user, perhaps by way of a token."""

    userid: str
    token: str = ""
    privsep: bool = False

    @property
    def name(self) -> str:
        """How tasks and logs call them."""
        return f"{self.userid}!{self.token}" if self.token else self.userid

    def owns(self, name: str) -> bool:
        """Whether what somebody did is theirs: a token's is its user's, not the reverse."""
        return name == self.name or name.partition("!")[0] == self.name

    @property
    def is_root(self) -> bool:
        """Whether nothing is refused to them: root's tokens are not root."""
        return self.userid == ROOT and not self.token


class Rights:
    """What one caller may do in one cluster."""

    def __init__(self, caller: Principal, state: ClusterState) -> None:
        self.caller = caller
        self._state = state
        self._granted = Granted(state)

    def on(self, path: str) -> dict[str, bool]:
        """The privileges on a path; the value says whether they reach below it."""
        mine = self._granted.to_user(self.caller.userid, path)
        if not self.caller.token or not self.caller.privsep:
            return mine
        theirs = self._granted.to_token(self.caller.name, path)
        return {name: mine[name] and theirs[name] for name in mine.keys() & theirs.keys()}

    def has(self, path: str, *privileges: str) -> bool:
        """Whether every one of these privileges is held on a path."""
        return self.caller.is_root or self.on(path).keys() >= set(privileges)

    def has_any(self, path: str, *privileges: str) -> bool:
        """Whether at least one of these privileges is held on a path."""
        return self.caller.is_root or not self.on(path).keys().isdisjoint(privileges)

    def require(self, path: str, *privileges: str) -> None:
        """Refuse unless all are held; the first one missing is named."""
        held = None if self.caller.is_root else self.on(path)
        missing = [] if held is None else [name for name in privileges if name not in held]
        if missing:
            raise Forbidden(f"{path}, {missing[0]}")

    def require_any(self, path: str, privileges: Iterable[str]) -> None:
        """Refuse unless one is held; all are named."""
        names = tuple(privileges)
        if not self.has_any(path, *names):
            raise Forbidden(f"{path}, {'|'.join(names)}")
