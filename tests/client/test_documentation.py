"""Docstrings of the calls, compared with the API schema."""

import inspect
import json
import re
from pathlib import Path

import pytest
from tests.cases import walk

from proxmox_client import BackupServer, Client, Lxc, Node, Qemu, Storage, Task, schema
from proxmox_client.api.access import Access
from proxmox_client.api.cluster import ClusterApi
from proxmox_client.api.sign_in import SignIn

TESTS = Path(__file__).parents[1]
REQUEST = re.compile(r"(GET|POST|PUT|DELETE) ([/…]\S*?)[.,]?(?=\s|$)")
PRIVILEGE = re.compile(r"\b(?:VM|Sys|Datastore|Pool)\.[A-Z][A-Za-z.]+[A-Za-z]")
GUEST = {Qemu: "/nodes/{node}/qemu/{vmid}", Lxc: "/nodes/{node}/lxc/{vmid}"}
# no request of their own, or several
DERIVED = {
    "aclose",
    "raw",
    "find_quorum",
    "guest",
    "follow",
    "wait",
    "outcome",
    "tail",
    "current_snapshot",
}


def calls() -> list:
    params = []
    for owner in (Client, ClusterApi, Access, SignIn, Node, Qemu, Lxc, Storage, Task):
        for name, method in inspect.getmembers(owner, inspect.iscoroutinefunction):
            if not name.startswith("_") and name not in DERIVED:
                params.append(pytest.param(owner, method, id=f"{owner.__name__}.{name}"))
    return params


def endpoint(owner, method):
    """Return the endpoint in the docstring's first line, from the newest schema."""
    request = REQUEST.match(inspect.getdoc(method))
    assert request, f"{method.__qualname__} does not start with its request line"
    path = request[2].replace("…", GUEST.get(owner, "…"))
    path = path.replace("{name}", "{snapname}").replace("{action}", "start")
    endpoints = {(each.method, each.path): each for each in schema.load("9.2").endpoints}
    assert (request[1], path) in endpoints
    return endpoints[request[1], path]


@walk(("owner", "method"), calls())
def test_every_call_documents_its_request_line_and_source(owner, method):
    assert endpoint(owner, method)
    assert re.search(r"\nSource: PVE/API2(/\w+)*\.pm", inspect.getdoc(method))


@walk(("owner", "method"), calls())
def test_every_call_documents_a_required_privilege(owner, method):
    # Quirk 36.
    required = set(PRIVILEGE.findall(json.dumps(endpoint(owner, method).permissions)))
    documented = set(PRIVILEGE.findall(inspect.getdoc(method)))
    assert required & documented or not required


@walk(
    ("name", "method"),
    [
        (name, method)
        for name, method in inspect.getmembers(BackupServer, inspect.iscoroutinefunction)
        if not name.startswith("_") and name not in DERIVED
    ],
)
def test_every_call_of_a_backup_server_documents_its_request_needs_and_source(name, method):
    text = inspect.getdoc(method)
    assert re.match(r"GET /\S+\. Needs ", text), name
    assert re.search(r"\nSource: src/api2(/\w+)+\.rs\.", text), name


def test_every_quirk_in_a_comment_is_on_the_page_of_quirks():
    page = (TESTS.parent / "docs" / "contributors" / "proxmox-quirks.md").read_text()
    described = set(re.findall(r"^(\d+)\. ", page, re.MULTILINE))
    tests = [*(TESTS / "client").rglob("test_*.py"), *(TESTS / "emulator").rglob("test_*.py")]
    text = "\n".join(path.read_text() for path in tests)
    comments = re.findall(r"\bQuirks? (\d+(?:(?:, | and )\d+)*)", text)
    cited = {number for comment in comments for number in re.findall(r"\d+", comment)}
    assert cited
    assert cited <= described
