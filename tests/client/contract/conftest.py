"""An emulated cluster of each flavour, and clients that sign in to it in every way."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest

from proxmox_client import ApiToken, Client, Limits, Password, Tls, Totp
from proxmox_client.api import tasks
from proxmox_client.emulator import Clock, EmulatedCluster, Emulator, Scenario
from proxmox_client.emulator.state.user_config import AclEntry, SecondFactor, Token, User

PACE = 200.0
SECRET = "JBSWY3DPEHPK3PXP"


@pytest.fixture(params=["8.4", "9.2"])
def version(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch) -> None:
    """The cluster's time runs 200 times as fast, so tasks are looked at more often."""
    monkeypatch.setattr(tasks, "_pauses", lambda: iter(lambda: 0.01, None))


@pytest.fixture
async def lab(version) -> AsyncIterator[EmulatedCluster]:
    """Three nodes and twelve guests from 100 on; 103 and 107 are stopped, 104 is a container."""
    scenario = Scenario.cluster("lab", version=version, nodes=3, guests=12)
    async with Emulator(scenario, clock=Clock(PACE)) as pve:
        yield pve["lab"]


@pytest.fixture
async def signed_in(lab) -> AsyncIterator[Callable[..., Client]]:
    """Make a client of the lab for an account, the one with every right unless told."""
    async with AsyncExitStack() as stack:

        def make(auth: ApiToken | Password | None = None, **more: Any) -> Client:
            tls = Tls(fingerprints=lab.fingerprints.values())
            hosts = more.pop("hosts", lab.hosts)
            client = Client(hosts, auth or ApiToken(*lab.token), tls=tls, limits=Limits(**more))
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
def client(signed_in) -> Client:
    return signed_in()


@pytest.fixture
def with_totp(lab) -> Password:
    """An administrator with a second factor."""
    user = User("bob@pve", password="correct horse")
    user.factors.append(SecondFactor("totp1", "totp", SECRET))
    lab.state.user_config.users[user.userid] = user
    lab.state.user_config.acl.append(AclEntry("/", "user", user.userid, "Administrator"))
    return Password(user.userid, user.password, totp=Totp(SECRET, clock=lab.state.clock.now))


@pytest.fixture
def powerless(lab) -> ApiToken:
    """A token with privilege separation and nothing granted to it."""
    lab.state.user_config.users["mcp@pve"].tokens["none"] = Token("none", "n0thing")
    return ApiToken("mcp@pve!none", "n0thing")


@pytest.fixture
def faulty(lab) -> Callable[..., Any]:
    """Let something go wrong for the length of a block."""

    @contextmanager
    def during(kind: str, **details: Any) -> Iterator[Any]:
        fault = lab.fault(kind, **details)
        yield fault
        lab.faults.remove(fault)

    return during


@pytest.fixture(params=["token", "password", "second factor"])
def account(request, lab, with_totp) -> ApiToken | Password:
    """An account with every right, by each way to sign in."""
    return {
        "token": ApiToken(*lab.token),
        "password": Password(*lab.password),
        "second factor": with_totp,
    }[request.param]
