"""High availability."""

from msgspec import field

from proxmox_client.json_decoder import Answer
from proxmox_client.names import Name


class HaResource(Answer, frozen=True):
    """A guest that the HA manager keeps in a requested state; `sid` is `vm:101` or `ct:200`."""

    sid: str
    type: str = ""
    state: str = "started"
    group: str | None = None
    comment: str | None = None
    max_restart: int = 1
    max_relocate: int = 1
    failback: bool | None = None


class HaStatus(Answer, frozen=True):
    """A row of the HA manager's status: quorum, master, a node's agent, or a service."""

    id: str
    type: str = ""
    status: str = ""
    node: Name | None = None
    sid: str | None = None
    state: str | None = None
    crm_state: str | None = None
    request_state: str | None = None
    group: str | None = None
    quorate: bool | None = None
    timestamp: int | None = None
    max_restart: int | None = None
    max_relocate: int | None = None
    failback: bool | None = None
    armed_state: str | None = field(name="armed-state", default=None)

    @property
    def is_in_maintenance(self) -> bool:
        """Whether it is the row of a node that HA has taken out of service."""
        return self.type == "lrm" and "maintenance mode" in self.status


class HaRule(Answer, frozen=True):
    """A rule about the nodes of HA resources (from 9.0)."""

    rule: str
    type: str = ""
    resources: str | None = None
    nodes: str | None = None
    strict: bool | None = None
    affinity: str | None = None
    disable: bool = False
    comment: str | None = None


class HaGroup(Answer, frozen=True):
    """A group of nodes for HA resources (until 8.4); `nodes` may have priorities: `pve1:2`."""

    group: str
    nodes: str = ""
    restricted: bool = False
    no_failback: bool = field(name="nofailback", default=False)
    comment: str | None = None
