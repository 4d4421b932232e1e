"""Every administrative operation has its route and its command, or names what replaces it."""

from typing import Any

import pytest
from pydantic import create_model
from tests.cases import walk
from tests.server.web.description import description

from pvemcp_server.admin.operation import Command, Operation, Result, model_of, operations
from pvemcp_server.cli.main import Commands
from pvemcp_server.cli.operations import _text

OPERATIONS = walk("operation", operations().values())


def command(path: str):
    """Return the command with this path."""
    name, *rest = path.split()
    found = Commands()[name]
    for name in rest:
        found = found.commands[name]
    return found


def test_the_text_of_a_command_has_fields_of_any_name():
    """Show also what dict() would take for a method of a mapping, as `keys`."""
    answer = create_model("Usage", keys=(int, ...))(keys=3)
    command = Command("usage show", text="{keys} of {name}")
    assert _text(command, Result(None, {"name": "ada"}, answer)) == "3 of ada"


@OPERATIONS
def test_an_operation_without_a_route_or_a_command_names_what_replaces_it(operation: Operation):
    assert (operation.route and operation.commands) or operation.elsewhere


@pytest.fixture(scope="module")
def served_paths() -> dict[str, Any]:
    """Return the paths of the API's description, which takes half a second to make."""
    return description()["paths"]


@OPERATIONS
def test_the_route_of_an_operation_is_served_with_its_description(
    operation: Operation, served_paths: dict[str, Any]
):
    if operation.route:
        methods = served_paths[operation.route.path]
        described = methods[operation.route.method.lower()]
        assert described["description"] == operation.description
        assert described["tags"] == [operation.tag]


@OPERATIONS
def test_the_commands_of_an_operation_exist_and_explain_every_option(operation: Operation):
    for declared in operation.commands:
        found = command(declared.path)
        assert found.help
        assert [each.name for each in found.params if not each.help] == []


@OPERATIONS
def test_a_field_of_an_operation_is_described(operation: Operation):
    for parameter in operation.parameters.values():
        if model := model_of(parameter):
            undescribed = [n for n, field in model.model_fields.items() if not field.description]
            assert undescribed == []


@OPERATIONS
def test_only_a_removal_answers_with_nothing(operation: Operation):
    if operation.route and operation.route.method == "DELETE":
        assert operation.answer is None
    else:
        assert operation.answer is not None


def test_a_command_belongs_to_one_operation():
    paths = [each.path for operation in operations().values() for each in operation.commands]
    assert sorted(paths) == sorted(set(paths))
