"""The forms in which clients and models write arguments, over every argument of every tool."""

import json
from enum import Enum
from typing import Literal, get_args, get_origin

import jsonschema
import pytest
from tests.cases import walk
from tests.server.tools.examples import PROD, examples

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from pvemcp_server.errors import MOST_WRONG, BadArgument
from pvemcp_server.pipeline.arguments import read_arguments
from pvemcp_server.toolkit.arguments import Whole
from pvemcp_server.toolkit.registry import tools

EXAMPLES = examples(PROD)
EMPTY = (None, "", " ", [])


def hints(hint):
    yield hint
    for part in () if get_origin(hint) is Literal else get_args(hint):
        yield from hints(part)


def arguments(*, optional=False, lists=False):
    return [
        pytest.param(tool, name, id=f"{tool.name}-{name}")
        for tool in tools().values()
        for name, field in tool.accepted.model_fields.items()
        if not (optional and field.is_required())
        if not lists or _is_split(field)
    ]


def _is_split(field):
    """Return whether it is a list whose entries may stand in one text."""
    whole = any(isinstance(extra, Whole) for extra in field.metadata)
    return not whole and any(get_origin(hint) is list for hint in hints(field.annotation))


def choices(field):
    for hint in hints(field.annotation):
        if get_origin(hint) is Literal:
            yield from get_args(hint)
        elif isinstance(hint, type) and issubclass(hint, Enum):
            yield from (choice.value for choice in hint)


def entry_of(tool, name):
    """Return a value that a list argument takes."""
    if name == "ssh_keys":
        return "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me"
    schema = tool.input_schema["properties"][name]
    items = schema.get("items", schema)  # some lists are declared as text, which is shorter
    return 105 if items["type"] == "integer" else items.get("enum", ["pve01"])[-1]


def read(tool, **more):
    return read_arguments(tool, {**EXAMPLES[tool.name], **more})


@walk(("tool", "name"), arguments(optional=True))
def test_an_optional_argument_without_a_value_has_its_default(tool, name):
    given = {key: value for key, value in EXAMPLES[tool.name].items() if key != name}
    default = getattr(read_arguments(tool, given), name)
    for empty in EMPTY:
        accepted = read_arguments(tool, {**given, name: empty})
        assert getattr(accepted, name) == default
        assert name not in accepted.model_fields_set


@walk("tool", tools().values())
def test_a_call_with_every_optional_argument_as_null_is_the_call_without_them(tool):
    given = EXAMPLES[tool.name]
    nulls = dict.fromkeys(tool.accepted.model_fields.keys() - given.keys())
    assert read_arguments(tool, {**given, **nulls}) == read_arguments(tool, given)


@walk("tool", tools().values())
def test_a_required_argument_without_a_value_is_an_error(tool):
    for name, field in tool.arguments.model_fields.items():
        if field.is_required() and name != "query":
            with pytest.raises(BadArgument, match=f"{name}: this argument is required"):
                read(tool, **{name: None})
            if field.annotation is not str:
                with pytest.raises(BadArgument, match=name):
                    read(tool, **{name: ""})


@walk(("tool", "name"), arguments(lists=True))
def test_a_list_may_be_json_text_or_have_commas_or_be_one_value(tool, name):
    entry = entry_of(tool, name)
    one, two = (getattr(read(tool, **{name: [entry] * n}), name) for n in (1, 2))
    for same in (entry, str(entry), json.dumps([entry]), f" {json.dumps([str(entry)])}"):
        assert getattr(read(tool, **{name: same}), name) == one
    texts = (
        json.dumps([entry, entry]),
        str([entry, entry]),
        str([str(entry)] * 2),
        f"{entry}, {entry}",
        f"{entry};{entry}; ",
    )
    for same in (*texts, [f"{entry},{entry}"], f"{entry}\n{entry}"):
        assert getattr(read(tool, **{name: same}), name) == two
    if isinstance(entry, int):
        assert getattr(read(tool, **{name: f"{entry} {entry}"}), name) == two


@walk(("tool", "name"), arguments(optional=True))
def test_all_in_place_of_a_filter_is_no_filter(tool, name):
    field = tool.accepted.model_fields[name]
    filters = ("cluster_name", "node", "nodes", "storage", "vmid", "vmids")
    filters += ("status", "type", "content_type", "user")
    if (
        name in filters and tool.lists and tool.name != "GetLog"
    ):  # its node and vmid say whose log it is
        others = {key: value for key, value in EXAMPLES[tool.name].items() if key != name}
        for word in ("all", "ALL", " any ", "*", ["all"]):
            accepted = read_arguments(tool, {**others, name: word})
            assert getattr(accepted, name) == field.get_default(call_default_factory=True)


def test_a_number_in_place_of_a_text_is_read():
    accepted = read(tools()["ListTasks"], since=1_795_860_000)
    assert accepted.since == "1795860000"
    with pytest.raises(BadArgument, match="a snapshot name is a letter"):
        read(tools()["CreateVmSnapshot"], snapshot_name=20_261_128)


@walk(("tool", "name"), arguments())
def test_a_choice_may_be_written_in_any_case(tool, name):
    for choice in choices(tool.accepted.model_fields[name]):
        as_declared = getattr(read(tool, **{name: choice}), name)
        for same in (choice.upper(), choice.lower(), f" {choice} "):
            assert getattr(read(tool, **{name: same}), name) == as_declared


@walk("tool", tools().values())
def test_a_client_that_checks_against_the_schema_sends_the_example(tool):
    jsonschema.validate(EXAMPLES[tool.name], tool.input_schema)


@pytest.mark.parametrize(
    ("name", "value"), [("vmids", "[100"), ("vmids", "{}"), ("vmids", "web"), ("fields", [{}])]
)
def test_what_is_no_list_in_any_form_is_an_error(name, value):
    with pytest.raises(BadArgument, match=name):
        read(tools()["ListSnapshots"], **{name: value})


@walk("tool", tools().values())
def test_an_error_explains_ten_of_thousands_of_wrong_names(tool, monkeypatch):
    """Count what takes time: comparing a name with the known ones."""
    compared = []
    monkeypatch.setattr(
        "pvemcp_server.pipeline.arguments.nearest", lambda name, *_: compared.append(name) or []
    )
    wrong = {f"wrong{number}": number for number in range(5_000)}
    with pytest.raises(BadArgument, match="more are wrong"):
        read_arguments(tool, {**wrong, **EXAMPLES.get(tool.name, {})})
    assert len(compared) <= MOST_WRONG


LISTS = [
    (tool, name)
    for tool in tools().values()
    for name, field in tool.accepted.model_fields.items()
    if "list[" in str(field.annotation)
]


@walk(("tool", "name"), LISTS)
def test_no_list_of_thousands_of_entries_is_validated(tool, name, monkeypatch):
    """Refuse the list as a whole: to explain each entry takes seconds."""
    validated = []
    monkeypatch.setattr(tool.accepted, "model_validate", validated.append)
    for value in (["x"] * 2_000, json.dumps(["x"] * 2_000)):
        with pytest.raises(BadArgument, match=rf"^{name}: it has 2,000 entries"):
            read_arguments(tool, {**EXAMPLES.get(tool.name, {}), name: value})
    assert validated == []
