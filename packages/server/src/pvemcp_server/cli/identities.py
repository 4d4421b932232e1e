"""`pvemcp clusters identities`: Proxmox API tokens of a cluster, and who is bound to which."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from pvemcp_server.admin import clusters
from pvemcp_server.cli.context import AsJson, acting, tell, tell_rows
from pvemcp_server.cli.secret_files import read_secret
from pvemcp_server.cli.state import command

app = typer.Typer(help="Proxmox API tokens of a cluster.", no_args_is_help=True)

ClusterName = Annotated[str, typer.Argument(help="The cluster.")]
Identity = Annotated[str, typer.Argument(help="Name of the identity.")]
Key = Annotated[str | None, typer.Option(help="Id or name of a key.")]
Role = Annotated[str | None, typer.Option(help="Name of a role: all its keys.")]
TokenId = Annotated[str, typer.Option(help="API token, as user@realm!name.")]
SecretFile = Annotated[
    Path, typer.Option(help="File with the token's secret; - reads standard input.")
]
COLUMNS = ("name", "token_id", "is_default", "bound")


@app.command("list")
@command
async def list_identities(cluster: ClusterName, as_json: AsJson = False) -> None:
    """The tokens of a cluster, without their secrets."""
    async with acting() as by:
        found = await clusters.get_cluster(by, cluster)
        tell_rows(found.identities, COLUMNS, as_json=as_json)


@app.command()
@command
async def add(
    cluster: ClusterName,
    identity: Identity,
    token_id: TokenId,
    token_secret_file: SecretFile,
    as_json: AsJson = False,
) -> None:
    """Add a token."""
    fields = _fields(identity, token_id, token_secret_file)
    async with acting() as by:
        found = await clusters.add_identity(by, cluster, fields)
        tell(found, f"Added {identity} to {cluster}.", as_json=as_json)


@app.command()
@command
async def renew(
    cluster: ClusterName,
    identity: Identity,
    token_id: TokenId,
    token_secret_file: SecretFile,
    as_json: AsJson = False,
) -> None:
    """Another token, or another secret, under the same name."""
    fields = _fields(identity, token_id, token_secret_file)
    async with acting() as by:
        found = await clusters.renew_identity(by, cluster, fields)
        tell(found, f"Renewed {identity} of {cluster}.", as_json=as_json)


@app.command()
@command
async def default(cluster: ClusterName, identity: Identity, as_json: AsJson = False) -> None:
    """Make it the token of everyone who is bound to no other."""
    async with acting() as by:
        found = await clusters.make_default(by, cluster, identity)
        tell(found, f"{identity} is the default of {cluster}.", as_json=as_json)


@app.command()
@command
async def remove(cluster: ClusterName, identity: Identity, as_json: AsJson = False) -> None:
    """Remove a token that nobody is bound to."""
    async with acting() as by:
        await clusters.remove_identity(by, cluster, identity)
        tell({"removed": identity}, f"Removed {identity} of {cluster}.", as_json=as_json)


@command
async def bind(
    cluster: ClusterName,
    identity: Identity,
    key: Key = None,
    role: Role = None,
    as_json: AsJson = False,
) -> None:
    """Let a key, or all keys of a role, reach the cluster with this identity."""
    async with acting() as by:
        found = await clusters.bind(by, cluster, identity, clusters.Binding(key=key, role=role))
        tell(found, f"Bound {key or role} to {identity} of {cluster}.", as_json=as_json)


@command
async def unbind(
    cluster: ClusterName, key: Key = None, role: Role = None, as_json: AsJson = False
) -> None:
    """Let a key or role reach the cluster with its default identity again."""
    async with acting() as by:
        found = await clusters.unbind(by, cluster, clusters.Binding(key=key, role=role))
        tell(found, f"{key or role} uses the default identity of {cluster}.", as_json=as_json)


def _fields(identity: str, token_id: str, path: Path) -> clusters.IdentityFields:
    secret = SecretStr(read_secret(path, "--token-secret-file"))
    return clusters.IdentityFields(name=identity, token_id=token_id, token_secret=secret)
