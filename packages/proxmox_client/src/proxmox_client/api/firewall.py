"""The firewall of a cluster, a security group, a node or a guest."""

from msgspec import field

from proxmox_client.json_decoder import Answer
from proxmox_client.paths import join
from proxmox_client.transport import Transport


class FirewallRule(Answer, frozen=True):
    """A rule; `type` is in, out, forward or group, and a group's name is its `action`."""

    position: int = field(name="pos")
    type: str = ""
    action: str = ""
    enable: bool = False
    macro: str | None = None
    protocol: str | None = field(name="proto", default=None)
    source: str | None = None
    source_port: str | None = field(name="sport", default=None)
    destination: str | None = field(name="dest", default=None)
    destination_port: str | None = field(name="dport", default=None)
    interface: str | None = field(name="iface", default=None)
    log: str | None = None
    comment: str | None = None


class FirewallOptions(Answer, frozen=True):
    """Options of a level; what is not set is None."""

    enable: bool | None = None
    policy_in: str | None = None
    policy_out: str | None = None
    log_in: str | None = field(name="log_level_in", default=None)
    log_out: str | None = field(name="log_level_out", default=None)
    rate_limit: str | None = field(name="log_ratelimit", default=None)
    mac_filter: bool | None = field(name="macfilter", default=None)
    ip_filter: bool | None = field(name="ipfilter", default=None)
    dhcp: bool | None = None


class SecurityGroup(Answer, frozen=True):
    """A list of rules that other levels refer to."""

    group: str
    comment: str | None = None


class Firewall:
    """Calls about the firewall of one level; a security group has rules only."""

    def __init__(self, transport: Transport, path: str, group: str | None = None) -> None:
        self._transport = transport
        self._options = f"{path}/options"
        self._rules = path + join("groups", group) if group else f"{path}/rules"

    async def rules(self) -> list[FirewallRule]:
        """GET …/firewall/rules. Needs Sys.Audit on / or on the node, VM.Audit for a guest.

        Source: PVE/API2/Firewall/Rules.pm.
        """
        return await self._transport.get(self._rules, list[FirewallRule])

    async def options(self) -> FirewallOptions:
        """GET …/firewall/options. Needs Sys.Audit on / or on the node, VM.Audit for a guest.

        Source: PVE/API2/Firewall/Cluster.pm, PVE/API2/Firewall/Host.pm, PVE/API2/Firewall/VM.pm.
        """
        return await self._transport.get(self._options, FirewallOptions)
