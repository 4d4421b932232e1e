"""The user configuration: users, tokens, groups, roles, realms and the ACL (user.cfg)."""

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
    """totp, recovery, webauthn, u2f or yubico."""
    secret: str = field(repr=False)
    """In base32 (totp); keys with blanks, a used one is - (recovery); the public key in DER as
    base64url (webauthn); the first twelve characters of its codes (yubico)."""
    description: str = ""
    created: int = 0
    enabled: bool = True
    credential: str = ""
    """The ID of a WebAuthn credential, as base64url."""
    last_used: int = 0
    """The period of the last TOTP code: each is accepted once."""


@dataclass(slots=True)
class User:
    """A user, who can sign in."""

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
    totp_failures: int = 0
    totp_locked: bool = False
    tfa_failures: int = 0
    tfa_locked_until: float = 0.0
    webauthn_challenges: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)
    """Of sign-ins: the node that keeps each, and when it expires."""

    @property
    def realm(self) -> str:
        return self.userid.rpartition("@")[2]


@dataclass(slots=True)
class Group:
    """A group of users, for ACL entries."""

    groupid: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class AclEntry:
    """A role for a user, group or token on a path."""

    path: str
    kind: str
    """user, group or token."""
    ugid: str
    role: str
    propagate: bool = True


@dataclass(slots=True)
class Realm:
    """An authentication realm."""

    realm: str
    type: str
    """pam, pve, ldap, ad or openid."""
    comment: str = ""
    default: bool = False
    tfa: str = ""
    """The second factor that it demands: oath, yubico or an empty string."""
    issuer_url: str = ""
    """Of an OpenID provider; an empty one stands for the emulator's own page."""
    client_id: str = "proxmox"
    autocreate: bool = False
    """Whether an OpenID sign-in creates missing users."""


@dataclass(slots=True)
class UserConfig:
    """The users of a cluster and their permissions."""

    users: dict[str, User] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    roles: dict[str, frozenset[str]] = field(default_factory=dict)
    """The privileges of custom roles; the built-in roles depend on the version."""
    acl: list[AclEntry] = field(default_factory=list)
    realms: dict[str, Realm] = field(
        default_factory=lambda: {
            "pam": Realm("pam", "pam", "Linux PAM standard authentication"),
            "pve": Realm("pve", "pve", "Proxmox VE authentication server"),
        }
    )

    def members(self, groupid: str) -> list[str]:
        """Return the user IDs of a group, sorted."""
        return sorted(user.userid for user in self.users.values() if groupid in user.groups)

    def remove_acl(self, kind: str, ugid: str) -> None:
        """Remove the ACL entries of a user, group or token."""
        self.acl = [entry for entry in self.acl if (entry.kind, entry.ugid) != (kind, ugid)]
