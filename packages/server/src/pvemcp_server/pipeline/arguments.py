"""Validation of arguments: a misspelled one is an error, never ignored."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pvemcp_server.errors import BadArgument, nearest
from pvemcp_server.toolkit.arguments import Rule
from pvemcp_server.toolkit.registry import Tool


def read_arguments(tool: Tool, arguments: Mapping[str, Any]) -> BaseModel:
    """Validate the arguments; raise BadArgument that lists every wrong one with valid values."""
    try:
        return tool.accepted.model_validate(arguments)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        names = list({**tool.arguments.model_fields, **tool.accepted.model_fields})
        facts = [f"{_name(error)}: {_fact(error, names, tool)}" for error in errors]
        first, *others = dict.fromkeys(facts)
        name, _, fact = first.partition(": ")
        unknown = any(error["type"] == "extra_forbidden" for error in errors)
        hint = f"Accepted are {', '.join(names)}." if unknown else ""
        raise BadArgument(name, " ".join([fact, *others]), hint=hint) from None


def option(accepted: BaseModel, name: str, default: Any = None) -> Any:
    """Return an option of all lists or writes, such as `limit`, or the default."""
    return vars(accepted).get(name, default)  # getattr for a missing field of a model is slow


def _name(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"])[:100]


def _fact(error: ErrorDetails, names: Iterable[str], tool: Tool) -> str:
    match error["type"]:
        case "extra_forbidden":
            similar = nearest(_name(error), names, 1)
            suggestion = f", did you mean {similar[0]}?" if similar else "."
            return f"there is no such argument{suggestion}"
        case "missing":
            return "this argument is required."
        case "string_pattern_mismatch" if rule := _rule(error, tool):
            return f"{rule.words}."
        case _:
            return error["msg"].removesuffix(".") + "."


def _rule(error: ErrorDetails, tool: Tool) -> Rule | None:
    """Return the rule that explains the argument's pattern in words, if it has one."""
    declared = tool.arguments.model_fields.get(str(error["loc"][0]))
    if declared is None:
        return None
    extras = [*declared.metadata, *_extras(declared.annotation)]
    return next((extra for extra in extras if isinstance(extra, Rule)), None)


def _extras(hint: Any) -> Iterable[Any]:
    """Yield the metadata of `Annotated` anywhere inside a type."""
    yield from getattr(hint, "__metadata__", ())
    for part in get_args(hint):
        yield from _extras(part)
