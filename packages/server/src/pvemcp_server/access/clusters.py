"""Which clusters are configured, which tokens we hold for them, and who is bound to which."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pvemcp_server.access.names import check_name
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import BindingRecord, ClusterRecord, IdentityRecord, TlsMode

TOKEN_ID = re.compile(r"[^\s@!/:]+@[A-Za-z][\w.-]+![A-Za-z][\w.-]+")
FINGERPRINT = re.compile(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}")
DEFAULT_IDENTITY = "default"


class ClusterConfigs:
    """Reads and changes cluster records and Proxmox identities."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def all(self) -> list[ClusterRecord]:
        return await self._store.clusters.all()

    async def get(self, name: str) -> ClusterRecord:
        found = await self._store.clusters.find(name=name)
        if found is None:
            raise UnknownName("cluster", name, [one.name for one in await self.all()])
        return found

    async def create(
        self,
        name: str,
        hosts: Iterable[str],
        *,
        token_id: str,
        secret: str,
        description: str = "",
        tls_mode: TlsMode = TlsMode.SYSTEM,
        ca_pem: str = "",
        fingerprints: Iterable[str] = (),
        protected: bool = False,
    ) -> ClusterRecord:
        """A new cluster with its default identity."""
        values = _checked(
            {
                "name": name,
                "hosts": hosts,
                "description": description,
                "tls_mode": tls_mode,
                "ca_pem": ca_pem,
                "fingerprints": fingerprints,
                "protected": protected,
            }
        )
        _check_tls(values)
        token = {"token_id": _check_token_id(token_id), "secret": _check_secret(secret)}
        async with self._store.database.writing() as connection:
            cluster = await self._store.clusters.add_in(connection, created=utc_now(), **values)
            await self._store.identities.add_in(
                connection, cluster_id=cluster.id, name=DEFAULT_IDENTITY, **token
            )
        return cluster

    async def change(self, name: str, /, **values: Any) -> ClusterRecord:
        """Changes any of: name, hosts, description, tls_mode, ca_pem, fingerprints, protected."""
        cluster = await self.get(name)
        checked = _checked(values)
        current = {
            field: getattr(cluster, field) for field in ("tls_mode", "ca_pem", "fingerprints")
        }
        _check_tls({**current, **checked})
        changed = await self._store.clusters.change(cluster.id, **checked)
        if changed is None:  # removed since we looked
            raise UnknownName("cluster", name, [])
        return changed

    async def remove(self, name: str) -> None:
        """Removes a cluster with its identities and bindings."""
        cluster = await self.get(name)
        await self._store.clusters.remove(cluster.id)

    async def identities(self, cluster: str) -> list[IdentityRecord]:
        record = await self.get(cluster)
        return await self._store.identities.all(cluster_id=record.id)

    async def identity(self, cluster: str, name: str) -> IdentityRecord:
        found = await self.identities(cluster)
        for one in found:
            if one.name == name:
                return one
        raise UnknownName("identity", name, [one.name for one in found])

    async def add_identity(
        self, cluster: str, name: str, *, token_id: str, secret: str
    ) -> IdentityRecord:
        """Another Proxmox API token for a cluster; the first one is its default."""
        record = await self.get(cluster)
        return await self._store.identities.add(
            cluster_id=record.id,
            name=check_name(name),
            token_id=_check_token_id(token_id),
            secret=_check_secret(secret),
        )

    async def change_identity(
        self, cluster: str, name: str, *, token_id: str | None = None, secret: str | None = None
    ) -> None:
        identity = await self.identity(cluster, name)
        values = {
            "token_id": None if token_id is None else _check_token_id(token_id),
            "secret": None if secret is None else _check_secret(secret),
        }
        given = {column: value for column, value in values.items() if value is not None}
        await self._store.identities.change(identity.id, **given)

    async def make_default(self, cluster: str, name: str) -> None:
        await self._store.identities.make_default(await self.identity(cluster, name))

    async def remove_identity(self, cluster: str, name: str) -> None:
        """Removes a token that nobody is bound to; the default one stays."""
        identity = await self.identity(cluster, name)
        if identity.is_default:
            raise BadArgument(
                "name", f"{name!r} is the default; make another one the default first."
            )
        # without this, whoever is bound to it would fall back to the default, which may see more
        if await self._store.bindings.all(identity_id=identity.id):
            raise BadArgument("name", f"{name!r} is bound to a key or role; unbind it first.")
        await self._store.identities.remove(identity.id)

    async def bind(
        self, cluster: str, identity: str, *, key: str | None = None, role: str | None = None
    ) -> None:
        """Lets a key, or all keys of a role, reach the cluster with this identity."""
        found = await self.identity(cluster, identity)
        key_id, role_id = await self._holder(key, role)
        await self._store.bindings.bind(found, key_id=key_id, role_id=role_id)

    async def unbind(
        self, cluster: str, *, key: str | None = None, role: str | None = None
    ) -> None:
        """Lets a key or role reach the cluster with its default identity again."""
        record = await self.get(cluster)
        key_id, role_id = await self._holder(key, role)
        for binding in await self._store.bindings.all(cluster_id=record.id):
            if (binding.key_id, binding.role_id) == (key_id, role_id):
                await self._store.bindings.remove(binding.id)

    async def bindings(self, cluster: str) -> list[BindingRecord]:
        record = await self.get(cluster)
        return await self._store.bindings.all(cluster_id=record.id)

    async def _holder(self, key: str | None, role: str | None) -> tuple[str | None, int | None]:
        if (key is None) == (role is None):
            raise BadArgument("key", "name either a key or a role.")
        if key is not None:
            by_id = await self._store.keys.find(id=key) or await self._store.keys.find(name=key)
            if by_id is None:
                raise UnknownName("key", key, [one.name for one in await self._store.keys.all()])
            return by_id.id, None
        found = await self._store.roles.find(name=role)
        if found is None:
            raise UnknownName("role", role, [one.name for one in await self._store.roles.all()])
        return None, found.id


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    unknown = values.keys() - CHECKS.keys()
    if unknown:
        raise BadArgument(min(unknown), "is not something a cluster has.")
    return {name: CHECKS[name](value) for name, value in values.items()}


