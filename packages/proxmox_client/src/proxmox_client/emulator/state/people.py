"""Users, tokens, groups, roles and what is granted to them."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Token:
    """A user's API token."""

    name: str
    secret: str = field(repr=False)
    privsep: bool = True
    expire: int = 0
    comment: str = ""


@dataclass(slots=True)
class SecondFactor:
    """A registered second factor of sign-in."""

    id: str
    kind: str
    secret: str = field(repr=False)
    description: str = ""
    created: int = 0


@dataclass(slots=True)
class User:
    """Somebody who may sign in."""

    userid: str
    password: str = field(default="", repr=False)
    enabled: bool = True
    expire: int = 0
    comment: str = ""
    email: str = ""
    firstname: str = ""
    lastname: str = ""
    groups: set[str] = field(default_factory=set)
    tokens: dict[str, Token] = field(default_factory=dict)
    factors: list[SecondFactor] = field(default_factory=list)

    @property
    def realm(self) -> str:
        return self.userid.rpartition("@")[2]


@dataclass(slots=True)
class Group:
    """Users who share what is granted to the group."""

    groupid: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A role given to a user, group or token on a path."""

    path: str
    kind: str
    """user, group or token"""
    whom: str
    role: str
    propagate: bool = True


@dataclass(slots=True)
class Realm:
    """Where users are known."""

    realm: str
    type: str
    comment: str = ""


@dataclass(slots=True)
class People:
    """Everyone a cluster knows and what is granted to them."""

    users: dict[str, User] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    roles: dict[str, frozenset[str]] = field(default_factory=dict)
    """Roles that were added; the built-in ones belong to the version."""
    grants: list[Grant] = field(default_factory=list)
    realms: dict[str, Realm] = field(
        default_factory=lambda: {
            "pam": Realm("pam", "pam", "Linux PAM standard authentication"),
            "pve": Realm("pve", "pve", "Proxmox VE authentication server"),
        }
    )

    def members(self, groupid: str) -> list[str]:
        """The users of a group, in order."""
        return sorted(user.userid for user in self.users.values() if groupid in user.groups)

    def forget(self, kind: str, whom: str) -> None:
        """Drop everything granted to someone who is no more."""
        self.grants = [grant for grant in self.grants if (grant.kind, grant.whom) != (kind, whom)]
