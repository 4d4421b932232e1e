"""The rules of model APIs and clients for tools, held to every tools/list that a key can get.

One schema that an API refuses makes it refuse the whole request, with all other tools. Each family
of clients is one function here: it returns what that family would refuse, as sentences.
"""

import re
from collections.abc import Iterator
from itertools import product

import jsonschema
import pytest

from pvemcp_server.access.model import (
    ANY,
    EVERYTHING,
    READS,
    Caller,
    Grant,
    Resources,
    Role,
    Toolset,
)
from pvemcp_server.access.roles import ADMINISTRATOR, BUILT_IN
from pvemcp_server.mcp.instructions import instructions
from pvemcp_server.mcp.tools import visible_tools
from pvemcp_server.query.examples import EXAMPLES
from pvemcp_server.toolkit.registry import tools

NARROWED = Resources(pools=frozenset({"web"}), nodes=frozenset({"pve01"}))
WRITES = frozenset({"ChangeVmState", "DeleteVmSnapshot"})
GRANTS = {
    **{name: (grant,) for name, _, grant in BUILT_IN},
    "narrowed": (Grant(frozenset({ANY}), resources=NARROWED),),
    "read everywhere, write in one pool": (
        Grant(frozenset({READS}), resources=EVERYTHING),
        Grant(WRITES, resources=NARROWED),
    ),
    "one tool": (Grant(frozenset({"ExecuteQuery"})),),
}
CALLERS = {name: Caller("k", "k", Role(1, name, "", grants)) for name, grants in GRANTS.items()}
CALLERS["a key for reads, of an administrator"] = Caller(
    "k", "k", Role(1, "x", "", GRANTS[ADMINISTRATOR]), tools=frozenset({READS})
)
CALLERS["every toolset"] = Caller(
    "k", "k", Role(1, "x", "", GRANTS[ADMINISTRATOR]), toolsets=frozenset(Toolset)
)

TYPES = ("string", "integer", "number", "boolean", "array", "object")
GEMINI_KEYWORDS = {
    *("type", "format", "title", "description", "nullable", "enum", "items", "properties"),
    *("required", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength"),
    *("pattern", "anyOf", "default", "example", "additionalProperties", "propertyOrdering"),
}
STRICT_REFUSES = {"allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "$ref"}
GEMINI_FORMATS = {None, "enum", "date-time", "int32", "int64", "float", "double"}
CUT_BY_CLAUDE_CODE = 2048
CLIENT_PREFIXES = ("mcp__pvemcp__", "mcp_pvemcp_", "pvemcp-")


def places(schema, at=""):
    """Yield each schema within this one, with its path and how many objects and lists hold it."""
    yield at, schema, at.count(".") + at.count("[]")
    for name, part in schema.get("properties", {}).items():
        yield from places(part, f"{at}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from places(schema["items"], f"{at}[]")
    for number, part in enumerate(schema.get("anyOf", ())):
        yield from places(part, f"{at}|{number}")


def arrays_without_items(schema) -> Iterator[str]:
    for at, part, _ in places(schema):
        if part.get("type") == "array" and not (part.get("items") or {}).get("type"):
            yield f"{at}: array without items of a type"


def openai(tool) -> Iterator[str]:
    """Check the rules of OpenAI and Azure OpenAI, in any mode."""
    schema = tool["inputSchema"]
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool["name"]):
        yield "name"
    if len(tool["description"]) > 1024:
        yield "description of more than 1024 characters"
    if schema.get("type") != "object" or schema.keys() & {"anyOf", "oneOf", "allOf", "enum", "not"}:
        yield "the root is not a plain object"
    yield from arrays_without_items(schema)


def openai_strict(tool) -> Iterator[str]:
    """Find schemas that no SDK can make strict (all required, optional as nullable)."""
    yield from openai(tool)
    parts = list(places(tool["inputSchema"]))
    for at, part, depth in parts:
        if part.keys() & STRICT_REFUSES:
            yield f"{at}: {part.keys() & STRICT_REFUSES}"
        if part.get("type") == "object" and not part.get("properties"):
            yield f"{at}: object of any properties"
        if isinstance(part.get("additionalProperties"), dict):
            yield f"{at}: properties of any name"
        if not part.get("type") and not part.get("anyOf"):
            yield f"{at}: no type"
        if depth > 10:
            yield f"{at}: more than 10 levels"
    if sum(len(part.get("properties", ())) for _, part, _ in parts) > 5000:
        yield "more than 5000 properties"
    if sum(len(part.get("enum", ())) for _, part, _ in parts) > 1000:
        yield "more than 1000 enum values"


def gemini(tool) -> Iterator[str]:
    """Check the rules of Gemini and Vertex AI, where the schema is sent as `parameters`."""
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}", tool["name"]):
        yield "name"
    yield from arrays_without_items(tool["inputSchema"])
    for at, part, _ in places(tool["inputSchema"]):
        if part.keys() - GEMINI_KEYWORDS:
            yield f"{at}: {part.keys() - GEMINI_KEYWORDS}"
        if part.get("format") not in GEMINI_FORMATS:
            yield f"{at}: format {part['format']}"
        if "anyOf" in part and len(part) > 1:
            yield f"{at}: anyOf is not the only keyword"
        if "anyOf" not in part and part.get("type") not in TYPES:
            yield f"{at}: not one type"
        if "enum" in part and (part.get("type") != "string" or "" in part["enum"]):
            yield f"{at}: enum of other than texts, or with an empty one"
        if part.get("type") == "object" and not part.get("properties"):
            yield f"{at}: object without properties"
        if set(part.get("required", ())) - part.get("properties", {}).keys():
            yield f"{at}: requires what is no property"


def anthropic(tool) -> Iterator[str]:
    """Check the rules of Claude's API."""
    schema = tool["inputSchema"]
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool["name"]):
        yield "name"
    if schema.get("type") != "object" or schema.keys() & {"anyOf", "oneOf", "allOf"}:
        yield "the root is not a plain object"
    for at, part, _ in places(schema):
        for name in part.get("properties", ()):
            if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name):
                yield f"{at}: property name {name}"
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as wrong:
        yield f"not JSON Schema 2020-12: {wrong.message}"


