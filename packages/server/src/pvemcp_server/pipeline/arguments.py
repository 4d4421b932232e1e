"""Arguments as the client sent them, read strictly: a misspelt one is never ignored."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pvemcp_server.errors import BadArgument, nearest
from pvemcp_server.toolkit.arguments import Rule
from pvemcp_server.toolkit.registry import Tool


def read_arguments(tool: Tool, arguments: Mapping[str, Any]) -> BaseModel:
    """The arguments of a call; raises BadArgument, naming every wrong one and what is right."""
    try:
        return tool.accepted.model_validate(arguments)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        names = list({**tool.arguments.model_fields, **tool.accepted.model_fields})
        facts = [f"{_name(error)}: {_fact(error, names, tool)}" for error in errors]
        first, *others = dict.fromkeys(facts)
        name, _, fact = first.partition(": ")
        raise BadArgument(name, " ".join([fact, *others]), hint=_hint(errors, names)) from None


def option(accepted: BaseModel, name: str, default: Any = None) -> Any:
    """One of the options that every list or write has, as the call gave it."""
    return vars(accepted).get(name, default)  # getattr for what a model lacks is slow


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
    """What the argument's pattern asks for, where it says so in words."""
    declared = tool.arguments.model_fields.get(str(error["loc"][0]))
    if declared is None:
        return None
    extras = [*declared.metadata, *_extras(declared.annotation)]
    return next((one for one in extras if isinstance(one, Rule)), None)


def _extras(hint: Any) -> Iterable[Any]:
    """What is annotated anywhere inside a type."""
    yield from getattr(hint, "__metadata__", ())
    for part in get_args(hint):
        yield from _extras(part)


def _hint(errors: Iterable[ErrorDetails], names: Iterable[str]) -> str:
    unknown = any(error["type"] == "extra_forbidden" for error in errors)
    return f"Accepted are {', '.join(names)}." if unknown else ""
