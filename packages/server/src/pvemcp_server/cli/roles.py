"""`pvemcp roles`: tools, on clusters, for resources."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pvemcp_server.access.model import ANY, READS
from pvemcp_server.cli.acting import AsJson, acting, changes, tell, tell_rows
from pvemcp_server.cli.state import command
from pvemcp_server.errors import BadArgument
from pvemcp_server.web.administration import roles

app = typer.Typer(help="Make, change and remove roles.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The role's name.")]
Description = Annotated[str | None, typer.Option(help="What it is for; the model reads it.")]
Tools = Annotated[list[str] | None, typer.Option("--tool", help="Tool it grants; repeat it.")]
Reads = Annotated[bool, typer.Option("--reads", help="Grant every tool that only reads.")]
OnClusters = Annotated[list[str] | None, typer.Option("--cluster", help="Only on; repeat it.")]
Pools = Annotated[list[str] | None, typer.Option("--pool", help="Only this pool; repeat it.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Only this tag; repeat it.")]
Vmids = Annotated[list[int] | None, typer.Option("--vmid", help="Only this guest; repeat it.")]
Nodes = Annotated[list[str] | None, typer.Option("--node", help="Only this node; repeat it.")]
Storages = Annotated[list[str] | None, typer.Option("--storage", help="Only this; repeat it.")]
GrantsFile = Annotated[
    Path | None, typer.Option(help="JSON list of grants, as `roles show` prints; for several.")
]


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
async def create(
    name: Name,
    description: Description = None,
    tool: Tools = None,
    reads: Reads = False,
    cluster: OnClusters = None,
    pool: Pools = None,
    tag: Tags = None,
    vmid: Vmids = None,
    node: Nodes = None,
    storage: Storages = None,
    grants_file: GrantsFile = None,
    as_json: AsJson = False,
) -> None:
    """A new role with one grant, or with those of a file."""
    grant = _grant(tool, cluster, reads=reads, resources=_chosen(pool, tag, vmid, node, storage))
    grants = _read(grants_file) if grants_file else [grant]
    async with acting() as by:
        fields = changes(roles.RoleFields, name=name, description=description, grants=grants)
        made = await roles.create_role(by, fields)
        tell(made, f"Made {made.name}.", as_json=as_json)


@app.command()
@command
async def change(
    name: Name,
    new_name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    description: Description = None,
    tool: Tools = None,
    reads: Reads = False,
    cluster: OnClusters = None,
    pool: Pools = None,
    tag: Tags = None,
    vmid: Vmids = None,
    node: Nodes = None,
    storage: Storages = None,
    grants_file: GrantsFile = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given; any option of a grant replaces all grants by that one."""
    chosen = _chosen(pool, tag, vmid, node, storage)
    grants = _read(grants_file) if grants_file else None
    if grants is None and any((tool, reads, cluster, chosen)):
        grants = [_grant(tool, cluster, reads=reads, resources=chosen)]
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


def _chosen(
    pools: list[str] | None,
    tags: list[str] | None,
    vmids: list[int] | None,
    nodes: list[str] | None,
    storages: list[str] | None,
) -> dict[str, Any]:
    sets = {"pools": pools, "tags": tags, "vmids": vmids, "nodes": nodes, "storages": storages}
    return {name: values for name, values in sets.items() if values}


def _grant(
    tools: list[str] | None, clusters: list[str] | None, *, reads: bool, resources: dict[str, Any]
) -> dict[str, Any]:
    return {
        "tools": [*(tools or []), *([READS] if reads else [])],
        "clusters": clusters or [ANY],
        "resources": resources or {"everything": True},
    }


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as wrong:
        raise BadArgument("--grants-file", f"{path}: {wrong}.") from None
