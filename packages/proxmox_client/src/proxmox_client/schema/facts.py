"""The stored facts of every version, read once on first use."""

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
    """All versions at once: each is a list of places in the endpoints all of them share."""

    parameters: list[Parameter]
    endpoints: list[EndpointFacts]
    versions: dict[str, list[int]]


def pack(facts: Facts) -> bytes:
    """The facts as they are stored."""
    return zlib.compress(msgspec.msgpack.encode(facts), level=9)


@cache
def load(version: str) -> ApiSchema:
    """The schema of a Proxmox VE version; an unpublished one takes the nearest below."""
    facts = _facts()
    endpoints = (facts.endpoints[place] for place in facts.versions[nearest(version)])
    return ApiSchema(version, [Endpoint(endpoint, facts.parameters) for endpoint in endpoints])


def nearest(version: str) -> str:
    """The newest known version that is not newer than this one, or the oldest known."""
    wanted = _number(version)
    older = [known for known in VERSIONS if _number(known) <= wanted]
    return older[-1] if older else VERSIONS[0]


def _number(version: str) -> tuple[int, int]:
    try:
        major, minor, *_ = (*version.split("."), "0")
        return int(major), int(minor)
    except ValueError:
        raise ValueError(f"No version {version!r} of Proxmox VE; known are {VERSIONS}") from None


@cache
def _facts() -> Facts:
    packed = files("proxmox_client.schema").joinpath(FILE).read_bytes()
    return msgspec.msgpack.decode(zlib.decompress(packed), type=Facts)
