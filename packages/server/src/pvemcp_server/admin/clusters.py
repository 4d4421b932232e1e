"""Clusters and the Proxmox identities (API tokens) that the server uses for them."""

import asyncio
from datetime import datetime
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from proxmox_client import (
    Client,
    Password,
    ProxmoxError,
    Tls,
    fetch_fingerprint,
    is_trusted,
)
from pvemcp_server.access.clusters import checked, hosts_with_ports
from pvemcp_server.access.fields import Argument, Changes, Fields, Option
from pvemcp_server.access.freezes import Freeze
from pvemcp_server.access.model import Caller, Effect
from pvemcp_server.access.roles import READ_ONLY
from pvemcp_server.admin import proxmox_accounts
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.keys import check_unattended_keys
from pvemcp_server.admin.operation import Column, Command, Result, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, EVERYONE, ISSUERS, OWNERS
from pvemcp_server.clusters import Check, check
from pvemcp_server.clusters.checks import unusable
from pvemcp_server.clusters.connections import tls_of
from pvemcp_server.errors import BadArgument, CallError, UnusableCluster
from pvemcp_server.link_local import check_hosts
from pvemcp_server.store.records import (
    BindingRecord,
    ClusterKind,
    ClusterRecord,
    IdentityRecord,
    TlsMode,
)
from pvemcp_server.toolkit.registry import tools

MOST_HOSTS: Final = 64  # each is a connection, and a cluster has fewer nodes
subject = Subject(
    "Clusters",
    {
        "clusters": "Add, list, test and remove Proxmox clusters and backup servers.",
        "clusters identities": "Proxmox API tokens of a cluster.",
    },
)
ClusterName = Annotated[str, Field(description="The cluster's name"), Argument("cluster")]
Kind = Annotated[
    ClusterKind, Field(description="pve: Proxmox VE; pbs: Proxmox Backup Server, read only")
]
IdentityName = Annotated[str, Field(description="Name of the identity")]


class ClusterSettings(Fields):
    """The fields of a cluster that administrators set, without its token."""

    name: str = Field(description="Its name here; what cluster_name selects")
    hosts: list[str] = Field(
        max_length=MOST_HOSTS, description="host or host:port of its nodes, tried in turn"
    )
    description: str = Field(default="", description="What the model reads about it")
    tls_mode: TlsMode = Field(default=TlsMode.SYSTEM, description="How certificates are checked")
    ca_pem: str = Field(default="", description="Certificate authority, for tls_mode ca")
    fingerprints: list[str] = Field(
        default=[], description="SHA-256 of the nodes' certificates, for tls_mode pinned"
    )
    protected: bool = Field(default=False, description="Refuse every write, with any key")


class ClusterFields(ClusterSettings):
    """A new cluster with the token of its default identity."""

    kind: Kind = ClusterKind.PVE
    token_id: str = Field(description="API token, user@realm!name")
    token_secret: SecretStr = Field(description="The token's secret; never shown again")


class ClusterChanges(Changes, ClusterSettings):
    """Changes to a cluster; fields that are left out keep their values."""

    token_secrets: dict[str, SecretStr] | None = Field(
        default=None,
        description=(
            "The secret of each token by the name of its identity; needed for other hosts, "
            "tls_mode, ca_pem or fingerprints"
        ),
    )


class IdentityFields(Fields):
    """A Proxmox API token of a cluster."""

    name: Annotated[IdentityName, Argument("identity")]
    token_id: str = Field(description="API token, as user@realm!name")
    token_secret: SecretStr = Field(description="The token's secret")


class Binding(Fields):
    """A key or a role that uses an identity on a cluster."""

    key: str | None = Field(default=None, description="Id or name of a key")
    role: str | None = Field(default=None, description="Name of a role: all its keys")


class FreezeFields(Fields):
    """Why nothing is to be written for now."""

    reason: str = Field(
        default="", max_length=200, description="Why; every refused call shows it to its client"
    )


class HostCertificate(BaseModel):
    """The certificate of a host, read before any request is sent to it."""

    host: str
    fingerprint: str = ""
    trusted: bool = Field(default=False, description="An authority of this system signed it")
    trouble: str = ""


