"""How a request to Proxmox's API is undone, where another one certainly reverses it.

A PUT that sets options is reversed by one with their old values; a POST that makes something under
a name, by the DELETE of it. Both are read after the write: only values that are there by then are
known to be kept. Everything else has no way back here: no DELETE, nothing with a secret, no disk.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxmox_client import ProxmoxError
from proxmox_client.json_decoder import split_list
from proxmox_client.paths import join
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import CallError
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.undo import LeftValues, Undo
from pvemcp_server.toolkit.undo_check import text_of, values_at
from pvemcp_server.tools.api.mask import is_secret, masked
from pvemcp_server.tools.api.request import ApiRequest, checked, filled, schema_of

_NO_OPTIONS: Final = frozenset({"delete", "digest"})
# What has to exist already, so that a DELETE loses no more than the POST made
_MADE: Final = re.compile(
    r"/pools|/storage|/cluster/(?!acme).+|/nodes/\{node\}/network"
    r"|/nodes/\{node\}/(?:(?:qemu|lxc)/\{vmid\}/)?firewall/.+"
)
_BY_POSITION: Final = "{pos}"  # rules, which move when another is added
_DISK: Final = re.compile(r"(?:scsi|virtio|sata|ide|efidisk|tpmstate|unused|mp)\d+|rootfs")


@dataclass(frozen=True, slots=True)
class Reversal:
    """The request that reverses another one."""

    cluster: Cluster
    request: ApiRequest
    present: Mapping[str, Any]  # before the write

    async def planned(self) -> Undo | None:
        """Return how it will be undone, as far as that is certain before it is sent."""
        if self.request.method == "POST":
            return await self._removal()
        if self.request.method != "PUT" or not self.present:
            return None
        return await self._old_values(dict.fromkeys(self.request.parameters, ""))

    async def after(self) -> Undo | None:
        """Return how it is undone, with what it left; None if that could not be read."""
        undo = await self.planned()
        if undo is None or undo.values is None:
            return None
        try:
            now = await values_at(self.cluster, undo.values.path)
        except ProxmoxError:
            return None
        if self.request.method == "PUT":
            undo = await self._old_values(now)
        elif not now:
            return None
        if undo is None or undo.values is None:
            return None
        left = {name: text_of(now.get(name)) for name in undo.values.values}
        return Undo(undo.call, values=LeftValues(undo.values.path, left))

    async def _removal(self) -> Undo | None:
        """Return the DELETE of what a POST makes under a name among its parameters."""
        schema = await schema_of((await self.cluster.pve.version()).release)
        if not _MADE.fullmatch(self.request.endpoint.path):
            return None
        match = schema.find("DELETE", f"{self.request.path}/x")
        if match is None or _BY_POSITION in match[0].path:
            return None
        key = match[0].path.rpartition("{")[2].removesuffix("}")
        name = self.request.parameters.get(key)
        if not isinstance(name, str):
            return None
        values = {**self.request.path_values, key: name}
        path = self.request.path + join(name)
        names = dict.fromkeys(self._names, None)
        return await self._call(
            "DELETE", filled(match[0].path, values.__getitem__), [], path, names
        )

    async def _old_values(self, now: Mapping[str, Any]) -> Undo | None:
        """Return the PUT that sets the old values of options that are there now, or unsets them."""
        deleted = split_list(str(self.request.parameters.get("delete", "")))
        old = {name: self.present.get(name) for name in (*self._names, *deleted)}
        kept = {name: text_of(value) for name, value in old.items() if value not in (None, "")}
        if not old or any(name not in now for name in self._names):
            return None
        if None in kept.values() or any(map(_DISK.fullmatch, old)):
            return None
        beside = {**self.present, **self.request.parameters}
        if any(is_secret(name, beside) for name in old) or masked(kept) != kept:
            return None
        unset = [name for name in old if name not in kept]
        delete = self.request.endpoint.parameter("delete")
        if unset and (delete is None or delete.type not in ("string", "array")):
            return None  # none can be unset, or it is a switch that removes members
        pairs = [f"{name}={value}" for name, value in kept.items()]
        pairs += [f"delete={name}" for name in unset]
        shown = filled(self.request.endpoint.path, self.request.path_values.__getitem__)
        return await self._call("PUT", shown, pairs, self.request.path, dict.fromkeys(old))

    @property
    def _names(self) -> list[str]:
        return [name for name in self.request.parameters if name not in _NO_OPTIONS]

    async def _call(
        self, method: str, path: str, pairs: list[str], read: str, left: Mapping[str, None]
    ) -> Undo | None:
        """Return the call of CallApi, if the cluster's schema and the rules here accept it."""
        try:
            await checked(self.cluster, method, path, pairs)
        except (CallError, ProxmoxError):
            return None
        arguments = {"cluster_name": self.cluster.name, "method": method, "path": path}
        more = {"parameters": pairs} if pairs else {}
        return Undo(NextCall("CallApi", arguments | more), values=LeftValues(read, left))
