"""`pvemcp admin`: who may sign in to the admin pages."""

from typing import Annotated

import typer

from pvemcp_server.admin import admins
from pvemcp_server.cli.context import AsJson, acting, tell, tell_rows
from pvemcp_server.cli.state import command

app = typer.Typer(help="Administrators of the admin pages.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The administrator's name.")]
COLUMNS = ("name", "external", "enabled", "must_change", "locked_until", "last_sign_in")


@app.command("list")
@command
async def list_admins(as_json: AsJson = False) -> None:
    """Who may sign in."""
    async with acting() as by:
        tell_rows(await admins.list_admins(by), COLUMNS, as_json=as_json)


@app.command()
@command
async def add(name: Name, as_json: AsJson = False) -> None:
    """A new administrator; the password is shown once and changed at the first sign-in."""
    async with acting() as by:
        shown = await admins.add_admin(by, admins.AdminFields(name=name))
        tell(shown, f"One-time password of {shown.name}: {shown.password}", as_json=as_json)


@app.command("reset-password")
@command
async def reset_password(name: Name, as_json: AsJson = False) -> None:
    """A new password, shown once; the old one and all sessions end."""
    async with acting() as by:
        shown = await admins.reset_password(by, name)
        tell(shown, f"One-time password of {shown.name}: {shown.password}", as_json=as_json)


@app.command()
@command
async def enable(name: Name, as_json: AsJson = False) -> None:
    """Let an administrator sign in again."""
    async with acting() as by:
        tell(await admins.set_enabled(by, name, enabled=True), f"Enabled {name}.", as_json=as_json)


@app.command()
@command
async def disable(name: Name, as_json: AsJson = False) -> None:
    """Let an administrator sign in no longer, and end their sessions."""
    async with acting() as by:
        changed = await admins.set_enabled(by, name, enabled=False)
        tell(changed, f"Disabled {name}.", as_json=as_json)


@app.command()
@command
async def remove(name: Name, as_json: AsJson = False) -> None:
    """Remove an administrator; the last one stays."""
    async with acting() as by:
        await admins.remove_admin(by, name)
        tell({"removed": name}, f"Removed {name}.", as_json=as_json)
