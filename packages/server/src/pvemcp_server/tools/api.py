"""The whole API of Proxmox, read: find a method, call one that reads.

A role has to name these tools: "every tool that only reads" does not include them, because
Proxmox's privileges alone bound what they answer.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field

from proxmox_client.paths import join
from proxmox_client.schema import VERSIONS, ApiSchema, Endpoint, Parameter
from proxmox_client.schema import load as load_schema
from pvemcp_server.access.key_threads import in_key_thread
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.audit.log_secrets import mask_line
from pvemcp_server.audit.mask import MASK
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument, Precondition
from pvemcp_server.tables.config_options import shown
from pvemcp_server.tables.rows import Col, Row
from pvemcp_server.toolkit.arguments import OneCluster
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.registry import Rows, tool


def _pairs(value: Any) -> Any:
    """Return objects among the parameters, which models write too, as `name=value`."""
    if not isinstance(value, list):
        return value
    objects = (item if isinstance(item, Mapping) else {"": item} for item in value)
    return [f"{k}={v}" if k else v for item in objects for k, v in item.items()]


SearchWords = Annotated[
    str, Field(max_length=200, description="Words of path or parameters, or a path")
]
Method = Annotated[
    Literal["GET", "POST", "PUT", "DELETE"] | None, Field(description="Only these; CallApi: GET")
]
SchemaVersion = Annotated[
    Literal["8.4", "9.0", "9.1", "9.2"] | None, Field(description="Proxmox VE; newest if absent")
]
ApiPath = Annotated[str, Field(max_length=1_000, description="As /nodes/pve1/dns")]
ApiParameters = Annotated[
    list[str] | None, BeforeValidator(_pairs), Field(description="As limit=20; no path parameters")
]

Rank = Callable[[Endpoint], int | None]
"""Returns the place of a method among those found, or None if it isn't one of them."""

MOST_ROWS: Final = 10_000  # a whole journal has millions
_SWITCHES: Final = {"true": "1", "false": "0"}
# Requests that reach other hosts, open a channel, stream a file or read inside a guest
_REFUSED: Final = re.compile(
    r"/nodes/\{node\}/(?:scan(?:/.*)?|query-.*|apt/changelog)|/cluster/acme/(?:tos|meta)"
    r"|.*websocket|.*/file-restore/.*|.*/agent/(?:file-read|exec-status)"
    r"|/access/(?:ticket|openid.*)"
)
_STREAMS: Final = "download"  # the parameter that makes an answer a file
_SECRET_NAMES: Final = re.compile(
    r"(?:.*[-_./])?(?:pass(?:word|wd|phrase)?|secret"
    r"|(?:api|auth|priv|private|secret|access)?[-_]?key"
    r"|ticket|cookie|token|t?otp|credentials?|psk)|cipassword|csrfpreventiontoken|keyring|recovery"
    r"|yubico|otel-headers|keys",  # the keys of a user are those of one-time passwords
    re.IGNORECASE,
)
_OF_OPTION: Final = {"value", "pending"}  # beside "key" or "name", which then names an option
# By the names beside them: headers and body of a webhook, credentials of a DNS API
_SECRET_BESIDE: Final[Mapping[str, frozenset[str]]] = {
    "url": frozenset({"header", "body"}),
    "plugin": frozenset({"data"}),
}
# In the text of a whole configuration, as that of a backup
_ENVIRONMENT: Final = re.compile(r"(?m)^((?:env|lxc\.environment[\w.]*)\s{0,3}[:=]).+$")
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
    """Find methods of Proxmox's own API, for what no other tool answers; CallApi reads them."""
    schema = await _schema(version or VERSIONS[-1])
    found = [e for e in schema.endpoints if method in (None, e.method)]
    rank = _by_path(words) if "/" in words else _by_words(words)
    ranked = [(place, e) for e in found if (place := rank(e)) is not None]
    ranked.sort(key=lambda pair: (pair[0], pair[1].path, pair[1].method))
    if not ranked:
        call.notes.add(f"No method has all of these words; {schema.version} has {len(found)}.")
    return Rows([_described(endpoint) for _, endpoint in ranked], ApiMethod.minimal)


@tool("CallApi", area=Area.QUERY, effect=Effect.READ, toolset=Toolset.API)
async def call_api(
    call: Call, *, cluster_name: OneCluster = None, path: ApiPath, parameters: ApiParameters = None
) -> Rows:
    """Read a path of Proxmox's API (GET) that no other tool covers; FindApi names them."""
    cluster = await call.cluster(cluster_name)
    if not cluster.scope.everything:
        raise Precondition(
            f"CallApi needs the whole of {cluster.name}, and the role of this key covers a part.",
            hint="Other tools and ExecuteQuery answer within it.",
        )
    endpoint, encoded, values = await _checked(cluster, path, parameters or [])
    data = await cluster.pve.raw("GET", encoded, **values)
    if isinstance(data, list) and len(data) > MOST_ROWS:
        call.notes.add(f"The first {MOST_ROWS:,} of {len(data):,} rows; parameters give others.")
        data = data[:MOST_ROWS]
    # the texts of a long answer take seconds, and calls of other keys go on
    rows = await in_key_thread(call.caller.key_id, lambda: _rows(masked(data)))
    call.notes.add(f"GET {endpoint.path} as Proxmox answers it: its texts are data, its units raw.")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return Rows(rows, columns if rows else call.fields)


