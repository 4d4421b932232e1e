"""Who may run an operation: an administrator by role, a service token by scope.

An operation declares its roles (`may=AUDITORS`). The rest follows: what an auditor may run changes
nothing, so its scope is `keys:read`, and that of any other operation `keys:write`.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from pvemcp_server.access.sessions import RECENT
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import AdminRole

Roles = frozenset[AdminRole]
OWNERS: Final[Roles] = frozenset({AdminRole.OWNER})
ISSUERS: Final = OWNERS | {AdminRole.KEY_ISSUER}
AUDITORS: Final = OWNERS | {AdminRole.AUDITOR}
EVERYONE: Final = frozenset(AdminRole)


@dataclass(frozen=True, slots=True)
class Permission:
    """What an operation requires of the one who runs it; no service token runs one without scope.

    Everyone may run it for the account that the parameter `own` names, when that is theirs.
    """

    operation: str
    roles: Roles
    scope: str = ""
    own: str = ""


class Authority(Protocol):
    """The rights of the one who runs operations."""

    def permits(self, permission: Permission) -> bool:
        """Return whether the operation is permitted."""

    @property
    def is_recent(self) -> bool:
        """Whether operations of weight may run without confirming who one is."""


@dataclass(frozen=True, slots=True)
class RoleAuthority:
    """The rights of an administrator's session; without a role, none."""

    role: AdminRole | None = None
    verified_at: datetime | None = None

    def permits(self, permission: Permission) -> bool:
        """Return whether the role is among those of the operation."""
        return self.role in permission.roles

    @property
    def is_recent(self) -> bool:
        """Whether the administrator has proved who they are within RECENT.

        A proof in the future is none: the clock was set back since.
        """
        return self.verified_at is not None and abs(utc_now() - self.verified_at) < RECENT

    def __str__(self) -> str:
        return f"the role {self.role}"


@dataclass(frozen=True, slots=True)
class TokenAuthority:
    """The rights of a service token, which has no person behind it to ask."""

    scopes: AbstractSet[str] = field(default_factory=frozenset)

    def permits(self, permission: Permission) -> bool:
        """Return whether a scope covers the operation; to write includes to read."""
        subject, _, _ = permission.scope.partition(":")
        return bool(permission.scope) and not self.scopes.isdisjoint(
            {permission.scope, f"{subject}:write"}
        )

    @property
    def is_recent(self) -> bool:
        """Whether operations of weight may run: the token's owner confirmed when creating it."""
        return True

    def __str__(self) -> str:
        return "this service token"


class CommandLineAuthority(RoleAuthority):
    """The rights of a command: its user has the files of the state."""

    @property
    def is_recent(self) -> bool:
        """Whether operations of weight may run: always."""
        return True


NO_AUTHORITY: Final = RoleAuthority()
COMMAND_LINE: Final = CommandLineAuthority(AdminRole.OWNER)
