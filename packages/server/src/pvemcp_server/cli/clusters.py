"""`pvemcp clusters`: which Proxmox clusters the server reaches."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from proxmox_client import Tls
from pvemcp_server.cli.state import State, command, opened
from pvemcp_server.clusters import Check, check
from pvemcp_server.clusters.connections import tls_of
from pvemcp_server.errors import BadArgument, CallError
from pvemcp_server.store.records import ClusterRecord, TlsMode

app = typer.Typer(help="Add, list, test and remove Proxmox clusters.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The cluster's name here.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]


@app.command()
@command
async def add(
    name: Name,
    host: Annotated[
        list[str], typer.Option(help="host or host:port of a node; repeat it for failover.")
    ],
    token_id: Annotated[str, typer.Option(help="API token, as user@realm!name.")],
    token_secret_file: Annotated[
        Path, typer.Option(help="File with the token's secret; - reads standard input.")
    ],
    ca_file: Annotated[
        Path | None, typer.Option(help="CA that signed the nodes' certificates (PEM).")
    ] = None,
    fingerprint: Annotated[
        list[str] | None, typer.Option(help="SHA-256 of a node's certificate; repeat per node.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not check certificates at all.")
    ] = False,
    description: Annotated[str, typer.Option(help="What the model is told about it.")] = "",
    protected: Annotated[
        bool, typer.Option("--protected", help="Refuse every write, whoever asks.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try a cluster and, when it answers, save it."""
    secret = _read_secret(token_secret_file)
    mode = _mode(ca_file, fingerprint, insecure=insecure)
    ca_pem = ca_file.read_text() if ca_file else ""
    tls = Tls(ca_pem=ca_pem or None, fingerprints=fingerprint or (), insecure=insecure)
    found = await check(host, token_id, secret, tls, name)
    async with opened() as state:
        await state.access.clusters.create(
            name,
            host,
            token_id=token_id,
            secret=secret,
            description=description,
            tls_mode=mode,
            ca_pem=ca_pem,
            fingerprints=fingerprint or (),
            protected=protected,
        )
    _tell(f"Saved {name}", found, as_json=as_json)


@app.command("list")
@command
async def list_clusters(as_json: AsJson = False) -> None:
    """The configured clusters, without asking them."""
    async with opened() as state:
        shown = [await _shown(state, record) for record in await state.access.clusters.all()]
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    table = Table("name", "hosts", "tls", "token", "protected", "description")
    for one in shown:
        table.add_row(
            one["name"],
            ", ".join(one["hosts"]),
            one["tls"],
            one["token_id"],
            "yes" if one["protected"] else "no",
            one["description"],
        )
    Console().print(table)


@app.command("test")
@command
async def try_out(
    name: Annotated[str | None, typer.Argument(help="One cluster; all when absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the clusters for their version and what the token may."""
    failed = False
    async with opened() as state:
        records = await state.access.clusters.all()
        chosen = [await state.access.clusters.get(name)] if name else records
        for record in chosen:
            try:
                _tell(f"{record.name} answers", await _tested(state, record), as_json=as_json)
            except CallError as error:
                failed = True
                typer.secho(f"{record.name}: {error}", fg="red", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
@command
async def remove(name: Name) -> None:
    """Forget a cluster, its tokens and who was bound to them; Proxmox is not asked."""
    async with opened() as state:
        await state.access.clusters.remove(name)
    typer.echo(f"Removed {name}.")


async def _tested(state: State, record: ClusterRecord) -> Check:
    identity = await _default(state, record)
    if identity is None:
        raise CallError("It has no Proxmox token.", hint="Add one under Clusters.")
    secret = await state.store.identities.secret(identity[0]) or ""
    return await check(record.hosts, identity[1], secret, tls_of(record), record.name)


async def _default(state: State, record: ClusterRecord) -> tuple[int, str] | None:
    identities = await state.access.clusters.identities(record.name)
    return next(((one.id, one.token_id) for one in identities if one.is_default), None)


async def _shown(state: State, record: ClusterRecord) -> dict[str, Any]:
    identity = await _default(state, record)
    return {
        "name": record.name,
        "description": record.description,
        "hosts": record.hosts,
        "tls": record.tls_mode.value,
        "fingerprints": record.fingerprints,
        "token_id": identity[1] if identity else "",
        "protected": record.protected,
    }


def _tell(what: str, found: Check, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(f"{what}: Proxmox VE {found.version}, nodes {', '.join(found.nodes)}.")
    if found.missing:
        typer.secho(
            f"Lists come back short: the token lacks {', '.join(found.missing)}.", fg="yellow"
        )
    for line in found.advice:
        typer.echo(f"  {line}")


def _mode(ca_file: Path | None, fingerprints: list[str] | None, *, insecure: bool) -> TlsMode:
    chosen = [
        mode
        for mode, wanted in (
            (TlsMode.CA, ca_file),
            (TlsMode.PINNED, fingerprints),
            (TlsMode.INSECURE, insecure),
        )
        if wanted
    ]
    if len(chosen) > 1:
        raise BadArgument("--insecure", "choose one of --ca-file, --fingerprint and --insecure.")
    return chosen[0] if chosen else TlsMode.SYSTEM


def _read_secret(path: Path) -> str:
    try:
        return (sys.stdin.read() if str(path) == "-" else path.read_text()).strip()
    except OSError as error:
        raise BadArgument("--token-secret-file", f"{path}: {error.strerror}.") from error
