"""The stored schema of all versions, loaded once on first use."""

import zlib
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec

from proxmox_client.schema.model import ApiSchema, Endpoint, EndpointFacts
from proxmox_client.schema.parameter import Parameter

VERSIONS: Final = ("8.4", "9.0", "9.1", "9.2")
FILE: Final = "facts.msgpack.zlib"


class Facts(msgspec.Struct, frozen=True, array_like=True):
    """The file's content; a version is a list of indexes into the shared endpoints."""

    parameters: list[Parameter]
    endpoints: list[EndpointFacts]
    versions: dict[str, list[int]]


def pack(facts: Facts) -> bytes:
    """Encode the file's content."""
    return zlib.compress(msgspec.msgpack.encode(facts), level=9)


@cache
def load(version: str) -> ApiSchema:
    """Return the schema of a Proxmox VE version, or of the `nearest` one that is stored."""
    facts = _facts()
    endpoints = (facts.endpoints[index] for index in facts.versions[nearest(version)])
    return ApiSchema(version, [Endpoint(endpoint, facts.parameters) for endpoint in endpoints])


def nearest(version: str) -> str:
    """Return the newest stored version that is not newer than `version`, or the oldest.

    Raise ValueError for a text that is not a version.
    """
    limit = _number(version)
    older = [stored for stored in VERSIONS if _number(stored) <= limit]
    return older[-1] if older else VERSIONS[0]


def _number(version: str) -> tuple[int, int]:
    try:
        major, minor, *_ = (*version.split("."), "0")
        return int(major), int(minor)
    except ValueError:
        raise ValueError(f"No version {version!r} of Proxmox VE; stored are {VERSIONS}") from None


@cache
def _facts() -> Facts:
    packed = files("proxmox_client.schema").joinpath(FILE).read_bytes()
    return msgspec.msgpack.decode(zlib.decompress(packed), type=Facts)