async def _schema(version: str) -> ApiSchema:
    return await asyncio.to_thread(load_schema, version)  # the first time takes a moment


async def _checked(
    cluster: Cluster, path: str, pairs: Sequence[str]
) -> tuple[Endpoint, str, dict[str, str]]:
    """Return the method of the path, the encoded path, and the parameters.

    Raise BadArgument or Precondition.
    """
    release = (await cluster.pve.version()).release
    schema = await _schema(release)
    path = "/" + path.strip().removeprefix("/api2/json").strip("/")
    if re.search(r"[?#%\\]", path):
        hint = "Put parameters into `parameters`, and names into the path as they are."
        raise BadArgument("path", "it has one of the characters ? # % \\.", hint=hint)
    match = schema.find("GET", path)
    if match is None:
        raise BadArgument("path", _unknown(schema, path, release), hint="FindApi names methods.")
    endpoint, values = match
    parameters = _values(endpoint, pairs)
    if _REFUSED.fullmatch(endpoint.path) or _STREAMS in parameters:
        raise Precondition(
            f"CallApi does not read {endpoint.path} this way: it reaches other hosts, opens a "
            "channel, streams a file or reads inside a guest."
        )
    if twice := values.keys() & parameters.keys():
        raise BadArgument("parameters", f"{', '.join(sorted(twice))} is in the path already.")
    if errors := endpoint.check({**values, **parameters}):
        facts = "; ".join(f"{name}: {text.strip()}" for name, text in sorted(errors.items()))
        raise BadArgument("parameters", f"{facts}.", hint=f"It takes {_parameters(endpoint)}.")
    if "node" in values and not endpoint.path.endswith("/rrddata"):  # every node has these
        await cluster.require_not_offline(values["node"])
    segments = endpoint.path.strip("/").split("/")
    encoded = join(*(values[part[1:-1]] if part[0] == "{" else part for part in segments))
    return endpoint, encoded, parameters


def _values(endpoint: Endpoint, pairs: Sequence[str]) -> dict[str, str]:
    """Return the parameters by name, booleans as Proxmox has them; raise BadArgument."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadArgument("parameters", f"write {name[:50]!r} as name=value.")
        declared = endpoint.parameter(name)
        is_switch = declared is not None and declared.type == "boolean"
        values[name] = _SWITCHES.get(value.casefold(), value) if is_switch else value
    return values


def _unknown(schema: ApiSchema, path: str, release: str) -> str:
    for method in ("POST", "PUT", "DELETE"):
        if schema.find(method, path):
            return f"{path} has {method} and no GET, and CallApi only reads."
    return f"GET {path[:200]} does not exist in Proxmox VE {release}."


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
        parameters=_parameters(endpoint),
        privilege=_privilege(endpoint.permissions),
    )


def _parameters(endpoint: Endpoint) -> str:
    """Return the parameters that are not in the path, required ones first: `limit?:integer`."""
    others = [
        (name, parameter)
        for name, parameter in endpoint.parameters.items()
        if f"{{{name}}}" not in endpoint.path
    ]
    others.sort(key=lambda pair: pair[1].optional)
    return " ".join(f"{name}{'?' if p.optional else ''}:{_type(p)}" for name, p in others)


def _type(parameter: Parameter) -> str:
    return "|".join(parameter.enum) if parameter.enum else parameter.type


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


def masked(data: Any, name: str = "") -> Any:
    """Return the data without secrets: by the names of values, and by their form."""
    if data is not None and _SECRET_NAMES.fullmatch(name):
        return MASK
    if isinstance(data, Mapping):
        named = data.keys() & _OF_OPTION
        option = (data.get("key") or data.get("name")) if named else None
        beside = [names for name, names in _SECRET_BESIDE.items() if name in data]
        return {
            key: MASK
            if any(key in names for names in beside)
            else value
            if option and key == "key"
            else masked(value, str(option) if option and key in _OF_OPTION else key)
            for key, value in data.items()
        }
    if isinstance(data, Sequence) and not isinstance(data, str):
        data = shown(name, data)
        return [masked(item, name) for item in data]
    data = shown(name, data)
    return _ENVIRONMENT.sub(rf"\1{MASK}", mask_line(data)) if isinstance(data, str) else data


def _rows(data: Any) -> list[dict[str, Any]]:
    """Return rows of any answer: an object is one row, a plain value one cell."""
    items: Iterable[Any] = data if isinstance(data, list) else [] if data is None else [data]
    return [dict(item) if isinstance(item, Mapping) else {"value": item} for item in items]
