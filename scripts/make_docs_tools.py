"""Write docs/reference/tools.md: every tool with its arguments and the fields of its answer.

python scripts/make_docs_tools.py           renew it
python scripts/make_docs_tools.py --check   fail when it is not current
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pvemcp_server.tools.all  # noqa: F401 - declares the tools
from pages import renew_or_check
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.tables.rows import fields_of
from pvemcp_server.toolkit.arguments import ListOptions, Options, WriteOptions
from pvemcp_server.toolkit.registry import Tool, tools
from pvemcp_server.toolkit.schema import description_of, input_schema

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "tools.md"
AREAS = {
    Area.CLUSTER: "Cluster",
    Area.VMS: "Virtual machines and containers",
    Area.NODES: "Nodes and tasks",
    Area.STORAGE: "Storage and backup",
    Area.ACCESS: "Access",
    Area.QUERY: "Query",
}
EFFECTS = {
    Effect.READ: "reads",
    Effect.WRITE: "writes",
    Effect.DESTROY: "loses data: asks the user first",
}
SOMETIMES = "writes; asks the user first where its action loses data"
INTRO = """\
# Tools

Generated from the declarations by `make docs`.

A read without `cluster_name` asks every cluster the key reaches, and a column `cluster` comes
first. A write needs it unless the key reaches exactly one cluster. Percentages are 0–100, memory
and disks in bytes, times ISO 8601 in UTC, durations in seconds. After the data a second text block
says what is missing, cut or old, when there is something to say. Errors carry `isError` and the
next step.
"""


def page() -> str:
    """Build the whole page."""
    return "\n".join([INTRO, *_options(), *_toolsets(), *_sections()]).rstrip() + "\n"


def _options() -> Iterator[str]:
    yield "## Options of every tool\n"
    kinds = {"every tool": Options, "lists": ListOptions, "writes": WriteOptions}
    of_lists = input_schema(ListOptions)["properties"]  # these name all formats
    seen: set[str] = set()
    for whose, model in kinds.items():
        schema = input_schema(model)["properties"]
        for name, one in schema.items():
            if name not in seen:
                yield f"- `{name}` ({whose}): {description_of(of_lists.get(name, one))}."
        seen |= schema.keys()
    yield ""


def _toolsets() -> Iterator[str]:
    yield "## Toolsets\n"
    yield "Tools of these sets are listed, and callable, with API keys that have the set.\n"
    for toolset in Toolset:
        names = [tool.name for tool in tools().values() if tool.toolset is toolset]
        yield f"- `{toolset}`: {toolset.description} ({', '.join(names)})"
    yield ""


def _sections() -> Iterator[str]:
    for area, title in AREAS.items():
        here = [tool for tool in tools().values() if tool.area is area]
        if here:
            yield f"## {title}\n"
        for tool in here:
            yield from _tool(tool)


def _tool(tool: Tool) -> Iterator[str]:
    yield f"### {tool.name}\n"
    effect = SOMETIMES if tool.may_lose_data else EFFECTS[tool.effect]
    toolset = f"; toolset `{tool.toolset}`" if tool.toolset else ""
    yield f"{tool.description} *({effect}{toolset})*\n"
    schema = tool.input_schema
    own = {name: schema["properties"][name] for name in tool.arguments.model_fields}
    if own:
        yield "| argument | type | |"
        yield "|---|---|---|"
        for name, one in own.items():
            needed = "" if name in schema.get("required", []) else " (optional)"
            yield f"| `{name}`{needed} | {_type(one)} | {_words(one)} |"
        yield ""
    if tool.answer is not None:
        yield from _answer(tool)


def _answer(tool: Tool) -> Iterator[str]:
    row = tool.answer
    assert row is not None
    lists = "Columns" if tool.lists else "Fields"
    yield f"<details><summary>{lists} of the answer</summary>\n"
    yield "| field | type | unit | |"
    yield "|---|---|---|---|"
    for name, one in fields_of(row).items():
        mark = "**" if name in row.minimal and tool.lists else ""
        unit = one.unit.value if one.unit else ""
        kind = " \\| ".join(one.choices) or one.kind.value
        yield f"| {mark}`{name}`{mark} | {kind} | {unit} | {one.description} |"
    bold = (
        "\nBold: in the answer of detail level Minimal; others by Full or `fields`."
        if (row.minimal and tool.lists and "detail_level" in tool.arguments.model_fields)
        else ""
    )
    yield f"{bold}\n</details>\n"


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    return str(schema.get("type", "any"))


def _words(schema: dict[str, Any]) -> str:
    said = description_of(schema)
    default = schema.get("default")
    if default in (None, False, [], ""):
        return said
    shown = ", ".join(default) if isinstance(default, list) else default
    return f"{said} (default: {shown})"


if __name__ == "__main__":
    renew_or_check(PAGE, page())
