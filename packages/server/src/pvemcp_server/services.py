"""The services under endpoint, pages and commands, opened together."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from pvemcp_server.access import Access
from pvemcp_server.approvals import Approvals
from pvemcp_server.audit import Audit, open_audit
from pvemcp_server.audit.forwarder import FILE, SYSLOG, Receiver
from pvemcp_server.audit.json_lines import JsonLinesFile
from pvemcp_server.audit.syslog import SyslogReceiver
from pvemcp_server.clusters import Clusters
from pvemcp_server.config import Config
from pvemcp_server.oauth.connections import Connections
from pvemcp_server.oauth.issuer_users import IssuerUsers
from pvemcp_server.oauth.oauth import OAuth
from pvemcp_server.oauth.people import People
from pvemcp_server.settings import Settings, Values
from pvemcp_server.store import Store
from pvemcp_server.store.background import housekeeping


class State(Protocol):
    """The open state that a command passes on; `cli` lies above and cannot be imported here."""

    @property
    def config(self) -> Config: ...

    @property
    def store(self) -> Store: ...

    @property
    def access(self) -> Access: ...

    @property
    def settings(self) -> Settings: ...


@dataclass(frozen=True)
class Services:
    """The services of one process, open."""

    config: Config
    store: Store
    access: Access
    settings: Settings
    audit: Audit
    clusters: Clusters
    approvals: Approvals
    oauth: OAuth
    people: People
    connections: Connections
    issuer_users: IssuerUsers

    def audit_receivers(self) -> Mapping[str, Receiver]:
        """Return the receivers that the audit is forwarded to, as the settings have them now."""
        return _audit_receivers(self.config, self.settings.values)


def _audit_receivers(config: Config, values: Values) -> Mapping[str, Receiver]:
    receivers: dict[str, Receiver] = {}
    if values.audit_syslog:
        fingerprint = values.audit_syslog_fingerprint
        receivers[SYSLOG] = SyslogReceiver(values.audit_syslog, fingerprint)
    if values.audit_file:
        receivers[FILE] = JsonLinesFile(config.state_dir.absolute() / "audit.jsonl")
    return receivers


@asynccontextmanager
async def open_services(state: State) -> AsyncIterator[Services]:
    """Open audit and clusters, follow changes of the state and send notices, while inside."""
    store, settings = state.store, state.settings
    state.access.external.follow(lambda: settings.values.local_sign_in)
    approvals = Approvals(store, state.config.base_url)
    async with (
        open_audit(
            store,
            lambda: settings.values.audit_retention_days,
            lambda: _audit_receivers(state.config, settings.values).keys(),
        ) as audit,
        aclosing(Clusters(store, lambda: settings.values.inventory_freshness_seconds)) as clusters,
        housekeeping(store.fleet.run),
        housekeeping(store.watch.run),
        housekeeping(store.cluster_writes.run),
        housekeeping(store.shared_limits.run) if store.shared_limits else nullcontext(),
        housekeeping(clusters.run_housekeeping),
        housekeeping(approvals.webhook.run),
    ):
        oauth = OAuth(store, audit)
        connections = Connections(store, clusters, state.config.base_url)
        issuer_users = IssuerUsers(
            store, connections, lambda: settings.values, state.config.public_url
        )
        state.access.authenticator.accept(issuer_users)
        await store.fleet.joined()
        await settings.current()  # a command has to know them before the first poll
        async with housekeeping(oauth.run_housekeeping):
            yield Services(
                *(state.config, store, state.access, settings),
                *(audit, clusters, approvals, oauth),
                People(store, clusters, lambda: settings.values),
                connections,
                issuer_users,
            )
