"""What holds for every tool at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pvemcp_server.access.model import Effect
from pvemcp_server.errors import BadArgument
from pvemcp_server.pipeline.arguments import read_arguments
from pvemcp_server.toolkit.registry import tools
from pvemcp_server.toolkit.schema import description_of

REPOSITORY = Path(__file__).parents[3]
REFERENCE = {
    "ListClusters", "GetClusterStatus", "GetClusterOptions", "ListVms", "ListSnapshots",
    "GetVmConfig", "ChangeVmState", "CreateVmSnapshot", "DeleteVmSnapshot", "RollbackVmSnapshot",
    "MigrateVm", "BackupVm", "ListVmRrdData", "GetVmStatus", "ListNodes", "GetNodeStatus",
    "ListReplications", "ListNodeRrdData", "ListTasks", "GetTask", "ListNodeDisks", "ListStorage",
    "ListPools", "ListBackups", "ListStorageContent", "ListIsos", "ListTemplates",
    "ListBackupJobs", "DownloadIso", "DeleteBackup", "DeleteIso", "DeleteStorageContent",
    "ExplainAccess", "GetQuerySchema", "ExecuteQuery",
}  # fmt: skip
EVERY = pytest.mark.parametrize("tool", tools().values(), ids=list(tools()))


def test_the_tools_are_those_of_the_reference():
    assert set(tools()) == REFERENCE


@EVERY
def test_a_schema_is_a_plain_object(tool):
    schema = tool.input_schema
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert not schema.keys() & {"anyOf", "oneOf", "allOf", "not", "if", "$ref", "$defs"}
    assert "$defs" not in json.dumps(schema)
    assert "$ref" not in json.dumps(schema)


@EVERY
def test_every_argument_is_described(tool):
    for name, one in tool.input_schema["properties"].items():
        assert description_of(one), f"{tool.name}.{name}"
        assert name == name.lower()


PATTERNS = [
    pytest.param(tool, name, ["?"] if '"array"' in schema else "?", id=f"{tool.name}.{name}")
    for tool in tools().values()
    for name, one in tool.arguments.model_json_schema()["properties"].items()
    if '"pattern"' in (schema := json.dumps(one))
]


@pytest.mark.parametrize(("tool", "name", "value"), PATTERNS)
def test_what_a_pattern_asks_for_is_said_in_words(tool, name, value):
    with pytest.raises(BadArgument) as refused:
        read_arguments(tool, {name: value})
    said = str(refused.value)
    assert f"{name}: a " in said or f"{name}.0: a " in said
    assert "pattern" not in said


@EVERY
def test_a_description_is_a_sentence_with_the_verb_first(tool):
    assert tool.description.endswith(".")
    assert tool.description[0].isupper()
    assert "\n" not in tool.description


@EVERY
def test_annotations_follow_from_the_effect(tool):
    told = tool.annotations
    assert told["title"]
    assert told["readOnlyHint"] is (tool.effect is Effect.READ)
    assert told["destructiveHint"] is (tool.effect is Effect.DESTROY)
    assert told["openWorldHint"] is (tool.name == "DownloadIso")
    assert not tool.reads or told["idempotentHint"]


@EVERY
def test_options_fit_the_kind_of_tool(tool):
    accepted = set(tool.accepted.model_fields)
    assert "format" in accepted
    assert ({"dry_run", "wait"} <= accepted) is not tool.reads
    assert ({"fields", "limit", "cursor"} <= accepted) is tool.lists


@EVERY
def test_reads_may_leave_the_cluster_out_and_writes_say_when_they_may(tool):
    schema = tool.input_schema
    assert "cluster_name" not in schema.get("required", [])
    if not tool.reads:
        told = schema["properties"]["cluster_name"]["description"]
        assert told == "Cluster; needed if several are reachable"


@EVERY
def test_a_read_declares_the_fields_of_its_answer(tool):
    assert (tool.answer is not None) or not tool.reads or tool.area == "query"


@pytest.mark.parametrize(
    "script", ["make_contracts.py", "make_docs_tools.py", "make_docs_tables.py"]
)
def test_generated_files_are_current(script):
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / script), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_whole_list_stays_small():
    contracts = (REPOSITORY / "tests" / "contracts").glob("*.json")
    whole = json.dumps([json.loads(one.read_text()) for one in contracts], separators=(",", ":"))
    # 9,000 tokens are the bar; measured, a token of these schemas has 4.3 characters
    assert len(whole) < 36_000
