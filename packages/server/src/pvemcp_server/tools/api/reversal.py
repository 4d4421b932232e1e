"""How a request to Proxmox's API is undone, where another one certainly reverses it.

A PUT that sets options is reversed by one with their old values; a POST that makes something under
a name, by the DELETE of it. Both are read after the write: only values that are there by then are
known to be kept. A PUT of a pool is reversed by one that takes its members in or out again.
Everything else has no way back here: no DELETE, nothing with a secret, no disk.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from proxmox_client import ProxmoxError
from proxmox_client.json_decoder import split_list
from proxmox_client.paths import join
from proxmox_client.properties import flag
from proxmox_client.schema import Endpoint
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.undo import LeftValues, Undo
from pvemcp_server.toolkit.undo_check import text_of, values_now
from pvemcp_server.tools.api import effects
from pvemcp_server.tools.api.mask import is_secret, masked
from pvemcp_server.tools.api.request import ApiRequest, filled, parameters_of

_POOLS: Final = "/pools"
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
    pools: Mapping[int, str | None]  # of the guests, likewise

    def planned(self) -> Undo | None:
        """Return how it will be undone, as far as that is certain before it is sent."""
        match self.request.method:
            case "POST":
                return self._removal()
            case "PUT" if self.present and self._is_of_pool:
                return self._pool_change()
            case "PUT" if self.present:
                return self._old_values()
            case _:
                return None

    async def after(self, planned: Undo) -> Undo | None:
        """Return how it is undone, with what it left; None if its options are not there."""
        if planned.values is None:
            return None
        try:
            now = await values_now(self.cluster, planned.values)
        except ProxmoxError:
            return None
        is_shown = self.request.method == "POST" or self._is_of_pool
        is_kept = is_shown or all(name in now for name in self._names)
        if not now or not is_kept:
            return None
        left = {name: text_of(now.get(name)) for name in planned.values.values}
        return replace(planned, values=replace(planned.values, values=left))

    def _removal(self) -> Undo | None:
        """Return the DELETE of what a POST makes under a name among its parameters."""
        match = self.request.schema.find("DELETE", f"{self.request.path}/x")
        is_made = _MADE.fullmatch(self.request.endpoint.path)
        if match is None or not is_made or _BY_POSITION in match[0].path:
            return None
        endpoint, key = match[0], match[0].path.rpartition("{")[2].removesuffix("}")
        name = self.request.parameters.get(key)
        if not isinstance(name, str):
            return None
        left = dict.fromkeys(self._names)
        names = {**self.request.path_values, key: name}
        return self._call(endpoint, names, [], LeftValues(self.request.path + join(name), left))

    def _old_values(self) -> Undo | None:
        """Return the PUT that sets the old values of options, or unsets those that had none."""
        deleted = split_list(str(self.request.parameters.get("delete", "")))
        old = {name: self.present.get(name) for name in (*self._names, *deleted)}
        kept = {name: text_of(value) for name, value in old.items() if value not in (None, "")}
        if not old or None in kept.values() or any(map(_DISK.fullmatch, old)):
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
        left = LeftValues(self.request.path, dict.fromkeys(old))
        return self._call(self.request.endpoint, self.request.path_values, pairs, left)

    def _pool_change(self) -> Undo | None:
        """Return the PUT that takes members of a pool in or out again, and sets its old comment.

        Proxmox removes nothing but members and adds nothing that is one, so a request that it has
        carried out has changed all that it names. Source: PVE/API2/Pool.pm.
        """
        values = {name: str(value) for name, value in self.request.values.items()}
        match = self.request.schema.find("PUT", _POOLS)
        changed = [name for name in ("vms", "storage", "comment") if name in values]
        comment = {"comment": str(self.present.get("comment") or "")}
        if match is None or ("comment" in changed and masked(comment) != comment):
            return None
        members = [f"{name}={values[name]}" for name in changed if name != "comment"]
        removes, pools = flag(values.get("delete")), {""}
        if flag(values.get("allow-move")) and not removes:
            pools = {self.pools.get(int(vmid)) or "" for vmid in split_list(values.get("vms", ""))}
        pairs = [f"poolid={values['poolid']}", *members]
        if changed == ["vms"] and len(pools) == 1 and "" not in pools:  # all of one other pool
            pairs = [f"poolid={pools.pop()}", *members, "allow-move=1"]
        elif pools <= {""}:
            pairs += ["delete=1"] if members and not removes else []
            pairs += [f"comment={comment['comment']}"] if "comment" in changed else []
        else:
            return None
        left = LeftValues(_POOLS, dict.fromkeys(changed), {"poolid": values["poolid"]})
        return self._call(match[0], {}, pairs, left) if changed else None

    @property
    def _is_of_pool(self) -> bool:
        return self.request.endpoint.path in (_POOLS, f"{_POOLS}/{{poolid}}")

    @property
    def _names(self) -> list[str]:
        return [name for name in self.request.parameters if name not in _NO_OPTIONS]

    def _call(
        self, endpoint: Endpoint, names: Mapping[str, str], pairs: list[str], left: LeftValues
    ) -> Undo | None:
        """Return the call of CallApi, if the schema and the rules for requests accept it."""
        path = filled(endpoint.path, names.__getitem__)
        try:
            parameters = parameters_of(endpoint, pairs)
        except BadArgument:
            return None
        is_refused = effects.refusal(endpoint, parameters) or set(path) & set("?#%\\")
        if is_refused or endpoint.check({**names, **parameters}):
            return None
        where = {"cluster_name": self.cluster.name, "method": endpoint.method, "path": path}
        more = {"parameters": pairs} if pairs else {}
        return Undo(NextCall("CallApi", where | more), values=left)
