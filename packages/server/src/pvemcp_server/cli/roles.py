"""`pvemcp roles`: tools, on clusters, for resources."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pvemcp_server.access.model import ANY, READS
from pvemcp_server.admin import roles
from pvemcp_server.cli.context import AsJson, acting, changes, tell, tell_rows
from pvemcp_server.cli.options import Given, taking
from pvemcp_server.cli.state import command
from pvemcp_server.errors import BadArgument

app = typer.Typer(help="Make, change and remove roles.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The role's name.")]
Description = Annotated[str | None, typer.Option(help="What it is for; the model reads it.")]
RESOURCES = {
    "pools": Annotated[list[str] | None, typer.Option("--pool", help="Only this; repeat it.")],
    "tags": Annotated[list[str] | None, typer.Option("--tag", help="Only this; repeat it.")],
    "vmids": Annotated[list[int] | None, typer.Option("--vmid", help="Only this; repeat it.")],
    "nodes": Annotated[list[str] | None, typer.Option("--node", help="Only this; repeat it.")],
    "storages": Annotated[
        list[str] | None, typer.Option("--storage", help="Only this; repeat it.")
    ],
}
GRANT = {
    "tools": Annotated[list[str] | None, typer.Option("--tool", help="Tool it grants; repeat it.")],
    "reads": Annotated[
        bool | None, typer.Option("--reads", help="Grant every tool that only reads.")
    ],
    "clusters": Annotated[
        list[str] | None, typer.Option("--cluster", help="Only on this; repeat it.")
    ],
    **RESOURCES,
    "grants_file": Annotated[
        Path | None, typer.Option(help="JSON list of grants, as `roles show` prints; for several.")
    ],
}


@app.command("list")
@command
async def list_roles(as_json: AsJson = False) -> None:
    """All roles, the built-in ones too."""
    async with acting() as by:
        tell_rows(await roles.list_roles(by), ("name", "built_in", "description"), as_json=as_json)


@app.command()
@command
async def show(name: Name, as_json: AsJson = False) -> None:
    """A role's grants, as JSON in any case: what --grants-file takes."""
    async with acting() as by:
        role = await roles.get_role(by, name)
        tell(role, json.dumps(role.grants, indent=2), as_json=as_json)


@app.command()
@command
@taking(GRANT)
async def create(
    name: Name, description: Description = None, *, given: Given, as_json: AsJson = False
) -> None:
    """A new role with one grant, or with those of a file."""
    async with acting() as by:
        fields = changes(
            roles.RoleFields, name=name, description=description, grants=_grants(given)
        )
        made = await roles.create_role(by, fields)
        tell(made, f"Made {made.name}.", as_json=as_json)


@app.command()
@command
@taking(GRANT)
async def change(
    name: Name,
    new_name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    description: Description = None,
    *,
    given: Given,
    as_json: AsJson = False,
) -> None:
    """Change what is given; any option of a grant replaces all grants by that one."""
    grants = _grants(given) if given else None
    async with acting() as by:
        wanted = changes(roles.RoleChanges, name=new_name, description=description, grants=grants)
        changed = await roles.change_role(by, name, wanted)
        tell(changed, f"Changed {changed.name}.", as_json=as_json)


@app.command()
@command
async def remove(name: Name, as_json: AsJson = False) -> None:
    """Remove a role that no key has."""
    async with acting() as by:
        await roles.remove_role(by, name)
        tell({"removed": name}, f"Removed {name}.", as_json=as_json)


def _grants(given: Given) -> Any:
    """Those of the file, else the one that the options describe."""
    if "grants_file" in given:
        return _read(given["grants_file"])
    resources = {name: given[name] for name in RESOURCES if name in given}
    grant = {
        "tools": [*given.get("tools", ()), *([READS] if given.get("reads") else [])],
        "clusters": given.get("clusters", [ANY]),
        "resources": resources or {"everything": True},
    }
    return [grant]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as wrong:
        raise BadArgument("--grants-file", f"{path}: {wrong}.") from None
