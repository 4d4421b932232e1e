"""Fixtures: an emulated cluster of each version, and clients with every kind of account."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest

from proxmox_client import ApiToken, Client, Limits, Password, Tls, Totp
from proxmox_client.api import tasks
from proxmox_client.emulator import Clock, EmulatedCluster, Emulator, Scenario
from proxmox_client.emulator.state.user_config import AclEntry, SecondFactor, Token, User

SPEED = 200.0
SECRET = "JBSWY3DPEHPK3PXP"


@pytest.fixture(params=["8.4", "9.2"])
def version(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def short_poll_steps(monkeypatch) -> None:
    """Poll tasks often: the cluster's clock runs 200 times as fast."""
    monkeypatch.setattr(tasks, "poll_steps", lambda: iter(lambda: 0.01, None))


@pytest.fixture
async def lab(version) -> AsyncIterator[EmulatedCluster]:
    """Start a cluster of three nodes with guests 100 to 111.

    103 and 107 are stopped, 104 is a container.
    """
    scenario = Scenario.cluster("lab", version=version, nodes=3, guests=12)
    async with Emulator(scenario, clock=Clock(SPEED)) as pve:
        yield pve["lab"]


@pytest.fixture
async def client_as(lab) -> AsyncIterator[Callable[..., Client]]:
    """Provide a function that creates a client; the default account has all privileges."""
    async with AsyncExitStack() as stack:

        def make(auth: ApiToken | Password | None = None, **options: Any) -> Client:
            tls = Tls(fingerprints=lab.fingerprints.values())
            hosts = options.pop("hosts", lab.hosts)
            client = Client(hosts, auth or ApiToken(*lab.token), tls=tls, limits=Limits(**options))
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
def client(client_as) -> Client:
    return client_as()


@pytest.fixture
def with_totp(lab) -> Password:
    """Add an administrator with a second factor."""
    user = User("bob@pve", password="correct horse")
    user.factors.append(SecondFactor("totp1", "totp", SECRET))
    lab.state.user_config.users[user.userid] = user
    lab.state.user_config.acl.append(AclEntry("/", "user", user.userid, "Administrator"))
    return Password(user.userid, user.password, totp=Totp(SECRET, clock=lab.state.clock.now))


@pytest.fixture
def unprivileged(lab) -> ApiToken:
    """Add a token with privilege separation and without any privilege."""
    lab.state.user_config.users["mcp@pve"].tokens["none"] = Token("none", "n0thing")
    return ApiToken("mcp@pve!none", "n0thing")


@pytest.fixture
def inject_fault(lab) -> Callable[..., Any]:
    """Provide a context manager that injects a fault into the cluster."""

    @contextmanager
    def inject(kind: str, **details: Any) -> Iterator[Any]:
        fault = lab.fault(kind, **details)
        yield fault
        lab.faults.remove(fault)

    return inject


@pytest.fixture(params=["token", "password", "second factor"])
def account(request, lab, with_totp) -> ApiToken | Password:
    """Return an account with all privileges, by each way to sign in."""
    return {
        "token": ApiToken(*lab.token),
        "password": Password(*lab.password),
        "second factor": with_totp,
    }[request.param]
