"""The bridge with all that it needs in one file: a zipapp, and an extension for Claude Desktop.

Both are made of the packages that are installed here, without network and compiler, and run on
every platform, because none of them is compiled. The same packages make the same bytes.
"""

import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from pvemcp_bridge import __version__
from pvemcp_bridge.errors import BridgeError

__all__ = ["DISTRIBUTIONS", "EXTENSION", "ZIPAPP", "NotBundled", "extension", "manifest", "zipapp"]

EXTENSION = "pvemcp-bridge.mcpb"
ZIPAPP = "pvemcp-bridge.pyz"
DISTRIBUTIONS = (
    "pvemcp-bridge",
    *("anyio", "h11", "httpcore2", "httpx2", "idna", "tenacity", "truststore", "typing-extensions"),
)
"""The bridge and what it imports; each has one package or module of its own name."""

_PYTHON = "3.11"
_START = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("pvemcp-bridge needs Python 3.11 or newer, and this is " + sys.version.split()[0])

from pvemcp_bridge.main import main

main()
"""
_PROJECT = f"""\
[project]
name = "pvemcp-bridge-extension"
version = "{__version__}"
requires-python = ">={_PYTHON}"
dependencies = []

[tool.uv]
package = false
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can hold


class NotBundled(BridgeError):
    """A package that the bridge needs is not installed as source."""


def zipapp() -> bytes:
    """Return the program as a file that Python 3.11 or newer runs."""
    files = {**_packages(), "__main__.py": _START.encode()}
    return _zip(files, before=b"#!/usr/bin/env python3\n")


def extension(url: str) -> bytes:
    """Return the extension for Claude Desktop, with this URL of the endpoint filled in.

    Its type is `uv` (MCPB manifest 0.4): Claude Desktop starts it with a Python that uv finds or
    downloads. It has no dependencies for uv to install, because they are inside.
    """
    packages = {f"src/{path}": content for path, content in _packages().items()}
    own = {
        "manifest.json": (json.dumps(manifest(url), indent=2) + "\n").encode(),
        "pyproject.toml": _PROJECT.encode(),
        "src/main.py": _START.encode(),
    }
    return _zip({**packages, **own})


def manifest(url: str) -> Mapping[str, Any]:
    """Return the manifest: the settings for the user, and how they start the bridge.

    No setting is required, because a host may not count a default as a value.
    """
    main = "src/main.py"
    return {
        "manifest_version": "0.4",
        "name": "pvemcp-bridge",
        "display_name": "Proxmox VE",
        "version": __version__,
        "description": "Connects Claude to your pvemcp server, and so to your Proxmox VE clusters.",
        "author": {"name": "The pvemcp authors"},
        "license": "Apache-2.0",
        "keywords": ["proxmox", "virtualization", "mcp"],
        "server": {
            "type": "uv",
            "entry_point": main,
            "mcp_config": {
                "command": "uv",
                "args": ["run", "--directory", "${__dirname}", main],
                "env": {
                    "MCP_URL": "${user_config.url}",
                    "MCP_API_KEY": "${user_config.api_key}",
                    "MCP_FINGERPRINT": "${user_config.fingerprint}",
                },
            },
        },
        "tools_generated": True,
        "compatibility": {"platforms": ["darwin", "linux", "win32"]},
        "user_config": {
            "url": _setting("Server URL", "URL of your pvemcp server.", url),
            "api_key": _setting(
                "API key",
                "From the page API Access; it is stored in the keychain. "
                "Leave it empty to sign in with your own account.",
                sensitive=True,
            ),
            "fingerprint": _setting(
                "Certificate fingerprint",
                "SHA-256 of a self-signed certificate; empty for a trusted one.",
            ),
        },
    }


def _setting(title: str, description: str, default: str = "", **more: Any) -> Mapping[str, Any]:
    text = {"type": "string", "title": title, "description": description}
    return {**text, "required": False, "default": default, **more}


def _packages() -> Mapping[str, bytes]:
    """Return the files of all packages, with metadata and licenses; raise NotBundled."""
    files: dict[str, bytes] = {}
    for name in DISTRIBUTIONS:
        files |= dict(_sources(name))
        installed = distribution(name)
        info = f"{name.replace('-', '_')}-{installed.version}.dist-info"
        files[f"{info}/METADATA"] = (installed.read_text("METADATA") or "").encode()
        for file in installed.files or ():
            path = Path(str(file.locate()))
            is_license = "licenses" in file.parts or file.name.startswith(("LICENSE", "COPYING"))
            if is_license and path.is_file():
                files[f"{info}/licenses/{file.name}"] = path.read_bytes()
    return files


def _sources(name: str) -> Iterator[tuple[str, bytes]]:
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module)
    origin = Path(spec.origin) if spec and spec.origin else None
    if origin is None or not origin.is_file():
        raise NotBundled(f"The package {name} is not installed as source.")
    if origin.name != "__init__.py":
        yield origin.name, origin.read_bytes()
        return
    for file in origin.parent.rglob("*"):
        if file.suffix in (".so", ".pyd", ".dylib"):
            raise NotBundled(f"The package {name} holds the compiled {file.name}.")
        if file.is_file() and file.suffix == ".py":
            yield f"{module}/{file.relative_to(origin.parent).as_posix()}", file.read_bytes()


def _zip(files: Mapping[str, bytes], before: bytes = b"") -> bytes:
    """Return a zip of the files in the order of their names, all of one time and mode."""
    buffer = io.BytesIO()
    buffer.write(before)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # of Unix, on Windows too
            archive.writestr(entry, files[path])
    return buffer.getvalue()
