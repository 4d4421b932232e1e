"""Rules that hold for every tool: schemas, descriptions, annotations, contracts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cases import walk

from pvemcp_server.access.model import Effect
from pvemcp_server.errors import BadArgument
from pvemcp_server.pipeline.arguments import read_arguments
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.toolkit.schema import description_of

from .examples import PROD, examples

REPOSITORY = Path(__file__).parents[3]
EVERY = walk("tool", tools().values())


def test_every_tool_has_an_example():
    assert tools().keys() == examples(PROD).keys()


@EVERY
def test_a_schema_is_a_plain_object(tool):
    schema = tool.input_schema
    assert schema["type"] == "object"
    assert not schema.keys() & {"anyOf", "oneOf", "allOf", "not", "if", "$ref", "$defs"}
    assert "$defs" not in json.dumps(schema)
    assert "$ref" not in json.dumps(schema)


@EVERY
def test_every_argument_is_described(tool):
    for name, schema in tool.input_schema["properties"].items():
        assert description_of(schema), f"{tool.name}.{name}"
        assert name == name.lower()


PATTERNS = [
    pytest.param(tool, name, ["?"] if '"array"' in schema else "?", id=f"{tool.name}.{name}")
    for tool in tools().values()
    for name, value in tool.arguments.model_json_schema()["properties"].items()
    if '"pattern"' in (schema := json.dumps(value))
]


@walk(("tool", "name", "value"), PATTERNS)
def test_a_pattern_is_explained_in_words(tool, name, value):
    with pytest.raises(BadArgument) as refusal:
        read_arguments(tool, {name: value})
    error = str(refusal.value)
    assert f"{name}: a " in error or f"{name}.0: a " in error
    assert "pattern" not in error


@EVERY
def test_a_description_is_a_sentence_with_the_verb_first(tool):
    assert tool.description.endswith(".")
    assert tool.description[0].isupper()
    assert "\n" not in tool.description


@EVERY
def test_annotations_follow_from_the_declaration(tool):
    annotations = tool.annotations
    assert annotations["title"]
    assert annotations["readOnlyHint"] is (tool.effect is Effect.READ)
    assert annotations["destructiveHint"] is tool.destructive
    assert tool.destructive or tool.effect is not Effect.DESTROY
    assert not (tool.destructive and tool.reads)
    assert annotations["openWorldHint"] is (tool.name in ("DownloadIso", "CallApi"))
    is_idempotent = tool.idempotent and not tool.reads  # of no meaning for reads, else the default
    assert annotations.get("idempotentHint", False) is is_idempotent


@EVERY
def test_options_fit_the_kind_of_tool(tool):
    accepted = set(tool.accepted.model_fields)
    assert "format" in accepted
    assert ({"dry_run", "wait"} <= accepted) is not tool.reads
    assert ({"fields", "limit", "cursor"} <= accepted) is tool.lists


@EVERY
def test_cluster_name_is_optional_and_described_for_writes(tool):
    schema = tool.input_schema
    assert "cluster_name" not in schema.get("required", [])
    if not tool.reads:
        description = schema["properties"]["cluster_name"]["description"]
        of_a_path = tool.name == "CallApi"  # no argument of its own names a guest or node
        assert of_a_path or description == "Cluster, if several"


@EVERY
def test_a_read_declares_the_fields_of_its_answer(tool):
    assert (tool.answer is not None) or not tool.reads or tool.area == "query"


def test_the_contracts_are_current():
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "make_contracts.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_whole_tool_list_stays_small():
    contracts = (REPOSITORY / "tests" / "contracts").glob("*.json")
    text = json.dumps([json.loads(path.read_text()) for path in contracts], separators=(",", ":"))
    # the limit is 12,000 tokens; a token of these schemas has 4.2 characters, as measured
    assert len(text) < 12_000 * 4.2
