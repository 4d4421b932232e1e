"""`pvemcp clusters add`, `change` and `test`: certificates from files, all clusters at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from pvemcp_server.access.clusters import DEFAULT_IDENTITY
from pvemcp_server.admin import clusters
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.cli.completion import complete
from pvemcp_server.cli.context import (
    AsJson,
    administrator,
    from_options,
    print_answer,
    to_json,
)
from pvemcp_server.cli.input import read_secret, read_text
from pvemcp_server.cli.operations import by_hand
from pvemcp_server.cli.questions import (
    Token,
    ask_certificates,
    ask_hosts,
    ask_name,
    ask_secret,
    ask_token,
    until_accepted,
)
from pvemcp_server.cli.terminal import no_cluster, one_line
from pvemcp_server.clusters import Check
from pvemcp_server.errors import BadArgument, CallError, UnusableCluster
from pvemcp_server.program_name import this_command
from pvemcp_server.store.records import ClusterKind, TlsMode

Name = Annotated[
    str, typer.Argument(help="The cluster's name here.", autocompletion=complete("cluster"))
]
CaFile = Annotated[Path | None, typer.Option(help="CA that signed the nodes' certificates (PEM).")]
Fingerprints = Annotated[
    list[str] | None, typer.Option(help="SHA-256 of a node's certificate; repeat per node.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not check certificates at all.")]


@by_hand("clusters add")
async def add(
    name: Annotated[str | None, typer.Argument(help="The cluster's name here.")] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="host or host:port of a node; repeat it for failover.")
    ] = None,
    token_id: Annotated[str | None, typer.Option(help="API token, as user@realm!name.")] = None,
    token_secret_file: Annotated[
        Path | None, typer.Option(help="File with the token's secret; - reads standard input.")
    ] = None,
    ca_file: CaFile = None,
    fingerprint: Fingerprints = None,
    insecure: Insecure = False,
    kind: Annotated[
        ClusterKind, typer.Option(help="pve: Proxmox VE; pbs: Proxmox Backup Server, read only.")
    ] = ClusterKind.PVE,
    description: Annotated[str, typer.Option(help="What the model reads about it.")] = "",
    protected: Annotated[
        bool, typer.Option("--protected", help="Refuse every write, with any key.")
    ] = False,
    test_only: Annotated[bool, typer.Option("--test-only", help="Do not save it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try a cluster and, if it answers, save it. At a terminal, ask for what is missing."""
    secret = read_secret(token_secret_file, "--token-secret-file") if token_secret_file else ""
    mode = _mode(ca_file, fingerprint, insecure=insecure)
    fields: dict[str, Any] = {
        "kind": kind,
        "description": description,
        "protected": protected,
        "tls_mode": mode,
        "ca_pem": _pem(ca_file),
        "fingerprints": fingerprint or [],
    }
    async with administrator() as context:
        if name and not test_only:  # before an account is made for it
            await context.services.access.clusters.check_new_name(name)
        fields["name"] = name or await until_accepted(lambda: ask_name(context))

        async def connect() -> None:
            fields["hosts"] = host or await ask_hosts()
            if mode is None:
                pins = await ask_certificates(context, fields["hosts"], kind)
                fields["tls_mode"], fields["fingerprints"] = pins

        made: Token | None = None  # with a new account, for another attempt

        async def save() -> tuple[str, Check]:
            nonlocal made
            if token_id is None:
                token = await ask_token(context, fields, made, may_make=not test_only)
            else:
                token = Token(token_id, SecretStr(secret) if secret else ask_secret())
            made = token if token.removal else None
            return await _save(context, fields, token, test_only=test_only)

        await (connect() if host else until_accepted(connect))
        title, outcome = await (save() if token_id else until_accepted(save))
        enabled = (await context.services.settings.current()).enabled
        has_keys = bool(await context.services.access.keys.all())
    _print(title, outcome, as_json=as_json)
    if not (as_json or test_only):
        for step in _next_steps(enabled=enabled, has_keys=has_keys):
            typer.echo(step)


async def _save(
    context: AdminContext, fields: Mapping[str, Any], token: Token, *, test_only: bool
) -> tuple[str, Check]:
    """Save the cluster if it answers, or only try it; return what happened.

    The hint of a refusal names the option, and what an account that was made leaves on Proxmox.
    """
    new = clusters.ClusterFields(**fields, token_id=token.id, token_secret=token.secret)
    try:
        if test_only:
            return f"{new.name} answers", await clusters.try_cluster(context, new)
        return f"Saved {new.name}", (await clusters.check_and_add(context, new))[1]
    except CallError as error:
        hints = [error.hint]
        if isinstance(error, UnusableCluster) and error.about == "fingerprints":
            hints.append("That is the option --fingerprint.")
        if token.removal:
            hints.append(
                f"The account of {token.id} stays on Proxmox: Enter tries its token again, and "
                f"`{token.removal}` on a node removes it."
            )
        error.hint = " ".join(filter(None, hints))
        raise


