"""`pvemcp clusters`: which Proxmox clusters the server reaches."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from pvemcp_server.admin import clusters
from pvemcp_server.cli import identities
from pvemcp_server.cli.context import AsJson, acting, as_text, changes, tell, tell_rows
from pvemcp_server.cli.secret_files import read_secret
from pvemcp_server.cli.state import command
from pvemcp_server.clusters import Check
from pvemcp_server.errors import BadArgument, CallError
from pvemcp_server.store.records import TlsMode

app = typer.Typer(help="Add, list, test and remove Proxmox clusters.", no_args_is_help=True)
app.add_typer(identities.app, name="identities")
app.command()(identities.bind)
app.command()(identities.unbind)

Name = Annotated[str, typer.Argument(help="The cluster's name here.")]
CaFile = Annotated[Path | None, typer.Option(help="CA that signed the nodes' certificates (PEM).")]
Fingerprints = Annotated[
    list[str] | None, typer.Option(help="SHA-256 of a node's certificate; repeat per node.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not check certificates at all.")]
COLUMNS = ("name", "hosts", "tls_mode", "protected", "description")


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
    ca_file: CaFile = None,
    fingerprint: Fingerprints = None,
    insecure: Insecure = False,
    description: Annotated[str, typer.Option(help="What the model is told about it.")] = "",
    protected: Annotated[
        bool, typer.Option("--protected", help="Refuse every write, whoever asks.")
    ] = False,
    test_only: Annotated[bool, typer.Option("--test-only", help="Do not save it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try a cluster and, when it answers, save it."""
    secret = SecretStr(read_secret(token_secret_file, "--token-secret-file"))
    async with acting() as by:
        fields = clusters.ClusterFields(
            name=name,
            hosts=host,
            token_id=token_id,
            token_secret=secret,
            description=description,
            tls_mode=_mode(ca_file, fingerprint, insecure=insecure) or TlsMode.SYSTEM,
            ca_pem=_pem(ca_file),
            fingerprints=fingerprint or [],
            protected=protected,
        )
        if test_only:
            found = await clusters.try_cluster(fields)
        else:
            _, found = await clusters.add_cluster(by, fields)
    _tell(f"{name} answers" if test_only else f"Saved {name}", found, as_json=as_json)


@app.command("list")
@command
async def list_clusters(as_json: AsJson = False) -> None:
    """The configured clusters, without asking them."""
    async with acting() as by:
        tell_rows(await clusters.list_clusters(by), COLUMNS, as_json=as_json)


@app.command()
@command
async def change(
    name: Name,
    new_name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Hosts in place of the old ones.")] = None,
    ca_file: CaFile = None,
    fingerprint: Fingerprints = None,
    insecure: Insecure = False,
    description: Annotated[str | None, typer.Option(help="What the model is told.")] = None,
    protected: Annotated[
        bool | None, typer.Option("--protected/--not-protected", help="Refuse every write.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given; the rest stays."""
    async with acting() as by:
        wanted = changes(
            clusters.ClusterChanges,
            name=new_name,
            hosts=host,
            tls_mode=_mode(ca_file, fingerprint, insecure=insecure),
            ca_pem=_pem(ca_file) or None,
            fingerprints=fingerprint,
            description=description,
            protected=protected,
        )
        changed = await clusters.change_cluster(by, name, wanted)
        tell(changed, f"Changed {changed.name}.", as_json=as_json)


@app.command("test")
@command
async def try_out(
    name: Annotated[str | None, typer.Argument(help="One cluster; all when absent.")] = None,
    identity: Annotated[str | None, typer.Option(help="Identity; the default when absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the clusters for their version and what the token may."""
    answered: dict[str, Check] = {}
    async with acting() as by:
        known = [name] if name else [one.name for one in await clusters.list_clusters(by)]
        for one in known:
            try:
                answered[one] = await clusters.check_cluster(by, one, identity)
            except CallError as error:
                typer.secho(f"{one}: {error}", fg="red", err=True)
    if as_json:
        typer.echo(as_text(answered))
    elif not known:
        typer.echo("No cluster is configured: pvemcp clusters add.")
    for one, found in {} if as_json else answered.items():
        _tell(f"{one} answers", found, as_json=False)
    if len(answered) < len(known):
        raise typer.Exit(1)


@app.command()
@command
async def fingerprint(
    host: Annotated[list[str], typer.Argument(help="host or host:port of nodes.")],
    as_json: AsJson = False,
) -> None:
    """The SHA-256 of each host's certificate, to compare before pinning it."""
    shown = await clusters.fingerprints(host)
    tell_rows(shown, ("host", "fingerprint", "trouble"), as_json=as_json)


@app.command()
@command
async def remove(name: Name, as_json: AsJson = False) -> None:
    """Forget a cluster, its tokens and who was bound to them; Proxmox is not asked."""
    async with acting() as by:
        await clusters.remove_cluster(by, name)
        tell({"removed": name}, f"Removed {name}.", as_json=as_json)


def _tell(what: str, found: Check, *, as_json: bool) -> None:
    if as_json:
        typer.echo(as_text(found))
        return
    typer.echo(f"{what}: Proxmox VE {found.version}, nodes {', '.join(found.nodes)}.")
    if found.missing:
        typer.secho(
            f"Lists come back short: the token lacks {', '.join(found.missing)}.", fg="yellow"
        )
    for line in found.advice:
        typer.echo(f"  {line}")
    if found.question:
        typer.echo(f"  {found.question}")


def _mode(
    ca_file: Path | None, fingerprints: list[str] | None, *, insecure: bool
) -> TlsMode | None:
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
    return chosen[0] if chosen else None


def _pem(path: Path | None) -> str:
    try:
        return path.read_text() if path else ""
    except OSError as error:
        raise BadArgument("--ca-file", f"{path}: {error.strerror}.") from error
