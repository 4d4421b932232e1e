"""Realms and people of the demo clusters; docs/contributors/emulator.md lists them."""

from dataclasses import replace
from typing import Any, Final

from proxmox_client.emulator.scenario.builder import Builder
from proxmox_client.emulator.state.user_config import Realm, User

PASSWORD: Final = "proxmox-demo"  # noqa: S105 - of emulated accounts, and published
TOTP_SECRET: Final = "JBSWY3DPEHPK3PXP"  # noqa: S105 - the same
DIRECTORY: Final = Realm("corp", "ad", "Example directory")
PROVIDER: Final = Realm("sso", "openid", "Example single sign-on")


def add_person(builder: Builder, userid: str, **details: Any) -> User:
    """Add a user with the demo's password; `details` are fields of User."""
    name = userid.partition("@")[0]
    defaults = {
        "password": PASSWORD,
        "firstname": name.title(),
        "email": f"{name}@example.test",
    }
    user = User(userid, **(defaults | details))
    builder.state.user_config.users[userid] = user
    return user


def add_realm(builder: Builder, realm: Realm) -> None:
    """Add a realm; each cluster has its own copy."""
    builder.state.user_config.realms[realm.realm] = replace(realm)
