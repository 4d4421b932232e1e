"""The bridge's files: two that the server makes for every system, and binaries for single ones.

The binaries are those in `downloads/` of the state folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from anyio.to_thread import run_sync
from pydantic import BaseModel

from pvemcp_bridge import bundle
from pvemcp_server.admin.client_setup import Connection, endpoint_url
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.permission import EVERYONE
from pvemcp_server.config import Config
from pvemcp_server.errors import UnknownName

BUNDLES: Final[Mapping[str, str]] = {
    bundle.EXTENSION: "Claude Desktop, every system",
    bundle.ZIPAPP: "Every system, with Python 3.11 or newer",
}
PLATFORMS: Final[Mapping[str, str]] = {
    "pvemcp-bridge-win-x64.exe": "Windows, x64",
    "pvemcp-bridge-osx-arm64": "macOS, Apple silicon",
    "pvemcp-bridge-osx-x64": "macOS, Intel",
    "pvemcp-bridge-linux-x64": "Linux, x64",
    "pvemcp-bridge-linux-arm64": "Linux, arm64",
}
BUILD: Final = "make bridge"

subject = Subject("Bridge")


class Binary(BaseModel):
    """A file of the bridge; without a size it is not offered here."""

    name: str
    platform: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class System:
    """An operating system, and how it starts the bridge."""

    id: str
    title: str
    folder: str  # a placeholder for that of the file, with the separator at its end
    python: str
    here: str  # before the name of a program in the current folder
    binaries: str  # the beginning of their names
    unlock: tuple[str, ...] = ()  # commands before a downloaded binary can run

    def file(self, config: Config) -> str:
        """Return the file for this system: its binary where it is offered, else the zipapp."""
        own = (name for name in PLATFORMS if name.startswith(self.binaries))
        return next((name for name in own if _find(config, name)), bundle.ZIPAPP)

    def command(self, file: str) -> tuple[str, ...]:
        """Return the command that starts a file, with the placeholder for its folder."""
        path = f"{self.folder}{file}"
        return (self.python, path) if file == bundle.ZIPAPP else (path,)

    def install_lines(self, file: str, connection: Connection) -> str:
        """Return the lines that add the bridge to a client, for a terminal in that folder."""
        start = f"{self.python} {file}" if file == bundle.ZIPAPP else f"{self.here}{file}"
        unlock = [f"{each} {file}" for each in self.unlock if file != bundle.ZIPAPP]
        options = f"--client claude-desktop --url {connection.url} --api-key {connection.key}"
        return "\n".join([*unlock, f"{start} install {options}"])


_QUARANTINE: Final = "xattr -d com.apple.quarantine"
SYSTEMS: Final = (
    System(
        id="windows",
        title="Windows",
        folder="C:\\full\\path\\",
        python="py",
        here=".\\",
        binaries="pvemcp-bridge-win",
    ),
    System(
        id="macos",
        title="macOS",
        folder="/full/path/",
        python="python3",
        here="./",
        binaries="pvemcp-bridge-osx",
        unlock=("chmod +x", _QUARANTINE),
    ),
    System(
        id="linux",
        title="Linux",
        folder="/full/path/",
        python="python3",
        here="./",
        binaries="pvemcp-bridge-linux",
        unlock=("chmod +x",),
    ),
)


def systems_for(user_agent: str) -> list[System]:
    """Return all systems, that of the visitor's browser first."""
    windows, macos, linux = SYSTEMS
    own = windows if "Windows" in user_agent else macos if "Mac OS" in user_agent else linux
    return sorted(SYSTEMS, key=lambda system: system is not own)


@subject.operation(
    "bridge.list",
    Route("GET", "/bridge"),
    Command("bridges", columns=("name", "platform", "size", "sha256")),
    may=EVERYONE,
)
async def list_binaries(context: AdminContext) -> list[Binary]:
    """List the bridge's files for each platform, with size and SHA-256 where one is offered."""
    return await list_files(context.services.config, endpoint_url(context.services.config))


async def list_files(config: Config, url: str) -> list[Binary]:
    """Return all files; the extension of this list is for clients that reach the server at `url`.

    The operation lists it for the configured URL, a page for the URL that its visitor uses.
    """
    made = [await run_sync(_bundle, name, platform, url) for name, platform in BUNDLES.items()]
    return [*made, *[await run_sync(_binary, config, name) for name in PLATFORMS]]


async def read_file(config: Config, name: str, url: str) -> bytes | Path:
    """Return a file that the server makes, or the path of a binary; raise UnknownName."""
    content = await run_sync(_content, name, url) if name in BUNDLES else None
    path = _find(config, name) if name in PLATFORMS else None
    file = content or path
    if file is None:
        offered = [each.name for each in await list_files(config, url) if each.sha256]
        raise UnknownName("file of the bridge", name, offered)
    return file


def _bundle(name: str, platform: str, url: str) -> Binary:
    content = _content(name, url)
    if content is None:
        return Binary(name=name, platform=platform)
    digest = sha256(content).hexdigest()
    return Binary(name=name, platform=platform, size=len(content), sha256=digest)


def _content(name: str, url: str) -> bytes | None:
    """Return a file that the server makes; None where the bridge is not installed as source."""
    try:
        return _zipapp() if name == bundle.ZIPAPP else _extension(url)
    except bundle.NotBundled:
        return None


@lru_cache(1)
def _zipapp() -> bytes:
    return bundle.zipapp()


@lru_cache(4)  # a server is reached under few addresses
def _extension(url: str) -> bytes:
    return bundle.extension(url)


def _binary(config: Config, name: str) -> Binary:
    path = _find(config, name)
    if path is None:
        return Binary(name=name, platform=PLATFORMS[name])
    status = path.stat()
    digest = _digest(path, status.st_mtime_ns, status.st_size)
    return Binary(name=name, platform=PLATFORMS[name], size=status.st_size, sha256=digest)


def _find(config: Config, name: str) -> Path | None:
    """Return the binary in the state folder.

    Nowhere else: users trust it as the genuine bridge, so the working directory must not decide.
    """
    path = config.state_dir / "downloads" / name
    return path if path.is_file() else None


@lru_cache(maxsize=32)
def _digest(path: Path, changed: int, size: int) -> str:  # noqa: ARG001 - part of the cache's key
    with path.open("rb") as binary:
        digest = sha256()
        while chunk := binary.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
