"""Commands derived from the administrative operations (`admin/operation.py`).

Path parameters and fields marked `Argument` become arguments, all other fields options. A secret
is read from a file: `token_secret` has the option `--token-secret-file`.
"""

import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, Signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import typer
from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from pvemcp_server.access.fields import Argument, Option, bad_argument
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import (
    Column,
    Command,
    Operation,
    Result,
    model_of,
    operations_of,
)
from pvemcp_server.cli.completion import complete
from pvemcp_server.cli.context import (
    AsJson,
    administrator,
    cell_text,
    pipeline_of,
    print_answer,
    print_table,
    to_json,
)
from pvemcp_server.cli.input import read_object, read_secret
from pvemcp_server.cli.state import command as as_command
from pvemcp_server.pipeline.pipeline import Pipeline

Run = Callable[..., Awaitable[None]]
Mark = TypeVar("Mark", Argument, Option)
_BY_HAND: Final[dict[str, Run]] = {}


def by_hand(path: str) -> Callable[[Run], Run]:
    """Register the function of a command that its operation declares as written by hand."""

    def register(run: Run) -> Run:
        _BY_HAND[path] = run
        return run

    return register


@cache
def app_of(subject: str) -> typer.Typer:
    """Return the commands of a module of operations, in the order of their declaration."""
    module = import_module(f"pvemcp_server.admin.{subject}")
    if find_spec(f"pvemcp_server.cli.{subject}"):
        import_module(f"pvemcp_server.cli.{subject}")
    groups = {"": typer.Typer()}
    for path, help_text in module.subject.groups.items():
        parent, _, name = path.rpartition(" ")
        groups[path] = typer.Typer(help=help_text, no_args_is_help=True)
        groups[parent].add_typer(groups[path], name=name)
    for operation in operations_of(module.__name__):
        for command in operation.commands:
            group, _, name = command.path.rpartition(" ")
            run = _BY_HAND[command.path] if command.by_hand else derived(operation, command)
            groups[group].command(name)(as_command(run))
    return groups[""]


def with_signature(run: Run, parameters: list[Parameter]) -> Run:
    """Return the function with the signature from which Typer reads arguments and options."""
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # functions have it
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def derived(operation: Operation, command: Command) -> Run:
    """Return the function of a command: it runs the operation and prints the answer."""
    inputs = list(_inputs(operation, command))

    async def run(as_json: bool = False, **options: Any) -> None:
        values = {i.name: i.value(options[i.name]) for i in inputs if options[i.name] is not None}
        async with administrator(writes=not operation.only_reads) as context:
            arguments = _arguments(operation, command, context, inputs, values)
            result = Result(context, values, await operation.run(**arguments))
            if operation.streams:
                async for piece in result.answer:
                    sys.stdout.write(piece)
            else:
                _print(command, result, as_json=as_json)
        if command.failed and command.failed(result.answer):
            raise typer.Exit(1)

    run.__doc__ = command.help or operation.description
    parameters = [each.parameter for each in inputs]
    if not operation.streams:
        parameters.append(
            Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
        )
    return with_signature(run, parameters)


