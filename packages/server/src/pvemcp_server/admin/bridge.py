"""The bridge's binaries, where they have been built, and the configuration that uses them."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from anyio.to_thread import run_sync
from pydantic import BaseModel

from pvemcp_server.admin.context import AdminContext
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


class Binary(BaseModel):
    """The bridge for one platform; without a size it has not been built here."""

    name: str
    platform: str
    size: int | None = None
    sha256: str | None = None


async def binaries(context: AdminContext) -> list[Binary]:
    """The binary of every platform, those that are here with size and SHA-256."""
    config = context.services.config
    return [await run_sync(_described, config, name) for name in PLATFORMS]


def file_of(config: Config, name: str) -> Path:
    """The binary with this name; raises UnknownName where it has not been built."""
    found = _found(config, name) if name in PLATFORMS else None
    if found is None:
        raise UnknownName("binary", name, [one for one in PLATFORMS if _found(config, one)])
    return found


def _described(config: Config, name: str) -> Binary:
    found = _found(config, name)
    if found is None:
        return Binary(name=name, platform=PLATFORMS[name])
    seen = found.stat()
    digest = _digest(found, seen.st_mtime_ns, seen.st_size)
    return Binary(name=name, platform=PLATFORMS[name], size=seen.st_size, sha256=digest)


def _found(config: Config, name: str) -> Path | None:
    return next((path for path in _places(config, name) if path.is_file()), None)


def _places(config: Config, name: str) -> Iterator[Path]:
    """Where a release puts it, and where `make bridge` does."""
    yield config.state_dir / "downloads" / name
    yield Path("dist") / name


@lru_cache(maxsize=32)
def _digest(path: Path, changed: int, size: int) -> str:  # noqa: ARG001 - a changed file is another one
    with path.open("rb") as binary:
        digest = sha256()
        while piece := binary.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