class AccountFields(Fields):
    """A Proxmox administrator who makes an account for this server, and what it is for."""

    hosts: Annotated[list[str], Option("--host")] = Field(
        max_length=MOST_HOSTS, description="host or host:port of the nodes"
    )
    fingerprints: Annotated[list[str], Option("--fingerprint")] = Field(
        default=[], description="SHA-256 of the nodes' certificates; the system's store when empty"
    )
    user: str = Field(default="root@pam", description="Proxmox user who may make users and roles")
    password: SecretStr = Field(description="The user's password; it is not stored")
    code: SecretStr | None = Field(default=None, description="The code of a second factor (TOTP)")
    role: str = Field(default=READ_ONLY, description="Role whose tools the account has to serve")


class Account(BaseModel):
    """A Proxmox account that was made for this server, with its token."""

    token_id: str
    token_secret: str
    proxmox_role: str
    privileges: list[str]
    withheld: list[str] = Field(
        description="What some lists need to be complete, but what allows writes as well"
    )


class Identity(BaseModel):
    """A token without its secret, with the keys and roles that are bound to it."""

    name: str
    token_id: str
    is_default: bool
    created: datetime
    bound: list[Binding]


class Cluster(ClusterSettings):
    """A configured cluster, from the database only."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    kind: Kind
    created: datetime
    identities: list[Identity]


@subject.operation(
    "clusters.list",
    Route("GET", "/clusters"),
    Command(
        "clusters list", columns=("name", "kind", "hosts", "tls_mode", "protected", "description")
    ),
    may=AUDITORS,
)
async def list_clusters(context: AdminContext) -> list[Cluster]:
    """List the configured clusters, without contacting them."""
    records = await context.services.access.clusters.all()
    return [await _cluster(context, record) for record in records]


@subject.operation(
    "clusters.add",
    Route("POST", "/clusters", created=True),
    Command("clusters add", by_hand=True),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def add_cluster(context: AdminContext, new: ClusterFields) -> Cluster:
    """Try a cluster and, if it answers, save it."""
    return (await check_and_add(context, new))[0]


async def check_and_add(context: AdminContext, new: ClusterFields) -> tuple[Cluster, Check]:
    """Save a cluster if it answers; return it with the outcome of the check."""
    outcome = await try_cluster(context, new)
    values = new.model_dump(exclude={"token_secret"})
    record = await context.services.access.clusters.create(
        **values, secret=new.token_secret.get_secret_value()
    )
    await context.changed("clusters.add", cluster=record.name, **values)
    return await _cluster(context, record), outcome


@subject.operation(
    "clusters.try",
    Route("POST", "/clusters/try"),
    elsewhere="the command clusters add --test-only",
    may=OWNERS,
)
async def try_cluster(context: AdminContext, fields: ClusterFields) -> Check:
    """Test a cluster with these fields, without saving it; raise CallError if it fails."""
    certificates = checked(fields.model_dump(include={"ca_pem", "fingerprints"}))
    tls = Tls(
        ca_pem=certificates["ca_pem"] or None,
        fingerprints=certificates["fingerprints"],
        insecure=fields.tls_mode is TlsMode.INSECURE,
    )
    secret = fields.token_secret.get_secret_value()
    await context.recorded(
        "clusters.try", cluster=fields.name, hosts=fields.hosts, token_id=fields.token_id
    )
    hosts = hosts_with_ports(fields.hosts, fields.kind)
    return await check(hosts, fields.token_id, secret, tls, fields.name, fields.kind)


@subject.operation(
    "clusters.fingerprints",
    Route("POST", "/clusters/fingerprints"),
    Command("clusters fingerprint", columns=("host", "fingerprint", "trusted", "trouble")),
    may=OWNERS,
)
async def fingerprints(
    context: AdminContext,
    hosts: Annotated[list[str], Field(description="host or host:port of nodes"), Argument("host")],
    kind: Kind = ClusterKind.PVE,
) -> list[HostCertificate]:
    """Return the SHA-256 of each host's certificate, to compare before pinning it.

    Only a TLS handshake is made; no request is sent.
    """
    if len(hosts) > MOST_HOSTS:
        raise BadArgument("hosts", f"{MOST_HOSTS} at most.")
    await context.recorded("clusters.fingerprints", hosts=hosts)
    each = (_certificate(host) for host in hosts_with_ports(hosts, kind))
    return list(await asyncio.gather(*each))


async def _certificate(host: str) -> HostCertificate:
    try:
        await check_hosts([host])
        fingerprint = await fetch_fingerprint(host)
        return HostCertificate(host=host, fingerprint=fingerprint, trusted=await is_trusted(host))
    except (BadArgument, ProxmoxError, ValueError) as error:
        return HostCertificate(host=host, trouble=str(error))


@subject.operation(
    "clusters.make_account",
    Route("POST", "/clusters/make-account", created=True),
    Command("clusters make-account", text="Token {token_id}: {token_secret}"),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def make_account(context: AdminContext, fields: AccountFields) -> Account:
    """Make a Proxmox user with a role and a token for this server; its secret is shown once.

    The role has what the tools of the given role need, and no more. The password goes to Proxmox.
    """
    connection = checked(fields.model_dump(include={"hosts", "fingerprints"}))
    hosts, tls = connection["hosts"], Tls(fingerprints=connection["fingerprints"])
    await check_hosts(hosts)
    role = await context.services.access.roles.get(fields.role)
    caller = Caller("", "", role)
    granted = [tool for tool in tools().values() if caller.is_granted(tool)]
    reads = [each for tool in granted if tool.effect is Effect.READ for each in tool.needs]
    writes = [each for tool in granted if tool.effect is not Effect.READ for each in tool.needs]
    code = fields.code.get_secret_value() if fields.code else ""
    try:
        auth = Password(
            fields.user, fields.password.get_secret_value(), (lambda: code) if code else None
        )
        async with Client(hosts, auth, tls=tls) as client:
            made = await proxmox_accounts.make_account(client, role.name, reads, writes)
    except ValueError as error:
        raise UnusableCluster(f"{str(error).removesuffix('.')}.", about="user") from error
    except ProxmoxError as error:
        raise await unusable(error, fields.user, hosts, ClusterKind.PVE) from error
    await context.changed(
        "clusters.make_account",
        hosts=hosts,
        user=fields.user,
        token_id=made.token_id,
        proxmox_role=made.role,
    )
    return Account(
        token_id=made.token_id,
        token_secret=made.secret,
        proxmox_role=made.role,
        privileges=list(made.privileges),
        withheld=list(made.withheld),
    )


@subject.operation(
    "clusters.get",
    Route("GET", "/clusters/{name}"),
    Command(
        "clusters identities list",
        columns=("name", "token_id", "is_default", "bound"),
        help="List the tokens of a cluster, without their secrets.",
        part=lambda cluster: cluster.identities,
    ),
    may=AUDITORS,
)
async def get_cluster(context: AdminContext, name: ClusterName) -> Cluster:
    """Return a cluster with its Proxmox identities and the keys and roles bound to them."""
    return await _cluster(context, await context.services.access.clusters.get(name))


@subject.operation(
    "clusters.change",
    Route("PATCH", "/clusters/{name}"),
    Command("clusters change", by_hand=True),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def change_cluster(
    context: AdminContext, name: ClusterName, changes: ClusterChanges
) -> Cluster:
    """Change the given fields; the others keep their values.

    Other hosts or certificates need the secret of each token again.
    """
    values = changes.values()
    await check_hosts(values.get("hosts", []))
    secrets = {
        identity: secret.get_secret_value()
        for identity, secret in (values.pop("token_secrets", None) or {}).items()
    }
    record = await context.services.access.clusters.change(name, secrets=secrets, **values)
    await context.changed("clusters.change", cluster=name, **values)
    return await _cluster(context, record)


@subject.operation(
    "clusters.test",
    Route("POST", "/clusters/{name}/test"),
    Command("clusters test", by_hand=True),
    may=AUDITORS,
)
async def check_cluster(
    context: AdminContext,
    name: ClusterName,
    identity: Annotated[
        str | None, Field(description="Name of the identity; the default one when absent")
    ] = None,
) -> Check:
    """Test a saved cluster: return its version and what its token may do."""
    record = await context.services.access.clusters.get(name)
    identities = [
        each
        for each in await context.services.access.clusters.identities(name)
        if (each.name == identity if identity else each.is_default)
    ]
    if not identities:
        raise CallError(f"Cluster {name} has no such Proxmox token.", hint="Add one to it.")
    secret = await context.services.store.identities.secret(identities[0], record) or ""
    tls = tls_of(record)
    return await check(record.hosts, identities[0].token_id, secret, tls, name, record.kind)


@subject.operation(
    "clusters.remove",
    Route("DELETE", "/clusters/{name}"),
    Command("clusters remove", text="Removed {cluster}."),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def remove_cluster(context: AdminContext, name: ClusterName) -> None:
    """Remove a cluster with its tokens and bindings; Proxmox is not contacted."""
    await context.services.access.clusters.remove(name)
    await context.changed("clusters.remove", cluster=name)


@subject.operation(
    "clusters.add_identity",
    Route("POST", "/clusters/{name}/identities", created=True),
    Command("clusters identities add", text="Added {identity} to {cluster}."),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def add_identity(context: AdminContext, name: ClusterName, new: IdentityFields) -> Cluster:
    """Add a Proxmox API token to a cluster."""
    await context.services.access.clusters.add_identity(
        name, new.name, token_id=new.token_id, secret=new.token_secret.get_secret_value()
    )
    await context.changed("clusters.add_identity", cluster=name, **_without_secret(new))
    return await get_cluster(context, name)


@subject.operation(
    "clusters.renew_identity",
    Route("PUT", "/clusters/{name}/identities"),
    Command("clusters identities renew", text="Renewed {identity} of {cluster}."),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def renew_identity(context: AdminContext, name: ClusterName, new: IdentityFields) -> Cluster:
    """Replace the token, or its secret, of an identity."""
    await context.services.access.clusters.change_identity(
        name, new.name, token_id=new.token_id, secret=new.token_secret.get_secret_value()
    )
    await context.changed("clusters.renew_identity", cluster=name, **_without_secret(new))
    return await get_cluster(context, name)


@subject.operation(
    "clusters.make_default",
    Route("POST", "/clusters/{name}/identities/{identity}/default"),
    Command("clusters identities default", text="{identity} is the default of {cluster}."),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def make_default(context: AdminContext, name: ClusterName, identity: IdentityName) -> Cluster:
    """Use this identity for every key that is bound to no other."""
    await check_unattended_keys(context)
    await context.services.access.clusters.make_default(name, identity)
    await context.changed("clusters.make_default", cluster=name, identity=identity)
    return await get_cluster(context, name)


@subject.operation(
    "clusters.remove_identity",
    Route("DELETE", "/clusters/{name}/identities/{identity}"),
    Command("clusters identities remove", text="Removed {identity} of {cluster}."),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def remove_identity(context: AdminContext, name: ClusterName, identity: IdentityName) -> None:
    """Remove an identity that no key and no role is bound to."""
    await context.services.access.clusters.remove_identity(name, identity)
    await context.changed("clusters.remove_identity", cluster=name, identity=identity)


def _cluster_text(name: str | None) -> str:
    return name or "all clusters"


def _freeze_text(result: Result) -> str:
    answer: Freeze = result.answer
    return answer.fact


def _unfrozen_text(result: Result) -> str:
    answer: Freeze = result.answer
    return f"Ended the freeze of {_cluster_text(answer.cluster)}, {answer}."


def _bound_text(result: Result) -> str:
    arguments = result.arguments
    holder = arguments.get("key") or arguments.get("role")
    return f"Bound {holder} to {arguments['identity']} of {arguments['cluster']}."


@subject.operation(
    "clusters.bind",
    Route("POST", "/clusters/{name}/identities/{identity}/bindings"),
    Command("clusters bind", text=_bound_text),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def bind(
    context: AdminContext, name: ClusterName, identity: IdentityName, to: Binding
) -> Cluster:
    """Use this identity on the cluster for a key, or for all keys of a role."""
    await _check_unattended(context, to)
    await context.services.access.clusters.bind(name, identity, key=to.key, role=to.role)
    await context.changed("clusters.bind", cluster=name, identity=identity, **to.model_dump())
    return await get_cluster(context, name)


def _unbound_text(result: Result) -> str:
    holder = result.arguments.get("key") or result.arguments.get("role")
    return f"{holder} uses the default identity of {result.arguments['cluster']}."


@subject.operation(
    "clusters.unbind",
    Route("POST", "/clusters/{name}/unbind"),
    Command("clusters unbind", text=_unbound_text),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def unbind(context: AdminContext, name: ClusterName, binding: Binding) -> Cluster:
    """Use the default identity on the cluster again for a key or role."""
    await _check_unattended(context, binding)
    await context.services.access.clusters.unbind(name, key=binding.key, role=binding.role)
    await context.changed("clusters.unbind", cluster=name, **binding.model_dump())
    return await get_cluster(context, name)


@subject.operation(
    "freezes.list",
    Route("GET", "/freezes"),
    Command(
        "clusters freezes",
        columns=(Column("cluster", _cluster_text), "since", "by", "reason"),
    ),
    may=EVERYONE,
)
async def list_freezes(context: AdminContext) -> list[Freeze]:
    """List the freezes in force; the one of all clusters has no cluster and comes first."""
    return await context.services.clusters.freezes.all()


@subject.operation(
    "freezes.start",
    Route("POST", "/clusters/{name}/freeze"),
    Command("clusters freeze", text=_freeze_text),
    may=ISSUERS,
)
async def freeze(context: AdminContext, name: ClusterName, why: FreezeFields) -> Freeze:
    """Write nothing to this cluster until the freeze is ended; reads go on.

    It holds within a second. A freeze in force stays as it is, with its reason.
    """
    started = await context.services.clusters.freezes.start(name, reason=why.reason, by=context.by)
    await context.changed("freezes.start", cluster=name, reason=why.reason)
    return started


@subject.operation(
    "freezes.start_all",
    Route("POST", "/freeze"),
    Command("clusters freeze-all", text=_freeze_text),
    may=ISSUERS,
)
async def freeze_all(context: AdminContext, why: FreezeFields) -> Freeze:
    """Write nothing to any cluster until the freeze is ended; reads go on.

    It holds within a second, also for clusters that are added later. A freeze in force stays as it
    is, with its reason.
    """
    started = await context.services.clusters.freezes.start(None, reason=why.reason, by=context.by)
    await context.changed("freezes.start_all", reason=why.reason)
    return started


@subject.operation(
    "freezes.end",
    Route("POST", "/clusters/{name}/unfreeze"),
    Command("clusters unfreeze", text=_unfrozen_text),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def unfreeze(context: AdminContext, name: ClusterName) -> Freeze:
    """Allow writes to this cluster again; a freeze of all clusters stays in force."""
    ended = await context.services.clusters.freezes.end(name)
    await context.changed("freezes.end", cluster=name, frozen=str(ended))
    return ended


@subject.operation(
    "freezes.end_all",
    Route("POST", "/unfreeze"),
    Command("clusters unfreeze-all", text=_unfrozen_text),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def unfreeze_all(context: AdminContext) -> Freeze:
    """Allow writes again; freezes of single clusters stay in force."""
    ended = await context.services.clusters.freezes.end(None)
    await context.changed("freezes.end_all", frozen=str(ended))
    return ended


async def _check_unattended(context: AdminContext, holder: Binding) -> None:
    """Refuse another identity for keys whose calls run unasked, as for the rights of the key."""
    key, role = await context.services.access.clusters.holder(holder.key, holder.role)
    await check_unattended_keys(context, **({"id": key} if key else {"role_id": role}))


def _without_secret(new: IdentityFields) -> dict[str, str]:
    return {"identity": new.name, "token_id": new.token_id}


async def _cluster(context: AdminContext, record: ClusterRecord) -> Cluster:
    access = context.services.access
    bindings = await access.clusters.bindings(record.name)
    keys = {key.id: key.name for key in await access.keys.callers()}
    roles = {role.id: role.name for role in await access.roles.all()}
    identities = [
        _identity(
            identity,
            [_binding(each, keys, roles) for each in bindings if each.identity_id == identity.id],
        )
        for identity in await access.clusters.identities(record.name)
    ]
    columns = Cluster.model_fields.keys() - {"identities"}
    return Cluster(identities=identities, **{name: getattr(record, name) for name in columns})


def _identity(record: IdentityRecord, bound: list[Binding]) -> Identity:
    columns = Identity.model_fields.keys() - {"bound"}
    return Identity(bound=bound, **{name: getattr(record, name) for name in columns})


def _binding(record: BindingRecord, keys: dict[str, str], roles: dict[int, str]) -> Binding:
    return Binding(
        key=keys.get(record.key_id) if record.key_id else None,
        role=roles.get(record.role_id) if record.role_id else None,
    )
