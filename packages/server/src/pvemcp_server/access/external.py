"""Administrators of an OpenID Connect issuer, as the configuration lists them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store.records import AdminRecord, AdminRole

EMAIL: Final = "email"


class ExternalAdmins:
    """The configured issuer, and which of its users are administrators with which role.

    An entry is a verified e-mail address, or `claim:value` for any other claim of the ID token,
    each with `=role`; without a role it is the owner's. An account of the issuer is valid only as
    long as its entry is listed: what the database keeps of it gives no access by itself.
    """

    def __init__(self, issuer: str | None = None, entries: Iterable[str] = ()) -> None:
        self._issuer = issuer
        self._roles: dict[str, AdminRole] = {}
        for entry in entries:
            listed, role = _parsed(entry)
            self._roles.setdefault(listed, role)

    @classmethod
    def configured(cls, config: Config) -> Self:
        """Return those of the configuration; none while OpenID Connect is not configured."""
        if not config.oidc_issuer or not config.oidc_client_id:
            return cls()
        return cls(config.oidc_issuer, config.oidc_admins)

    def entry_of(self, email: str, claims: Mapping[str, Any]) -> str | None:
        """Return the first entry of PVEMCP_OIDC_ADMINS that lists the user; None without one."""
        held = {f"{EMAIL}:{email.casefold()}"}
        for claim, value in claims.items():
            if claim != EMAIL:  # that one is compared above, and only when it is verified
                values = value if isinstance(value, list) else [value]
                held.update(f"{claim}:{each}" for each in values)
        return next((entry for entry in self._roles if entry in held), None)

    def role(self, admin: AdminRecord) -> AdminRole | None:
        """Return the role of a local account, or of one that is still listed; None otherwise."""
        if admin.subject is None:
            return admin.role
        of_issuer = self._issuer is not None and admin.subject.startswith(f"{self._issuer} ")
        return self._roles.get(admin.listed_as or "") if of_issuer else None


def _parsed(entry: str) -> tuple[str, AdminRole]:
    """Return what an entry lists, as `claim:value`, and its role; raise ConfigError."""
    listed, separator, role = entry.rpartition("=")
    if not separator:
        listed, role = entry, AdminRole.OWNER
    if role not in list(AdminRole):
        raise ConfigError(f"PVEMCP_OIDC_ADMINS: {role!r} is no role; use {', '.join(AdminRole)}.")
    if ":" not in listed:
        listed = f"{EMAIL}:{listed}"
    if listed.startswith(f"{EMAIL}:"):
        listed = listed.casefold()
    return listed, AdminRole(role)
