"""`pvemcp roles create` and `change`: grants from options or from a file."""

from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from pvemcp_server.access.model import ANY, GUEST_LISTS, READS, RESOURCE_KINDS
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.roles import RoleChanges, RoleFields, change_role, check_role, create_role
from pvemcp_server.cli.completion import complete
from pvemcp_server.cli.context import AsJson, administrator, from_options, print_answer
from pvemcp_server.cli.input import read_json, read_text
from pvemcp_server.cli.operations import Run, by_hand, with_signature
from pvemcp_server.cli.terminal import one_line
from pvemcp_server.errors import BadArgument

Name = Annotated[str, typer.Argument(help="The role's name.", autocompletion=complete("role"))]
Description = Annotated[str | None, typer.Option(help="What it is for; the model reads it.")]
GRANT_OPTIONS: dict[str, Any] = {
    "tools": Annotated[
        list[str] | None,
        typer.Option("--tool", help="Tool it grants; repeat it.", autocompletion=complete("tool")),
    ],
    "reads": Annotated[
        bool | None, typer.Option("--reads", help="Grant every tool that only reads.")
    ],
    "clusters": Annotated[
        list[str] | None, typer.Option("--cluster", help="Only on this; repeat it.")
    ],
    **{
        kind: Annotated[
            list[str] | None,
            typer.Option(
                f"--{kind.removesuffix('s').replace('_', '-')}",
                help="Writes may use it too; repeat it."
                if kind.startswith("target_")
                else "Only this; repeat it.",
            ),
        ]
        for kind in RESOURCE_KINDS
    },
    **{
        kind: Annotated[
            list[str] | None,
            typer.Option(f"--{kind.removesuffix('s')}", help=f"{meaning}; repeat it."),
        ]
        for kind, meaning in GUEST_LISTS.items()
    },
    "grants_file": Annotated[
        Path | None, typer.Option(help="JSON list of grants, as `roles show` prints; for several.")
    ],
}


def with_grant_options(run: Run) -> Run:
    """Replace the command's parameter `options` by GRANT_OPTIONS; it receives those used."""

    async def entry(**values: Any) -> None:
        options = {name: values.pop(name) for name in GRANT_OPTIONS}
        await run(**values, options={n: v for n, v in options.items() if v is not None})

    parameters: list[Parameter] = []
    for parameter in signature(run).parameters.values():
        if parameter.name == "options":
            parameters += (
                Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind)
                for name, kind in GRANT_OPTIONS.items()
            )
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
    entry.__doc__ = run.__doc__
    return with_signature(entry, parameters)


@by_hand("roles create")
@with_grant_options
async def create(
    name: Name, description: Description = None, *, options: dict[str, Any], as_json: AsJson = False
) -> None:
    """Create a role with one grant, or with the grants of a file."""
    async with administrator() as context:
        fields = from_options(
            RoleFields, name=name, description=description, grants=_grants(options)
        )
        role = await create_role(context, fields)
        await _print_warnings(context, role.name)
        print_answer(role, f"Created {role.name}.", as_json=as_json)


@by_hand("roles change")
@with_grant_options
async def change(
    name: Name,
    new_name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    description: Description = None,
    *,
    options: dict[str, Any],
    as_json: AsJson = False,
) -> None:
    """Change the given fields; any option of a grant replaces all grants by that one."""
    grants = _grants(options) if options else None
    async with administrator() as context:
        changes = from_options(RoleChanges, name=new_name, description=description, grants=grants)
        role = await change_role(context, name, changes)
        await _print_warnings(context, role.name)
        print_answer(role, f"Changed {role.name}.", as_json=as_json)


async def _print_warnings(context: AdminContext, name: str) -> None:
    """Print to standard error what the role names and no cluster has; it is saved all the same."""
    for warning in await check_role(context, name):
        typer.echo(one_line(f"Note: {warning}"), err=True)


def _grants(options: dict[str, Any]) -> Any:
    """Return the grants of the file, or else the one grant that the options describe."""
    if path := options.get("grants_file"):
        return read_json("--grants-file", read_text(path, "--grants-file"))
    resources = {kind: options[kind] for kind in RESOURCE_KINDS if kind in options}
    granted = [*options.get("tools", ()), *([READS] if options.get("reads") else [])]
    if not granted:
        raise BadArgument("--tool", "name a tool, or grant all that only read with --reads.")
    grant = {
        "tools": granted,
        "clusters": options.get("clusters", [ANY]),
        "resources": resources or {"everything": True},
        **{kind: options[kind] for kind in GUEST_LISTS if kind in options},
    }
    return [grant]