@dataclass(frozen=True)
class Input:
    """An argument or option of a command."""

    target: str  # the parameter of the operation that it fills, or whose model it fills
    field: str  # the field of that model, or again the parameter
    info: FieldInfo
    positional: bool

    @property
    def name(self) -> str:
        """The name on the command line, by which the command's texts use the value."""
        if self.positional:
            mark = _mark(self.info, Argument)
            return (mark and mark.name) or self.field
        return self.spelling.removeprefix("--").replace("-", "_")

    @property
    def type(self) -> Any:
        """The type of the value, without null and without checks."""
        kind: Any = self.info.annotation
        if get_origin(kind) in {Union, UnionType}:
            kind = next(each for each in get_args(kind) if each is not NoneType)
        return get_args(kind)[0] if get_origin(kind) is Annotated else kind

    @property
    def parameter(self) -> Parameter:
        """The parameter that Typer reads; the operation's model checks the value."""
        option = _mark(self.info, Option) or Option()
        names = complete(self.name)
        mark: Any = typer.Option(
            self.spelling, help=self.help, metavar=option.metavar, autocompletion=names
        )
        if self.positional:
            mark = typer.Argument(help=self.help, autocompletion=names)
        kind: Any = {bool: bool, int: int, SecretStr: Path}.get(self.type, str)
        if option.clear and kind is int:
            kind = str  # or the word that clears it
        if get_origin(self.type) is list:
            kind = list[str]
        default: Any = Parameter.empty
        if not self.info.is_required():
            # an unused option stays unset; the help shows only non-empty defaults
            scalar = isinstance(self.info.default, str | int) and self.info.default
            default = self.info.default if scalar else None
            kind = kind | None
        return Parameter(
            self.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, mark]
        )

    @property
    def spelling(self) -> str:
        """The option as typed."""
        option = _mark(self.info, Option)
        suffix = "-file" if self.type is SecretStr else ""
        return (option and option.name) or f"--{self.field.replace('_', '-')}{suffix}"

    @property
    def help(self) -> str:
        """The description of the field, with what is special on a command line."""
        text = self.info.description or self.field
        option = _mark(self.info, Option)
        if self.type is SecretStr:
            text = f"File with {text[0].lower()}{text[1:]}; - reads standard input"
        if get_origin(self.type) is dict:
            text += ": JSON, or @FILE"
        if get_origin(self.type) is list and not self.positional:
            text += "; repeat it for several"
        if option and option.clear:
            text += f"; {option.clear} clears it"
        return f"{text}."

    def value(self, typed: Any) -> Any:
        """Return the value for the operation's model."""
        option = _mark(self.info, Option)
        if self.type is SecretStr:
            return SecretStr(read_secret(typed, self.spelling))
        if get_origin(self.type) is dict:
            return read_object(self.name, typed, '{"from": "guests"}')
        if option and option.clear and typed in (option.clear, [option.clear]):
            return [] if get_origin(self.type) is list else None
        return typed


def _inputs(operation: Operation, command: Command) -> Iterator[Input]:
    """Yield the arguments and options of a command: path parameters only, if values are fixed."""
    for name, parameter in operation.parameters.items():
        if parameter.annotation in (AdminContext, Pipeline):
            continue
        if model := model_of(parameter):
            fields = {} if command.fixed else model.model_fields
            for field, info in fields.items():
                if field not in command.omit:
                    positional = info.is_required() and _mark(info, Argument) is not None
                    yield Input(name, field, info, positional)
        elif name not in command.fixed:
            info = (
                FieldInfo.from_annotation(parameter.annotation)
                if parameter.default is Parameter.empty
                else FieldInfo.from_annotated_attribute(parameter.annotation, parameter.default)
            )
            in_path = operation.route is not None and f"{{{name}}}" in operation.route.path
            yield Input(name, name, info, in_path or _mark(info, Argument) is not None)


def _mark(info: FieldInfo, kind: type[Mark]) -> Mark | None:
    return next((mark for mark in info.metadata if isinstance(mark, kind)), None)


def _arguments(
    operation: Operation,
    command: Command,
    context: AdminContext,
    inputs: list[Input],
    values: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the arguments of the operation's function."""
    arguments: dict[str, Any] = {}
    for name, parameter in operation.parameters.items():
        typed = {i.field: values[i.name] for i in inputs if i.target == name and i.name in values}
        if parameter.annotation is AdminContext:
            arguments[name] = context
        elif parameter.annotation is Pipeline:
            arguments[name] = pipeline_of(context)
        elif model := model_of(parameter):
            arguments[name] = model.model_validate({**typed, **command.fixed})
        elif name in command.fixed:
            arguments[name] = command.fixed[name]
        elif typed:
            (source,) = (i for i in inputs if i.target == name)
            arguments[name] = _checked(source, parameter.annotation, typed[name])
    return arguments


def _checked(source: Input, kind: Any, value: Any) -> Any:
    """Return the value of a parameter that is no model; raise BadArgument if it is wrong."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as invalid:
        place = source.name if source.positional else source.spelling
        raise bad_argument(invalid, place) from None


def _print(command: Command, result: Result, *, as_json: bool) -> None:
    answer = command.part(result.answer) if command.part else result.answer
    if answer is None:
        answer = {command.done: next(reversed([*result.arguments.values()]), True)}
    if command.columns and not as_json:
        columns = [
            (column.name, column.text) if isinstance(column, Column) else (column, cell_text)
            for column in command.columns
        ]
        print_table(answer, columns)
    elif command.columns:
        typer.echo(to_json(answer))
    else:
        print_answer(answer, _text(command, result), as_json=as_json)


def _text(command: Command, result: Result) -> str:
    if callable(command.text):
        return command.text(result)
    fields = vars(result.answer) if result.answer else {}
    return command.text.format(**{**result.arguments, **fields})
