"""Stored sign-ins: one file per server in the user's state folder, secrets in the keychain.

The file is replaced atomically and readable by its owner only. If the system has a keychain and the
package `keyring` is installed, the tokens are there and the file holds the rest.
"""

import asyncio
import hashlib
import json
import logging
import os
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from pvemcp_bridge import jsontext
from pvemcp_bridge.errors import SignInFailed
from pvemcp_bridge.oauth.threads import in_thread

__all__ = ["Credentials", "Store", "state_folder"]

log = logging.getLogger(__name__)

_SERVICE = "pvemcp-bridge"
_LARGEST = 1 << 17
_KEYCHAIN_SECONDS = 30.0  # it may ask the user to unlock it
_LOCK_SECONDS = 40.0  # longer than a refresh takes at most
_LOCK_POLL_SECONDS = 0.05
_SECRETS = ("client_secret", "access_token", "refresh_token")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class Credentials:
    """A client registered at an issuer, and the tokens that the user gave it.

    `renew_at` and `used_at`, when the issuer last accepted the client, are seconds since 1970.
    """

    issuer: str
    resource: str
    token_endpoint: str
    revocation_endpoint: str
    client_id: str
    auth_method: str
    redirect_uri: str
    client_scope: str = ""
    scope: str = ""
    renew_at: float | None = None
    used_at: float = 0.0
    client_secret: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)

    def without_tokens(self) -> Self:
        """Return the registered client alone."""
        return replace(self, access_token="", refresh_token="", renew_at=None)

    @property
    def secrets(self) -> dict[str, str]:
        """All values that must not be shown."""
        return {name: getattr(self, name) for name in _SECRETS if getattr(self, name)}


class Store:
    """Stored sign-in of the user at one server."""

    def __init__(self, url: str, folder: Path | None = None) -> None:
        self._url = url
        folder = folder or state_folder()
        self._file = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"

    async def read(self) -> Credentials | None:
        """Return what is stored; None if there is nothing, or nothing usable."""
        values = _read(self._file)
        if values.get("server") != self._url:
            return None
        if values.get("keychain") is True:
            secrets = await _keychain("get_password", _SERVICE, self._url)
            values = {**values, **_parsed(secrets or "")}
        return _credentials(values)

    @property
    def version(self) -> int:
        """A number that each write changes; 0 for nothing stored. It asks no keychain."""
        try:
            return self._file.stat().st_mtime_ns
        except OSError:
            return 0

    async def write(self, credentials: Credentials) -> None:
        """Replace what is stored; raise SignInFailed if the file cannot be written."""
        values = {"server": self._url, **asdict(credentials)}
        secrets = json.dumps({name: values[name] for name in _SECRETS})
        if await _kept_in_keychain(self._url, secrets):
            values = {name: value for name, value in values.items() if name not in _SECRETS}
            values["keychain"] = True
        try:
            _write(self._file, json.dumps(values))
        except OSError as error:
            raise SignInFailed(f"{self._file} cannot be written: {error.strerror}.") from None

    async def delete(self) -> None:
        """Forget everything."""
        if _read(self._file).get("keychain") is True:
            await _keychain("delete_password", _SERVICE, self._url)
        self._file.unlink(missing_ok=True)

    @property
    def place(self) -> str:
        """Where the tokens are, for people."""
        return "the keychain" if _read(self._file).get("keychain") is True else str(self._file)

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Exclude other processes: a refresh token can be used once only."""
        try:
            _make_folder(self._file.parent)
            flags = os.O_RDWR | os.O_CREAT | _NO_LINK
            descriptor = os.open(self._file.with_suffix(".lock"), flags, 0o600)
        except OSError as error:
            raise SignInFailed(f"{self._file.parent} cannot be used: {error.strerror}.") from None
        try:
            try:
                async with asyncio.timeout(_LOCK_SECONDS):
                    while not _try_lock(descriptor):  # noqa: ASYNC110 - locks of files send no event
                        await asyncio.sleep(_LOCK_POLL_SECONDS)
            except TimeoutError:
                raise SignInFailed("Another pvemcp-bridge holds the stored sign-in.") from None
            yield
        finally:
            os.close(descriptor)  # which ends the lock


def state_folder() -> Path:
    """Return the folder for the state of this program and user."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / _SERVICE


def _credentials(values: Mapping[str, Any]) -> Credentials | None:
    """Return the credentials in the stored values; None if one is missing or of another type."""
    known = {item.name: values[item.name] for item in fields(Credentials) if item.name in values}
    times = {name: known.pop(name, None) for name in ("renew_at", "used_at")}
    if not all(isinstance(value, str) for value in known.values()):
        return None
    try:
        found = Credentials(**known)
    except TypeError:
        return None
    numbers: dict[str, Any] = {
        name: time for name, time in times.items() if isinstance(time, int | float)
    }
    return replace(found, **numbers)


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        return jsontext.as_object(jsontext.parse(text))
    except jsontext.BadJson:
        return {}


def _read(file: Path) -> Mapping[str, Any]:
    """Return the values of a file that belongs to the user alone; empty if it cannot be read."""
    try:
        descriptor = os.open(file, os.O_RDONLY | _NO_LINK | _BINARY)
    except OSError:
        return {}
    with os.fdopen(descriptor, "rb") as stream:
        if not _is_private(os.fstat(descriptor)):
            log.warning("%s is not used: other users can read or change it.", file)
            return {}
        return _parsed(stream.read(_LARGEST).decode("utf-8", "replace"))


if sys.platform == "win32":
    import msvcrt

    def _is_private(status: os.stat_result) -> bool:
        """Return whether it is a file; Windows protects the folder of the user."""
        return stat.S_ISREG(status.st_mode)

    def _try_lock(descriptor: int) -> bool:
        """Take the lock without waiting; return whether that worked."""
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _is_private(status: os.stat_result) -> bool:
        """Return whether it is a file of the user that no one else can read or change."""
        is_own = status.st_uid == os.geteuid() and not status.st_mode & 0o077
        return stat.S_ISREG(status.st_mode) and is_own

    def _try_lock(descriptor: int) -> bool:
        """Take the lock without waiting; return whether that worked."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write(file: Path, text: str) -> None:
    """Replace the file atomically: a random name, mode 0600, never through a link."""
    _make_folder(file.parent)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(file)
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()


async def _kept_in_keychain(url: str, secrets: str) -> bool:
    """Put the secrets into the keychain; return whether it gives them back.

    Windows refuses long ones, and some backends keep nothing.
    """
    await _keychain("set_password", _SERVICE, url, secrets)
    return await _keychain("get_password", _SERVICE, url) == secrets


async def _keychain(function: str, *arguments: str) -> str | None:
    """Call a function of `keyring`; None without a keychain, or one that does not answer."""
    try:
        import keyring  # type: ignore[import-not-found,unused-ignore]  # an extra on Linux
    except ImportError:
        return None
    try:
        call: Callable[..., Any] = getattr(keyring, function)
        result = await in_thread(call, *arguments, seconds=_KEYCHAIN_SECONDS)
    except Exception as error:  # noqa: BLE001 - each system's backend has errors of its own
        log.debug("The keychain cannot be used: %s.", type(error).__name__)
        return None
    return result if isinstance(result, str) else None