def _hosts(values: Iterable[str]) -> list[str]:
    hosts = list(dict.fromkeys(value.strip() for value in values if value.strip()))
    if not hosts or any(set(host) & set(" /@?#") for host in hosts):
        raise BadArgument("hosts", "one or more of host or host:port, without a scheme or path.")
    return hosts


def _fingerprints(values: Iterable[str]) -> list[str]:
    found = sorted({value.strip().upper() for value in values if value.strip()})
    if not all(FINGERPRINT.fullmatch(value) for value in found):
        raise BadArgument("fingerprints", "SHA-256 as 32 pairs of hex digits joined by colons.")
    return found


def _check_tls(values: Mapping[str, Any]) -> None:
    needs = {TlsMode.CA: "ca_pem", TlsMode.PINNED: "fingerprints"}.get(values["tls_mode"])
    if needs and not values[needs]:
        raise BadArgument(needs, f"is needed with tls_mode {values['tls_mode']}.")


def _check_token_id(token_id: str) -> str:
    if not TOKEN_ID.fullmatch(token_id):
        raise BadArgument("token_id", "looks like user@realm!name, for example root@pam!pvemcp.")
    return token_id


def _check_secret(secret: str) -> str:
    if not secret.strip():
        raise BadArgument("secret", "must not be empty.")
    return secret.strip()


def _tls_mode(value: str) -> TlsMode:
    try:
        return TlsMode(value)
    except ValueError:
        raise BadArgument("tls_mode", f"one of {', '.join(TlsMode)}.") from None


CHECKS: Mapping[str, Any] = {
    "name": check_name,
    "hosts": _hosts,
    "description": str,
    "tls_mode": _tls_mode,
    "ca_pem": str,
    "fingerprints": _fingerprints,
    "protected": bool,
}
