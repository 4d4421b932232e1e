"""Passwords of administrators: argon2id, computed in threads to keep the event loop free."""

import secrets

import anyio
from anyio.to_thread import run_sync
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from pvemcp_server.errors import BadArgument

SHORTEST = 12
LONGEST = 1024
CONCURRENT_HASHES = 2  # each takes 64 MiB and a core for about 0.2 s

_hasher = PasswordHash((Argon2Hasher(),))


class Passwords:
    """Hashes and verifies passwords, CONCURRENT_HASHES at a time."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(CONCURRENT_HASHES)

    async def hash(self, password: str) -> str:
        """Return the argon2id hash with its salt and parameters."""
        return await run_sync(_hasher.hash, password, limiter=self._limiter)

    async def verify(self, password: str, stored: str | None) -> bool:
        """Return whether the password matches; take the same time when none is stored."""
        if len(password) > LONGEST:
            return False
        if stored is None:
            await self.hash(password)
            return False
        return await run_sync(_hasher.verify, password, stored, limiter=self._limiter)


def check_password(password: str, name: str) -> str:
    """Return the password; raise BadArgument when it is too short, too long or the name."""
    if not SHORTEST <= len(password) <= LONGEST or password.lower() == name.lower():
        raise BadArgument("password", f"{SHORTEST} to {LONGEST} characters, and not the name.")
    return password


def random_password() -> str:
    """Return a random password of 20 characters."""
    return secrets.token_urlsafe(15)
