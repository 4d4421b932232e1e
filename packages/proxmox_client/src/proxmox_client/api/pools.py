"""Pools of guests and storages."""

from msgspec import field

from proxmox_client.json_decoder import Answer


class PoolMember(Answer, frozen=True):
    """A guest or storage in a pool."""

    type: str = ""
    id: str = ""
    node: str = ""
    vmid: int | None = None
    name: str = ""
    storage: str | None = None
    status: str = ""


class Pool(Answer, frozen=True):
    """A pool; `members` is filled by `Client.pool` only, not in the list of pools."""

    pool_id: str = field(name="poolid")
    comment: str = ""
    members: list[PoolMember] = field(default_factory=list)
