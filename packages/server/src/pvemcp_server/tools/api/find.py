"""FindApi: methods of Proxmox's API, by words or by a path."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from proxmox_client.schema import VERSIONS, Endpoint
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.tables.rows import Col, Row
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.registry import Rows, tool
from pvemcp_server.tools.api.request import Method, listed_parameters, schema_of

SearchWords = Annotated[
    str, Field(max_length=200, description="Words of path or parameters, or a path")
]
SchemaVersion = Annotated[
    Literal["8.4", "9.0", "9.1", "9.2"] | None, Field(description="Proxmox VE; newest if absent")
]

Rank = Callable[[Endpoint], int | None]
"""Returns the place of a method among those found, or None if it isn't one of them."""

_WORDS: Final[Mapping[str, str]] = {
    "vm": "qemu",
    "vms": "qemu",
    "container": "lxc",
    "containers": "lxc",
    "ct": "lxc",
    "update": "apt",
    "updates": "apt",
    "package": "apt",
    "packages": "apt",
    "metrics": "rrddata",
    "permission": "acl",
}


class ApiMethod(Row):
    """A method of Proxmox's API."""

    minimal: ClassVar[tuple[str, ...]] = ("method", "path", "parameters", "privilege")

    method: Annotated[str, Col("HTTP method", values=("GET", "POST", "PUT", "DELETE"))]
    path: Annotated[str, Col("Path with its parameters in braces")]
    parameters: Annotated[str, Col("Others: name:type, with ? if optional, enumerations with |")]
    privilege: Annotated[str, Col("Privilege of the Proxmox account and its path")]


@tool("FindApi", area=Area.QUERY, effect=Effect.READ, toolset=Toolset.API, answer=ApiMethod)
async def find_api(
    call: Call, *, words: SearchWords, method: Method = None, version: SchemaVersion = None
) -> Rows:
    """Find methods of Proxmox's own API, for what no other tool answers; CallApi calls them."""
    schema = await schema_of(version or VERSIONS[-1])
    found = [e for e in schema.endpoints if method in (None, e.method)]
    rank = _by_path(words) if "/" in words else _by_words(words)
    ranked = [(place, e) for e in found if (place := rank(e)) is not None]
    ranked.sort(key=lambda pair: (pair[0], pair[1].path, pair[1].method))
    if not ranked:
        call.notes.add(f"No method has all of these words; {schema.version} has {len(found)}.")
    return Rows([_described(endpoint) for _, endpoint in ranked], ApiMethod.minimal)


def _by_path(words: str) -> Rank:
    """Return the rank of a method by a path, with names in place of its parameters or not."""
    segments = words.strip().strip("/").split("/")

    def rank(endpoint: Endpoint) -> int | None:
        own = endpoint.path.strip("/").split("/")
        fits = len(own) >= len(segments) and all(
            theirs.startswith("{") or mine.startswith("{") or mine == theirs
            for mine, theirs in zip(segments, own, strict=False)
        )
        return len(own) - len(segments) if fits else None

    return rank


def _by_words(words: str) -> Rank:
    """Return the rank of a method by words: those in its path come before its parameters."""
    terms = [_WORDS.get(word, word) for word in re.findall(r"[a-z0-9_-]+", words.casefold())]

    def rank(endpoint: Endpoint) -> int | None:
        path, others = endpoint.path.casefold(), " ".join(endpoint.parameters).casefold()
        if not all(word in path or word in others for word in terms):
            return None
        return sum(word not in path for word in terms) * 100 + path.count("/")

    return rank


def _described(endpoint: Endpoint) -> ApiMethod:
    return ApiMethod(
        method=endpoint.method,
        path=endpoint.path,
        parameters=listed_parameters(endpoint),
        privilege=_privilege(endpoint.permissions),
    )


def _privilege(permissions: Any) -> str:
    """Return who may call: `VM.Audit on /vms/{vmid}`, or root alone."""
    match permissions:
        case None:
            return "root@pam"
        case str(text):
            return {"all": "any account", "world": "none"}.get(text, text)
        case ["perm", str(path), privileges, *rest]:
            joined = " or " if "any" in rest else " and "
            return f"{joined.join(privileges)} on {path}"
        case ["and" | "or" as word, *parts]:
            return f" {word} ".join(filter(None, map(_privilege, parts)))
        case _:
            return "as Proxmox decides"
