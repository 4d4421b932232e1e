"""What the docstrings of the calls promise, held against the schema of the API."""

import inspect
import json
import re

import pytest

from proxmox_client import Client, Lxc, Node, Qemu, Storage, Task, schema
from proxmox_client.api.access import Access
from proxmox_client.api.cluster import Cluster

REQUEST = re.compile(r"(GET|POST|DELETE) ([/…]\S*?)[.,]?(?=\s|$)")
PRIVILEGE = re.compile(r"\b(?:VM|Sys|Datastore|Pool)\.[A-Z][A-Za-z.]+[A-Za-z]")
GUEST = {Qemu: "/nodes/{node}/qemu/{vmid}", Lxc: "/nodes/{node}/lxc/{vmid}"}
# these look at what another method asked for, or ask several
DERIVED = {"aclose", "raw", "guest", "follow", "wait", "outcome", "tail", "current_snapshot"}


def calls() -> list:
    found = []
    for owner in (Client, Cluster, Access, Node, Qemu, Lxc, Storage, Task):
        for name, method in inspect.getmembers(owner, inspect.iscoroutinefunction):
            if not name.startswith("_") and name not in DERIVED:
                found.append(pytest.param(owner, method, id=f"{owner.__name__}.{name}"))
    return found


def endpoint(owner, method):
    """The endpoint that the docstring's first line names, in the newest schema."""
    request = REQUEST.match(inspect.getdoc(method))
    assert request, f"{method.__qualname__} does not begin with its request line"
    path = request[2].replace("…", GUEST.get(owner, "…"))
    path = path.replace("{name}", "{snapname}").replace("{action}", "start")
    known = {(one.method, one.path): one for one in schema.load("9.2").endpoints}
    assert (request[1], path) in known
    return known[request[1], path]


@pytest.mark.parametrize(("owner", "method"), calls())
def test_every_call_begins_with_a_request_line_of_the_api_and_names_its_source(owner, method):
    assert endpoint(owner, method)
    assert re.search(r"\nSource: PVE/API2(/\w+)*\.pm", inspect.getdoc(method))


@pytest.mark.parametrize(("owner", "method"), calls())
def test_a_call_names_a_privilege_that_the_schema_asks_for(owner, method):
    """Quirk 36: who may do what is part of what a call is."""
    asked = set(PRIVILEGE.findall(json.dumps(endpoint(owner, method).permissions)))
    named = set(PRIVILEGE.findall(inspect.getdoc(method)))
    assert asked & named or not asked