def bedrock(tool) -> Iterator[str]:
    """Check the rules of Amazon Bedrock: Converse, and the stricter names of its agents."""
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]{0,63}", tool["name"]):
        yield "name"
    if not tool["description"]:
        yield "no description"
    if tool["inputSchema"].get("type") != "object":
        yield "the root is not an object"


def vs_code(tool) -> Iterator[str]:
    """Check the rules of VS Code (Copilot) and the length of names with a client's prefix."""
    for at, part, _ in places(tool["inputSchema"]):
        if part.get("type") == "array" and not isinstance(part.get("items"), dict):
            yield f"{at}: tool parameters array type must have items"
    if tool["inputSchema"].get("type") != "object":
        yield "tool parameters must be an object"
    if max(len(prefix + tool["name"]) for prefix in CLIENT_PREFIXES) > 64:
        yield "name too long with the client's prefix"


def cursor(tool) -> Iterator[str]:
    """Check the rule of Cursor: it hides tools whose name and server's name exceed 60."""
    if len("pvemcp" + tool["name"]) > 60:
        yield "name too long with the server's name"


def claude_code(tool) -> Iterator[str]:
    """Check the rule of Claude Code: it cuts descriptions."""
    if len(tool["description"]) > CUT_BY_CLAUDE_CODE:
        yield f"description of more than {CUT_BY_CLAUDE_CODE} characters"


FAMILIES = (openai, openai_strict, gemini, anthropic, bedrock, vs_code, cursor, claude_code)


@pytest.mark.parametrize("caller", CALLERS.values(), ids=list(CALLERS))
def test_every_client_accepts_every_tool_of_a_key(caller):
    listed = [
        tool.model_dump(mode="json", by_alias=True, exclude_none=True)
        for tool in visible_tools(tools(), caller)
    ]
    assert 0 < len(listed) <= 128
    found = {
        f"{tool['name']} in {family.__name__}": findings
        for tool, family in product(listed, FAMILIES)
        if (findings := list(family(tool)))
    }
    assert found == {}


@pytest.mark.parametrize("caller", CALLERS.values(), ids=list(CALLERS))
def test_claude_code_does_not_cut_the_instructions(caller):
    assert len(instructions(tools(), caller)) <= CUT_BY_CLAUDE_CODE


def test_the_instructions_name_what_no_tool_does():
    writer = CALLERS["Operator"]
    assert "No tool here can open consoles: say so." in instructions(tools(), writer)
    without_evacuation = {name: tool for name, tool in tools().items() if name != "EvacuateNode"}
    missing = "No tool here can evacuate nodes, open consoles: say so."
    assert missing in instructions(without_evacuation, writer)
    assert "No tool here" not in instructions(tools(), CALLERS["Read-only"])


BARE = {"type": "array"}
BESIDE = {"description": "x", "anyOf": [{"type": "string"}, {"type": "integer"}]}


@pytest.mark.parametrize(
    ("schema", "families"),
    [
        (BARE, {openai, openai_strict, gemini, vs_code}),
        ({"type": "array", "items": {}}, {openai, openai_strict, gemini}),
        ({"anyOf": [{"type": "string"}, BARE]}, {openai, openai_strict, gemini, vs_code}),
        ({"type": "array", "items": BARE}, {openai, openai_strict, gemini, vs_code}),
        (BESIDE, {gemini}),
        ({"type": "integer", "enum": [1, 2]}, {gemini}),
        ({"type": "string", "enum": ["", "a"]}, {gemini}),
        ({"type": ["string", "null"]}, {gemini}),
        ({"type": "object"}, {openai_strict, gemini}),
        ({"description": "anything"}, {openai_strict, gemini}),
        ({"type": "object", "properties": {"a b": {"type": "string"}}}, {anthropic}),
        ({"type": "text"}, {gemini, anthropic}),
        ({"type": "string", "format": "ipv4"}, {gemini}),
        ({"type": "string", "const": "x"}, {gemini}),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, {openai_strict, gemini}),
    ],
)
def test_the_rules_detect_schemas_that_a_family_refuses(schema, families):
    tool = {
        "name": "ListThings",
        "description": "List things.",
        "inputSchema": {"type": "object", "properties": {"argument": schema}},
    }
    assert {family for family in FAMILIES if list(family(tool))} == families


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.question)
def test_a_client_that_checks_arguments_sends_the_examples_of_queries(example):
    schema = tools()["ExecuteQuery"].input_schema
    jsonschema.validate({"query": example.query}, schema)
