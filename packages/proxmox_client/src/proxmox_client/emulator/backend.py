"""The backend of an emulated cluster: its state and the services that the endpoints use."""

from proxmox_client import schema
from proxmox_client.emulator.auth.authentication import Authentication
from proxmox_client.emulator.auth.openid import OpenId
from proxmox_client.emulator.auth.tickets import TicketIssuer
from proxmox_client.emulator.cluster_resources import ClusterResources
from proxmox_client.emulator.faults import Faults
from proxmox_client.emulator.proxy import Proxy
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.tasks.runner import TaskRunner


class Backend:
    """State and services of one cluster, without network sockets."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self.schema = schema.load(state.version)
        self.tasks = TaskRunner(state)
        self.faults = Faults(state.clock, state.seed)
        self.proxy = Proxy(state, self.faults)
        self.tickets = TicketIssuer()
        self.authentication = Authentication(state, self.tickets)
        self.openid = OpenId(state)
        self.resources = ClusterResources(state)
