"""People's passwords: argon2id, computed where it does not hold up the event loop."""

import secrets

import anyio
from anyio.to_thread import run_sync
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from pvemcp_server.errors import BadArgument

SHORTEST = 12
LONGEST = 1024
HASHES_AT_A_TIME = 2  # each takes 64 MiB and a core for a good part of a second

_hasher = PasswordHash((Argon2Hasher(),))


class Passwords:
    """Hashes and checks, a few at a time."""

    def __init__(self) -> None:
        self._places = anyio.CapacityLimiter(HASHES_AT_A_TIME)

    async def hash(self, password: str) -> str:
        return await run_sync(_hasher.hash, password, limiter=self._places)

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password is the stored one; takes its time also when none is stored."""
        if len(password) > LONGEST:
            return False
        if stored is None:
            await self.hash(password)
            return False
        return await run_sync(_hasher.verify, password, stored, limiter=self._places)


def check_password(password: str, name: str) -> str:
    """The password, when it is long enough and not the name."""
    if not SHORTEST <= len(password) <= LONGEST or password.lower() == name.lower():
        raise BadArgument("password", f"{SHORTEST} to {LONGEST} characters, and not the name.")
    return password


def made_up() -> str:
    """A password to hand over once."""
    return secrets.token_urlsafe(15)
