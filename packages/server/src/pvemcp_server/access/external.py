"""Administrators of an OpenID Connect issuer, as the configuration lists them."""

from collections.abc import Iterable
from typing import Self

from pvemcp_server.config import Config
from pvemcp_server.store.records import AdminRecord


class ExternalAdmins:
    """The configured issuer and the e-mail addresses of its users that are administrators.

    An account of the issuer is valid only as long as it is listed here: what the database keeps
    of it gives no access by itself.
    """

    def __init__(self, issuer: str | None = None, emails: Iterable[str] = ()) -> None:
        self._issuer = issuer
        self._emails = frozenset(email.casefold() for email in emails)

    @classmethod
    def configured(cls, config: Config) -> Self:
        """Return those of the configuration; none while OpenID Connect is not configured."""
        if not config.oidc_issuer or not config.oidc_client_id:
            return cls()
        return cls(config.oidc_issuer, config.oidc_admins)

    def lists(self, email: str) -> bool:
        """Return whether PVEMCP_OIDC_ADMINS lists the e-mail address."""
        return email.casefold() in self._emails

    def admits(self, admin: AdminRecord) -> bool:
        """Return whether the account is local, or one of the issuer that is still listed."""
        if admin.subject is None:
            return True
        of_issuer = self._issuer is not None and admin.subject.startswith(f"{self._issuer} ")
        return of_issuer and self.lists(admin.name)
