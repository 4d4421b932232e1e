"""Configured clusters, their Proxmox tokens (identities), and bindings of keys and roles."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from proxmox_client.hosts import BACKUP_SERVER_PORT, Host
from proxmox_client.tls import Tls, normalize_fingerprint
from pvemcp_server.access.names import check_name
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import (
    BindingRecord,
    ClusterKind,
    ClusterRecord,
    IdentityRecord,
    TlsMode,
)

TOKEN_ID = re.compile(r"[^\s@!/:]+@[A-Za-z][\w.-]+![A-Za-z][\w.-]+")
_SECRET = re.compile(r"[!-~]{1,200}")  # a UUID; the client takes no other letters
DEFAULT_IDENTITY = "default"
_SECRETS_NEEDED = (
    "other hosts or certificates need the secret of each token again, because a stored secret is"
    " sent only where it was given for. Missing: {}."
)


class ClusterConfigs:
    """Reads and changes clusters, identities and bindings."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def all(self) -> list[ClusterRecord]:
        """Return every configured cluster."""
        return await self._store.clusters.all()

    async def get(self, name: str) -> ClusterRecord:
        """Return the cluster with this name; raise UnknownName."""
        cluster = await self._store.clusters.find(name=name)
        if cluster is None:
            raise UnknownName("cluster", name, [other.name for other in await self.all()])
        return cluster

    async def check_new_name(self, name: str) -> None:
        """Raise BadArgument unless a new cluster can have this name."""
        if check_name(name) in {cluster.name for cluster in await self.all()}:
            raise BadArgument("name", f"{name!r} is already among the clusters.")

    async def create(
        self,
        name: str,
        hosts: Iterable[str],
        *,
        token_id: str,
        secret: str,
        kind: ClusterKind = ClusterKind.PVE,
        description: str = "",
        tls_mode: TlsMode = TlsMode.SYSTEM,
        ca_pem: str = "",
        fingerprints: Iterable[str] = (),
        protected: bool = False,
    ) -> ClusterRecord:
        """Create a cluster with its default identity."""
        values = checked(
            {
                "name": name,
                "kind": kind,
                "hosts": hosts_with_ports(hosts, kind),
                "description": description,
                "tls_mode": tls_mode,
                "ca_pem": ca_pem,
                "fingerprints": fingerprints,
                "protected": protected,
            }
        )
        _check_tls(values)
        token = {"token_id": checked_token_id(token_id), "secret": _check_secret(secret)}
        async with self._store.database.writing() as connection:
            cluster = await self._store.clusters.add_in(connection, created=utc_now(), **values)
            await self._store.identities.add_in(
                connection, cluster_id=cluster.id, name=DEFAULT_IDENTITY, **token
            )
        return cluster

    async def change(
        self, name: str, /, *, secrets: Mapping[str, str] | None = None, **values: Any
    ) -> ClusterRecord:
        """Change any of name, hosts, description, tls_mode, ca_pem, fingerprints, protected.

        `secrets` holds the secrets of the cluster's tokens by the names of their identities. A
        change of the hosts, or of how they are verified, needs each of them: a stored secret is
        sent only where it was given for. It ends the connections' own tokens there.
        """
        cluster = await self.get(name)
        if "hosts" in values:
            values["hosts"] = hosts_with_ports(values["hosts"], cluster.kind)
        new = checked(values)
        current = {
            field: getattr(cluster, field) for field in ("tls_mode", "ca_pem", "fingerprints")
        }
        _check_tls({**current, **new})
        given = {each: _check_secret(secret) for each, secret in (secrets or {}).items()}
        async with self._store.database.writing() as connection:
            changed = await self._store.clusters.change_in(connection, cluster.id, **new)
            if changed is None:  # removed by another process
                raise UnknownName("cluster", name, [])
            if changed.destination != cluster.destination:
                await self._store.identities.remove_of_users(connection, cluster.id)
            identities = await self._store.identities.all_in(connection, cluster_id=cluster.id)
            names = [identity.name for identity in identities]
            for unknown in given.keys() - set(names):
                raise UnknownName("identity", unknown, names)
            missing = [each for each in names if each not in given]
            if missing and changed.destination != cluster.destination:
                raise BadArgument("token_secrets", _SECRETS_NEEDED.format(", ".join(missing)))
            for identity in identities:
                if identity.name in given:
                    await self._store.identities.change_in(
                        connection, identity.id, secret=given[identity.name]
                    )
        return changed

    async def remove(self, name: str) -> None:
        """Remove a cluster with its identities and bindings."""
        cluster = await self.get(name)
        await self._store.clusters.remove(cluster.id)

    async def identities(self, cluster: str) -> list[IdentityRecord]:
        """Return the identities of a cluster, without the tokens of users who connect."""
        record = await self.get(cluster)
        return await self._store.identities.all(cluster_id=record.id, connection_id=None)

    async def identity(self, cluster: str, name: str) -> IdentityRecord:
        """Return the identity of a cluster with this name; raise UnknownName."""
        identities = await self.identities(cluster)
        for identity in identities:
            if identity.name == name:
                return identity
        raise UnknownName("identity", name, [identity.name for identity in identities])

    async def add_identity(
        self, cluster: str, name: str, *, token_id: str, secret: str
    ) -> IdentityRecord:
        """Add a Proxmox API token to a cluster; the first one is its default."""
        record = await self.get(cluster)
        return await self._store.identities.add(
            cluster_id=record.id,
            name=check_name(name),
            token_id=checked_token_id(token_id),
            secret=_check_secret(secret),
        )

    async def change_identity(
        self, cluster: str, name: str, *, token_id: str | None = None, secret: str | None = None
    ) -> None:
        """Change the token id, the secret or both."""
        identity = await self.identity(cluster, name)
        values = {
            "token_id": None if token_id is None else checked_token_id(token_id),
            "secret": None if secret is None else _check_secret(secret),
        }
        changes = {column: value for column, value in values.items() if value is not None}
        await self._store.identities.change(identity.id, **changes)

    async def make_default(self, cluster: str, name: str) -> None:
        """Make this identity the one of every caller without a binding."""
        await self._store.identities.make_default(await self.identity(cluster, name))

    async def remove_identity(self, cluster: str, name: str) -> None:
        """Remove a token without bindings; raise BadArgument for the default one."""
        identity = await self.identity(cluster, name)
        if identity.is_default:
            raise BadArgument(
                "name", f"{name!r} is the default; make another one the default first."
            )
        # otherwise bound callers would fall back to the default, which may have more privileges
        if await self._store.bindings.all(identity_id=identity.id):
            raise BadArgument("name", f"{name!r} is bound to a key or role; unbind it first.")
        await self._store.identities.remove(identity.id)

    async def bind(
        self, cluster: str, identity: str, *, key: str | None = None, role: str | None = None
    ) -> None:
        """Make a key, or all keys of a role, use this identity on the cluster."""
        record = await self.identity(cluster, identity)
        key_id, role_id = await self.holder(key, role)
        await self._store.bindings.bind(record, key_id=key_id, role_id=role_id)

    async def unbind(
        self, cluster: str, *, key: str | None = None, role: str | None = None
    ) -> None:
        """Make a key or role use the default identity of the cluster again."""
        record = await self.get(cluster)
        key_id, role_id = await self.holder(key, role)
        for binding in await self._store.bindings.all(cluster_id=record.id):
            if (binding.key_id, binding.role_id) == (key_id, role_id):
                await self._store.bindings.remove(binding.id)

    async def bindings(self, cluster: str) -> list[BindingRecord]:
        """Return the bindings to the identities of a cluster."""
        known = {identity.id for identity in await self.identities(cluster)}
        record = await self.get(cluster)
        bindings = await self._store.bindings.all(cluster_id=record.id)
        return [binding for binding in bindings if binding.identity_id in known]

    async def holder(self, key: str | None, role: str | None) -> tuple[str | None, int | None]:
        """Return the ids of a key, by id or name, or of a role; raise BadArgument for both."""
        if (key is None) == (role is None):
            raise BadArgument("key", "name either a key or a role.")
        if key is not None:
            keys = self._store.keys
            key_record = await keys.find(id=key) or await keys.find(name=key)
            if key_record is None or key_record.person is not None:
                known = await keys.all(person=None)
                raise UnknownName("key", key, [other.name for other in known])
            return key_record.id, None
        roles = self._store.roles
        role_record = await roles.find(name=role)
        if role_record is None:
            raise UnknownName("role", role, [other.name for other in await roles.all()])
        return None, role_record.id


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a cluster in the form in which they are stored; raise BadArgument."""
    unknown = values.keys() - CHECKS.keys()
    if unknown:
        raise BadArgument(min(unknown), "is not a field of a cluster.")
    return {name: CHECKS[name](value) for name, value in values.items()}


def hosts_with_ports(hosts: Iterable[str], kind: ClusterKind) -> list[str]:
    """Return the hosts; those of a backup server get its port where they have none."""
    if kind is ClusterKind.PVE:
        return list(hosts)
    return [_with_port(host.strip(), BACKUP_SERVER_PORT) for host in hosts]


def _with_port(host: str, port: int) -> str:
    try:
        return str(Host.parse(host, port))
    except ValueError:
        return host  # refused where all hosts are checked


def _hosts(values: Iterable[str]) -> list[str]:
    hosts = list(dict.fromkeys(value.strip() for value in values if value.strip()))
    if not hosts or any(set(host) & set(" /@?#") for host in hosts):
        raise BadArgument("hosts", "one or more of host or host:port, without a scheme or path.")
    try:
        for host in hosts:
            Host.parse(host)
    except ValueError as error:
        raise BadArgument("hosts", f"{error}.") from None
    return hosts


def _fingerprints(values: Iterable[str]) -> list[str]:
    try:
        return sorted({normalize_fingerprint(value) for value in values if value.strip()})
    except ValueError:
        message = "each is 32 pairs of hex digits, the SHA-256 that `pvenode cert info` shows."
        raise BadArgument("fingerprints", message) from None


def _ca_pem(value: str) -> str:
    try:
        Tls(ca_pem=value or None).context()
    except ValueError as error:
        message = f"{error}: PEM begins with -----BEGIN CERTIFICATE-----."
        raise BadArgument("ca_pem", message) from None
    return value


def _check_tls(values: Mapping[str, Any]) -> None:
    needs = {TlsMode.CA: "ca_pem", TlsMode.PINNED: "fingerprints"}.get(values["tls_mode"])
    if needs and not values[needs]:
        raise BadArgument(needs, f"is needed with tls_mode {values['tls_mode']}.")


def checked_token_id(token_id: str) -> str:
    """Return the id of a token; raise BadArgument when its form is wrong."""
    if not TOKEN_ID.fullmatch(token_id):
        raise BadArgument(
            "token_id", "must have the form user@realm!name, for example root@pam!pvemcp."
        )
    return token_id


def _check_secret(secret: str) -> str:
    stripped = secret.strip()
    if not _SECRET.fullmatch(stripped):
        raise BadArgument("secret", "must be the line that Proxmox shows once, without spaces.")
    return stripped


def _kind(value: str) -> ClusterKind:
    try:
        return ClusterKind(value)
    except ValueError:
        raise BadArgument("kind", f"one of {', '.join(ClusterKind)}.") from None


def _tls_mode(value: str) -> TlsMode:
    try:
        return TlsMode(value)
    except ValueError:
        raise BadArgument("tls_mode", f"one of {', '.join(TlsMode)}.") from None


CHECKS: Mapping[str, Any] = {
    "name": check_name,
    "kind": _kind,
    "hosts": _hosts,
    "description": str,
    "tls_mode": _tls_mode,
    "ca_pem": _ca_pem,
    "fingerprints": _fingerprints,
    "protected": bool,
}