def _next_steps(*, enabled: bool, has_keys: bool) -> list[str]:
    """Return what is left until a client can connect."""
    steps = [] if has_keys else ["keys create NAME` makes a key for a client"]
    steps += [] if enabled else ["settings set enabled=true` turns the endpoint on"]
    return [f"Next: `{this_command()} {step}." for step in steps]


@by_hand("clusters change")
async def change(
    name: Name,
    new_name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Hosts in place of the old ones.")] = None,
    ca_file: CaFile = None,
    fingerprint: Fingerprints = None,
    insecure: Insecure = False,
    description: Annotated[str | None, typer.Option(help="What the model reads.")] = None,
    protected: Annotated[
        bool | None, typer.Option("--protected/--not-protected", help="Refuse every write.")
    ] = None,
    token_secret_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[IDENTITY=]FILE",
            help="File with a token's secret; repeat it per identity. Needed for other hosts "
            "or certificates. - reads standard input.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change the given fields; the others keep their values.

    Other hosts or certificates need the secret of each token again.
    """
    secrets = dict(_identity_secret(text) for text in token_secret_file or [])
    async with administrator() as context:
        changes = from_options(
            clusters.ClusterChanges,
            name=new_name,
            hosts=host,
            tls_mode=_mode(ca_file, fingerprint, insecure=insecure),
            ca_pem=_pem(ca_file) or None,
            fingerprints=fingerprint,
            description=description,
            protected=protected,
            token_secrets=secrets or None,
        )
        cluster = await clusters.change_cluster(context, name, changes)
        print_answer(cluster, f"Changed {cluster.name}.", as_json=as_json)


@by_hand("clusters test")
async def check(
    name: Annotated[
        str | None,
        typer.Argument(help="One cluster; all when absent.", autocompletion=complete("cluster")),
    ] = None,
    identity: Annotated[str | None, typer.Option(help="Identity; the default when absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Test the clusters: show their version and what the token may do."""
    outcomes: dict[str, Check] = {}
    async with administrator(writes=False) as context:
        names = [name] if name else [each.name for each in await clusters.list_clusters(context)]
        for each in names:
            try:
                outcomes[each] = await clusters.check_cluster(context, each, identity)
            except CallError as error:
                typer.secho(one_line(f"{each}: {error}"), fg="red", err=True)
    if as_json:
        typer.echo(to_json(outcomes))
    else:
        for each, outcome in outcomes.items():
            _print(f"{each} answers", outcome, as_json=False)
        if not names:
            typer.echo(no_cluster())
    if len(outcomes) < len(names):
        raise typer.Exit(1)


def _identity_secret(text: str) -> tuple[str, SecretStr]:
    """Read `FILE` or `IDENTITY=FILE`; without a name it is the default identity's."""
    identity, named, file = text.rpartition("=")
    secret = read_secret(Path(file), "--token-secret-file")
    return identity if named else DEFAULT_IDENTITY, SecretStr(secret)


def _print(title: str, outcome: Check, *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json(outcome))
        return
    typer.echo(one_line(f"{title}: {outcome.facts}."))
    if outcome.missing:
        lacking = f"Lists come back short: the token lacks {', '.join(outcome.missing)}."
        typer.secho(one_line(lacking), fg="yellow")
    for line in outcome.advice:
        typer.echo(one_line(f"  {line}"))
    for line in outcome.silent:
        typer.secho(one_line(f"No answer of {line}"), fg="yellow")
    if outcome.question:
        typer.echo(one_line(f"  {outcome.question}"))


def _mode(
    ca_file: Path | None, fingerprints: list[str] | None, *, insecure: bool
) -> TlsMode | None:
    options = {
        TlsMode.CA: ca_file,
        TlsMode.PINNED: fingerprints,
        TlsMode.INSECURE: insecure,
    }
    modes = [mode for mode, option in options.items() if option]
    if len(modes) > 1:
        raise BadArgument("--insecure", "choose one of --ca-file, --fingerprint and --insecure.")
    return modes[0] if modes else None


def _pem(path: Path | None) -> str:
    return read_text(path, "--ca-file") if path else ""
