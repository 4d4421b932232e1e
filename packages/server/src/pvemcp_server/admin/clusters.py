"""Clusters and the Proxmox identities that we hold for them."""

import asyncio
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from proxmox_client import ProxmoxError, Tls, fetch_fingerprint
from pvemcp_server.admin.context import AdminContext, given
from pvemcp_server.clusters import Check, check
from pvemcp_server.clusters.connections import tls_of
from pvemcp_server.errors import CallError
from pvemcp_server.store.records import BindingRecord, ClusterRecord, IdentityRecord, TlsMode


class ClusterFields(BaseModel):
    """A cluster as it is added."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="Its name here; what cluster_name selects")
    hosts: list[str] = Field(description="host or host:port of its nodes, tried in turn")
    token_id: str = Field(description="API token, user@realm!name")
    token_secret: SecretStr = Field(description="The token's secret; never shown again")
    description: str = Field(default="", description="What the model is told about it")
    tls_mode: TlsMode = Field(default=TlsMode.SYSTEM, description="How certificates are judged")
    ca_pem: str = Field(default="", description="Certificate authority, for tls_mode ca")
    fingerprints: list[str] = Field(default=[], description="SHA-256 of leafs, for pinned")
    protected: bool = Field(default=False, description="Refuse every write, whoever asks")


class ClusterChanges(BaseModel):
    """What is to be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    hosts: list[str] | None = None
    description: str | None = None
    tls_mode: TlsMode | None = None
    ca_pem: str | None = None
    fingerprints: list[str] | None = None
    protected: bool | None = None


class IdentityFields(BaseModel):
    """A Proxmox API token of a cluster."""

    model_config = ConfigDict(extra="forbid")

    name: str
    token_id: str
    token_secret: SecretStr


class Binding(BaseModel):
    """A key or a role that reaches the cluster with this identity."""

    model_config = ConfigDict(extra="forbid")

    key: str | None = None
    role: str | None = None


class Shown(BaseModel):
    """What a host shows before anything is sent to it."""

    host: str
    fingerprint: str = ""
    trouble: str = ""


class Identity(BaseModel):
    """A token without its secret, and who is bound to it."""

    name: str
    token_id: str
    is_default: bool
    created: datetime
    bound: list[Binding]


class Cluster(BaseModel):
    """A configured cluster, without asking it."""

    name: str
    description: str
    hosts: list[str]
    tls_mode: TlsMode
    ca_pem: str
    fingerprints: list[str]
    protected: bool
    created: datetime
    identities: list[Identity]


async def list_clusters(context: AdminContext) -> list[Cluster]:
    return [await _cluster(context, one) for one in await context.services.access.clusters.all()]


async def get_cluster(context: AdminContext, name: str) -> Cluster:
    return await _cluster(context, await context.services.access.clusters.get(name))


async def try_cluster(fields: ClusterFields) -> Check:
    """What the cluster answers with these fields; raises CallError saying what is wrong."""
    tls = Tls(
        ca_pem=fields.ca_pem or None,
        fingerprints=fields.fingerprints,
        insecure=fields.tls_mode is TlsMode.INSECURE,
    )
    secret = fields.token_secret.get_secret_value()
    return await check(fields.hosts, fields.token_id, secret, tls, fields.name)


async def fingerprints(hosts: list[str]) -> list[Shown]:
    """The certificate that each host shows now; nothing but the handshake is sent."""
    return list(await asyncio.gather(*(_fingerprint(host) for host in hosts)))


async def _fingerprint(host: str) -> Shown:
    try:
        return Shown(host=host, fingerprint=await fetch_fingerprint(host))
    except (ProxmoxError, ValueError) as error:
        return Shown(host=host, trouble=str(error))


async def add_cluster(context: AdminContext, new: ClusterFields) -> tuple[Cluster, Check]:
    """Tries the cluster and saves it when it answers."""
    found = await try_cluster(new)
    given = new.model_dump(exclude={"token_secret"})
    record = await context.services.access.clusters.create(
        **given, secret=new.token_secret.get_secret_value()
    )
    await context.changed("clusters.add", cluster=record.name, **given)
    return await _cluster(context, record), found


