"""A request to Proxmox's API, checked against the schema of the cluster's own version."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from proxmox_client.json_decoder import split_list
from proxmox_client.paths import join
from proxmox_client.schema import ApiSchema, Endpoint, Parameter
from proxmox_client.schema import load as load_schema
from pvemcp_server.audit.mask import MASK, SECRET_PARAMETER
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument, Precondition
from pvemcp_server.shown_names import shown_name
from pvemcp_server.toolkit.arguments import Whole
from pvemcp_server.tools.api import effects

METHODS: Final = ("GET", "POST", "PUT", "DELETE")
MOST_PAIRS: Final = 1_000


def _pairs(value: Any) -> Any:
    """Return objects among the parameters, which models write too, as `name=value`."""
    if not isinstance(value, list):
        return value
    pairs = (pair for item in value for pair in (_of_object(item) if _is_object(item) else [item]))
    read = list(islice(pairs, MOST_PAIRS + 1))
    if len(read) > MOST_PAIRS:
        raise ValueError(f"it has more than {MOST_PAIRS:,} entries")
    return read


def _is_object(item: Any) -> bool:
    return isinstance(item, Mapping)


def _of_object(item: Mapping[str, Any]) -> Iterator[str]:
    for name, value in item.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                yield f"{name}={each}"


Method = Annotated[
    Literal["GET", "POST", "PUT", "DELETE"] | None, Field(description="Only these; CallApi: GET")
]
ApiPath = Annotated[str, Field(max_length=1_000, description="As /nodes/pve1/dns")]
ApiParameters = Annotated[
    list[str] | None,
    Whole(),
    BeforeValidator(_pairs),
    Field(description="As limit=20; no path parameters"),
]
_SWITCHES: Final = {"true": "1", "false": "0"}

Values = dict[str, str | list[str]]


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request that the schema accepts and that may be sent."""

    endpoint: Endpoint
    path: str  # encoded
    path_values: Mapping[str, str]
    parameters: Values = field(repr=False)  # with secrets
    schema: ApiSchema = field(repr=False)  # of the cluster's version

    @property
    def method(self) -> str:
        return self.endpoint.method

    @property
    def shown_path(self) -> str:
        """The path with the names in it; those that a sentence would change are quoted."""
        return filled(self.endpoint.path, lambda name: _whole(self.path_values[name]))

    @property
    def values(self) -> Mapping[str, str | list[str]]:
        """All values, those in the path too."""
        return {**self.path_values, **self.parameters}


def _whole(name: str) -> str:
    """Return a name as a sentence shows it, however long: nothing that is done may be cut off."""
    return shown_name(name, len(name))


def filled(path: str, value: Callable[[str], str]) -> str:
    """Return a path of the schema with the values of its parameters."""
    return re.sub(r"\{([^{}]+)\}", lambda match: value(match[1]), path)


async def schema_of(version: str) -> ApiSchema:
    """Return the schema of a version."""
    return await asyncio.to_thread(load_schema, version)  # the first time takes a moment


async def checked(cluster: Cluster, method: str, path: str, pairs: Sequence[str]) -> ApiRequest:
    """Return the request; raise BadArgument with all that is wrong, or Precondition."""
    release = (await cluster.pve.version()).release
    schema = await schema_of(release)
    path = "/" + path.strip().removeprefix("/api2/json").strip("/")
    if re.search(r"[?#%\\]", path):
        hint = "Put parameters into `parameters`, and names into the path as they are."
        raise BadArgument("path", "it has one of the characters ? # % \\.", hint=hint)
    match = schema.find(method, path)
    if match is None:
        error = _unknown(schema, method, path, release)
        raise BadArgument("path", error, hint="FindApi names methods.")
    endpoint, values = match
    if {".", ".."} & set(values.get("volume", "").split("/")):  # it alone may have slashes
        raise BadArgument("path", "the volume has . or .. in it.")
    parameters = parameters_of(endpoint, pairs)
    if reason := effects.refusal(endpoint, parameters):
        verb = "read" if method == "GET" else "send"
        raise Precondition(f"CallApi does not {verb} {method} {endpoint.path} this way: {reason}.")
    if twice := values.keys() & parameters.keys():
        raise BadArgument("parameters", f"{', '.join(sorted(twice))} is in the path already.")
    if errors := endpoint.check({**values, **parameters}):
        facts = "; ".join(_fact(*error) for error in sorted(errors.items()))
        raise BadArgument(
            "parameters", f"{facts}.", hint=f"It takes {listed_parameters(endpoint)}."
        )
    _refuse_duplicates(endpoint, parameters)
    if "node" in values and not endpoint.path.endswith("/rrddata"):  # every node has these
        await cluster.require_not_offline(values["node"])
    segments = endpoint.path.strip("/").split("/")
    encoded = join(*(values[part[1:-1]] if part[0] == "{" else part for part in segments))
    return ApiRequest(endpoint, encoded, values, parameters, schema)


def parameters_of(endpoint: Endpoint, pairs: Sequence[str]) -> Values:
    """Return the parameters by name, booleans as Proxmox has them; raise BadArgument.

    A repeated name is a list, where the parameter is one.
    """
    values: Values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals:
            raise BadArgument("parameters", f"write {name[:50]!r} as name=value.")
        declared = endpoint.parameter(name)
        if declared is not None and declared.type == "boolean":
            value = _SWITCHES.get(value.casefold(), value)
        is_list = declared is not None and (declared.format or "").endswith("-list")
        before = values.get(name)
        if declared is not None and declared.type == "array":
            values[name] = [*(before or ()), value]
        elif before is None:
            values[name] = value
        elif is_list:
            values[name] = f"{before},{value}"
        else:
            raise BadArgument("parameters", f"{name[:50]} is there twice.")
        if is_list and len(split_list(str(values[name]))) > MOST_PAIRS:  # checks cut longer ones
            raise BadArgument("parameters", f"{name} has more than {MOST_PAIRS:,} entries.")
    return values


def _refuse_duplicates(endpoint: Endpoint, parameters: Values) -> None:
    """Raise BadArgument for a list with a member twice: many hide another from its reader."""
    for name, value in parameters.items():
        members = value if isinstance(value, list) else split_list(value)
        twice = [each for each, count in Counter(members).items() if count > 1]
        if twice and _is_list(endpoint.parameter(name)):
            raise BadArgument("parameters", _fact(name, f"it has {twice[0][:50]} twice."))


def _is_list(parameter: Parameter | None) -> bool:
    is_array = parameter is not None and parameter.type == "array"
    return is_array or (parameter is not None and (parameter.format or "").endswith("-list"))


def _fact(name: str, text: str) -> str:
    """Return what is wrong with a parameter; the text may repeat its value."""
    is_secret = SECRET_PARAMETER.fullmatch(name.partition("[")[0])  # of a list: `name[0]`
    return f"{name}: {MASK if is_secret else text.strip()}"


def _unknown(schema: ApiSchema, method: str, path: str, release: str) -> str:
    if others := [each for each in METHODS if schema.find(each, path)]:
        return f"{path[:200]} has {', '.join(others)} and no {method} in Proxmox VE {release}."
    return f"{method} {path[:200]} does not exist in Proxmox VE {release}."


def listed_parameters(endpoint: Endpoint) -> str:
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
