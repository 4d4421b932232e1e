"""`pvemcp backup`, `restore`, `claude-config` and `secrets rotate`."""

from pathlib import Path
from typing import Annotated

import typer

from pvemcp_bridge.config_file import bridge_command
from pvemcp_server.admin.client_setup import (
    CLIENTS,
    KEY_PLACEHOLDER,
    Connection,
    endpoint_for_commands,
)
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.cli.context import AsJson, administrator, print_answer
from pvemcp_server.cli.input import read_secret
from pvemcp_server.cli.state import command
from pvemcp_server.cli.terminal import printable
from pvemcp_server.config import Config
from pvemcp_server.errors import UnknownName, counted
from pvemcp_server.store import backup as write_backup
from pvemcp_server.store import restore as read_backup
from pvemcp_server.store.files import config_errors
from pvemcp_server.store.master_key import decode_master_key
from pvemcp_server.store.state_lock import check_unlocked

app = typer.Typer()
secrets = typer.Typer(help="The keys that encrypt secrets at rest.", no_args_is_help=True)
app.add_typer(secrets, name="secrets")


@app.command()
@command
async def backup(
    path: Annotated[Path, typer.Argument(help="File to write, as state.jsonl.gz.")],
    as_json: AsJson = False,
) -> None:
    """Write the whole state to a file, also while the server runs; the master key is not in it."""
    async with administrator(writes=False) as context:
        await context.recorded("backup", path=str(path))
        rows = await write_backup(context.services.store, path)
    print_answer(
        {"path": str(path), "rows": rows},
        f"Wrote {counted(rows, 'row')} to {path}.",
        as_json=as_json,
    )


@app.command()
@command
async def restore(
    path: Annotated[Path, typer.Argument(help="File that `pvemcp backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a state that is not empty.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Replace the state by a backup; the server must not be running."""
    rows = await read_backup(Config.load(), path, replace=replace)
    async with administrator() as context:
        await context.changed("restore", path=str(path), rows=rows)
    print_answer(
        {"path": str(path), "rows": rows}, f"Restored {counted(rows, 'row')}.", as_json=as_json
    )


@app.command()
@command
async def claude_config(
    client: Annotated[str, typer.Option(help=f"One of {', '.join(CLIENTS)}.")] = "claude-desktop",
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key to fill in; - reads standard input.")
    ] = None,
) -> None:
    """Print the configuration of a client for this server, in the format of its file."""
    if client not in CLIENTS:
        raise UnknownName("client", client, CLIENTS)
    key = read_secret(api_key_file, "--api-key-file") if api_key_file else KEY_PLACEHOLDER
    connection = Connection(endpoint_for_commands(Config.load()), key, command=bridge_command())
    typer.echo(printable(CLIENTS[client].text(connection, bridged=False)), nl=False)


@secrets.command()
@command
async def rotate(as_json: AsJson = False) -> None:
    """Renew the keys of secrets, the audit and sessions, and the pepper of new API keys.

    All values stay; administrators sign in again.
    """
    async with administrator() as context:
        count = await context.services.store.vault.rotate()
        await context.changed("secrets.rotate", count=count)
        await _note_audit_head(context)
    print_answer({"encrypted": count}, f"Encrypted {count} secrets again.", as_json=as_json)


@secrets.command("change-master")
@command
async def change_master(
    new_key_file: Annotated[
        Path, typer.Option(help="File with 64 hex digits, as of `openssl rand -hex 32`.")
    ],
    as_json: AsJson = False,
) -> None:
    """Encrypt renewed keys with another master key, while no server runs; replace the old then."""
    check_unlocked(Config.load(), shared=False)
    new = decode_master_key(read_secret(new_key_file, "--new-key-file"), str(new_key_file))
    async with administrator() as context:
        await context.services.store.vault.change_master(new)
        await context.changed("secrets.change_master")
        await _note_audit_head(context)
    text = "Done: put the new master key in place of the old one now."
    print_answer({"changed": True}, text, as_json=as_json)


async def _note_audit_head(context: AdminContext) -> None:
    """Note the end of the audit under the new key: the old note is no longer accepted."""
    store = context.services.store
    with config_errors("The end of the audit cannot be noted"):
        store.audit_head.write(await store.audit_log.head())