async def change_cluster(context: AdminContext, name: str, changes: ClusterChanges) -> Cluster:
    values = given(changes)
    record = await context.services.access.clusters.change(name, **values)
    await context.changed("clusters.change", cluster=name, **values)
    return await _cluster(context, record)


async def remove_cluster(context: AdminContext, name: str) -> None:
    """Forgets the cluster, its tokens and who was bound to them; Proxmox is not asked."""
    await context.services.access.clusters.remove(name)
    await context.changed("clusters.remove", cluster=name)


async def check_cluster(context: AdminContext, name: str, identity: str | None = None) -> Check:
    """What the saved cluster answers now, with its default identity or the named one."""
    record = await context.services.access.clusters.get(name)
    known = await context.services.access.clusters.identities(name)
    chosen = [one for one in known if (one.name == identity if identity else one.is_default)]
    if not chosen:
        raise CallError(f"Cluster {name} has no such Proxmox token.", hint="Add one to it.")
    secret = await context.services.store.identities.secret(chosen[0].id) or ""
    return await check(record.hosts, chosen[0].token_id, secret, tls_of(record), name)


async def add_identity(context: AdminContext, cluster: str, new: IdentityFields) -> Cluster:
    await context.services.access.clusters.add_identity(
        cluster, new.name, token_id=new.token_id, secret=new.token_secret.get_secret_value()
    )
    await context.changed("clusters.add_identity", cluster=cluster, **_public(new))
    return await get_cluster(context, cluster)


async def renew_identity(context: AdminContext, cluster: str, new: IdentityFields) -> Cluster:
    """Another token, or another secret, under the same name."""
    await context.services.access.clusters.change_identity(
        cluster, new.name, token_id=new.token_id, secret=new.token_secret.get_secret_value()
    )
    await context.changed("clusters.renew_identity", cluster=cluster, **_public(new))
    return await get_cluster(context, cluster)


async def make_default(context: AdminContext, cluster: str, identity: str) -> Cluster:
    await context.services.access.clusters.make_default(cluster, identity)
    await context.changed("clusters.make_default", cluster=cluster, identity=identity)
    return await get_cluster(context, cluster)


async def remove_identity(context: AdminContext, cluster: str, identity: str) -> None:
    await context.services.access.clusters.remove_identity(cluster, identity)
    await context.changed("clusters.remove_identity", cluster=cluster, identity=identity)


async def bind(context: AdminContext, cluster: str, identity: str, to: Binding) -> Cluster:
    """Lets a key, or all keys of a role, reach the cluster with this identity."""
    await context.services.access.clusters.bind(cluster, identity, key=to.key, role=to.role)
    await context.changed("clusters.bind", cluster=cluster, identity=identity, **to.model_dump())
    return await get_cluster(context, cluster)


async def unbind(context: AdminContext, cluster: str, whom: Binding) -> Cluster:
    """Lets a key or role reach the cluster with its default identity again."""
    await context.services.access.clusters.unbind(cluster, key=whom.key, role=whom.role)
    await context.changed("clusters.unbind", cluster=cluster, **whom.model_dump())
    return await get_cluster(context, cluster)


def _public(new: IdentityFields) -> dict[str, str]:
    return {"identity": new.name, "token_id": new.token_id}


async def _cluster(context: AdminContext, record: ClusterRecord) -> Cluster:
    access = context.services.access
    bindings = await access.clusters.bindings(record.name)
    keys = {one.id: one.name for one in await access.keys.all()}
    roles = {one.id: one.name for one in await access.roles.all()}
    identities = [
        _identity(one, [_binding(b, keys, roles) for b in bindings if b.identity_id == one.id])
        for one in await access.clusters.identities(record.name)
    ]
    given = {name: getattr(record, name) for name in Cluster.model_fields if name != "identities"}
    return Cluster(identities=identities, **given)


def _identity(record: IdentityRecord, bound: list[Binding]) -> Identity:
    given = {name: getattr(record, name) for name in Identity.model_fields if name != "bound"}
    return Identity(bound=bound, **given)


def _binding(one: BindingRecord, keys: dict[str, str], roles: dict[int, str]) -> Binding:
    return Binding(
        key=keys.get(one.key_id) if one.key_id else None,
        role=roles.get(one.role_id) if one.role_id else None,
    )
