"""The bridge's binaries: which are in `downloads/` of the state folder, with size and SHA-256."""

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from anyio.to_thread import run_sync
from pydantic import BaseModel

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.permission import EVERYONE
from pvemcp_server.config import Config
from pvemcp_server.errors import UnknownName

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
    """The bridge for one platform; without a size it is not offered here."""

    name: str
    platform: str
    size: int | None = None
    sha256: str | None = None


@subject.operation(
    "bridge.list",
    Route("GET", "/bridge"),
    Command("bridges", columns=("name", "platform", "size", "sha256")),
    may=EVERYONE,
)
async def list_binaries(context: AdminContext) -> list[Binary]:
    """List the bridge's binary for each platform, with size and SHA-256 where it is offered."""
    config = context.services.config
    return [await run_sync(_binary, config, name) for name in PLATFORMS]


def binary_path(config: Config, name: str) -> Path:
    """Return the path of this binary; raise UnknownName where it is not offered."""
    path = _find(config, name) if name in PLATFORMS else None
    if path is None:
        raise UnknownName("binary", name, [each for each in PLATFORMS if _find(config, each)])
    return path


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
