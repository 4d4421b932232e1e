"""`pvemcp doctor`, `backup`, `restore`, `claude-config` and `secrets rotate`."""

from pathlib import Path
from typing import Annotated, Final

import typer

from pvemcp_server.admin import doctor as doctors
from pvemcp_server.admin.client_setup import CLIENTS, KEY_PLACEHOLDER, Connection, endpoint_url
from pvemcp_server.admin.doctor import Level, Report
from pvemcp_server.cli.context import AsJson, acting, as_text, tell
from pvemcp_server.cli.quickstart import bridge_command
from pvemcp_server.cli.secret_files import read_secret
from pvemcp_server.cli.state import command
from pvemcp_server.config import Config
from pvemcp_server.errors import UnknownName
from pvemcp_server.store import backup as write_backup
from pvemcp_server.store import restore as read_backup
from pvemcp_server.store.master_key import decode_master_key

app = typer.Typer()
secrets = typer.Typer(help="The keys that encrypt secrets at rest.", no_args_is_help=True)
app.add_typer(secrets, name="secrets")

MARKS: Final = {
    Level.OK: ("ok  ", "green"),
    Level.WARN: ("look", "yellow"),
    Level.BAD: ("bad ", "red"),
}


@app.command()
@command
async def doctor(
    cluster: Annotated[str | None, typer.Option(help="One cluster; all when absent.")] = None,
    key: Annotated[str, typer.Option(help="Id or name: for its account and its tools.")] = "",
    as_json: AsJson = False,
) -> None:
    """Look after reach, TLS, versions, clocks, nodes and rights; exits with 1 when one is wrong."""
    async with acting() as by:
        reports = await doctors.examine(by, cluster, key)
    if as_json:
        typer.echo(as_text(reports))
    else:
        _tell(reports)
    if any(one.level is Level.BAD for one in reports):
        raise typer.Exit(1)


@app.command()
@command
async def backup(
    path: Annotated[Path, typer.Argument(help="File to write, as state.jsonl.gz.")],
    as_json: AsJson = False,
) -> None:
    """Write the whole state to a file, also while the server runs; the master key is not in it."""
    async with acting() as by:
        rows = await write_backup(by.services.store, path)
    tell({"path": str(path), "rows": rows}, f"Wrote {rows} rows to {path}.", as_json=as_json)


@app.command()
@command
async def restore(
    path: Annotated[Path, typer.Argument(help="File that `pvemcp backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a state that is not empty.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in place of the state; the server must not be running."""
    rows = await read_backup(Config.load(), path, replace=replace)
    tell({"path": str(path), "rows": rows}, f"Restored {rows} rows.", as_json=as_json)


@app.command()
@command
async def claude_config(
    client: Annotated[str, typer.Option(help=f"One of {', '.join(CLIENTS)}.")] = "claude-desktop",
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key to fill in; - reads standard input.")
    ] = None,
) -> None:
    """The configuration that tells a client about this server, as JSON."""
    if client not in CLIENTS:
        raise UnknownName("client", client, CLIENTS)
    key = read_secret(api_key_file, "--api-key-file") if api_key_file else KEY_PLACEHOLDER
    connection = Connection(endpoint_url(Config.load()), key, bridge_command())
    typer.echo(CLIENTS[client].text(connection))


@secrets.command()
@command
async def rotate(as_json: AsJson = False) -> None:
    """New keys for what is encrypted at rest and for new API keys; nothing is entered again."""
    async with acting() as by:
        count = await by.services.store.vault.rotate()
        await by.changed("secrets.rotate", count=count)
    tell({"encrypted_anew": count}, f"Encrypted {count} secrets anew.", as_json=as_json)


@secrets.command("change-master")
@command
async def change_master(
    new_key_file: Annotated[
        Path, typer.Option(help="File with 64 hex digits, as of `openssl rand -hex 32`.")
    ],
    as_json: AsJson = False,
) -> None:
    """Keep the keys under another master key; while no server runs, and put it in place then."""
    new = decode_master_key(read_secret(new_key_file, "--new-key-file"), str(new_key_file))
    async with acting() as by:
        await by.services.store.vault.change_master(new)
        await by.changed("secrets.change_master")
    words = "Done: put the new master key in place of the old one now."
    tell({"changed": True}, words, as_json=as_json)


def _tell(reports: list[Report]) -> None:
    for report in reports:
        typer.secho(f"{report.cluster} as {report.account or 'nobody'}", bold=True)
        for one in report.findings:
            mark, colour = MARKS[one.level]
            typer.echo(f"  {typer.style(mark, fg=colour)}  {one.topic}: {one.text}")
            for line in one.fix:
                typer.echo(f"          {line}")
    if not reports:
        typer.echo("No cluster is configured: pvemcp clusters add.")
