"""A typed async client for the Proxmox VE API.

`Client` stands for one cluster, `BackupServer` for one Proxmox Backup Server. The other names are
their arguments (`ApiToken`, `Password`, `Ticket`, `Tls`, `Limits`), results (frozen Structs of
`proxmox_client.api`) and errors (`ProxmoxError`).
"""

from proxmox_client.api.access import NewToken, Realm
from proxmox_client.api.lxc import Lxc
from proxmox_client.api.nodes import Node
from proxmox_client.api.qemu import Qemu
from proxmox_client.api.sign_in import OpenIdRequest, SecondFactor
from proxmox_client.api.storage import Storage
from proxmox_client.api.tasks import Task, TaskOutcome, TaskProgress
from proxmox_client.auth import ApiToken, Credential, Password, Ticket, Totp
from proxmox_client.backup_server import BackupServer
from proxmox_client.circuit_breaker import Circuits
from proxmox_client.client import Client
from proxmox_client.errors import (
    AgentRefused,
    BadParameters,
    Conflict,
    DeadlineExceeded,
    Delayed,
    Forbidden,
    MethodMissing,
    NodeSilent,
    NodeUnreachable,
    NoQuorum,
    NotFound,
    OutdatedDigest,
    PlainPort,
    ProxmoxError,
    ResponseError,
    TaskFailed,
    TlsError,
    Unauthenticated,
    UnexpectedAnswer,
    Unreachable,
)
from proxmox_client.json_decoder import tolerate_malformed
from proxmox_client.limits import Limits, deadline, requester
from proxmox_client.sockets import SocketBudget
from proxmox_client.tls import Tls, fetch_fingerprint, is_trusted, tls_fault, tls_reason
from proxmox_client.transport import Exchange
from proxmox_client.upid import Upid

__all__ = [
    "AgentRefused",
    "ApiToken",
    "BackupServer",
    "BadParameters",
    "Circuits",
    "Client",
    "Conflict",
    "Credential",
    "DeadlineExceeded",
    "Delayed",
    "Exchange",
    "Forbidden",
    "Limits",
    "Lxc",
    "MethodMissing",
    "NewToken",
    "NoQuorum",
    "Node",
    "NodeSilent",
    "NodeUnreachable",
    "NotFound",
    "OpenIdRequest",
    "OutdatedDigest",
    "Password",
    "PlainPort",
    "ProxmoxError",
    "Qemu",
    "Realm",
    "ResponseError",
    "SecondFactor",
    "SocketBudget",
    "Storage",
    "Task",
    "TaskFailed",
    "TaskOutcome",
    "TaskProgress",
    "Ticket",
    "Tls",
    "TlsError",
    "Totp",
    "Unauthenticated",
    "UnexpectedAnswer",
    "Unreachable",
    "Upid",
    "deadline",
    "fetch_fingerprint",
    "is_trusted",
    "requester",
    "tls_fault",
    "tls_reason",
    "tolerate_malformed",
]
