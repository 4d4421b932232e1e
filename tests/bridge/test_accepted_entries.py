"""Entries of clients against what their clients accept, as `accepted_entries.yaml` has it."""

import json
from base64 import b64decode
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import jsonschema
import pytest
import yaml

from pvemcp_bridge.clients import CLIENTS, Connection

FACTS = yaml.safe_load((Path(__file__).parent / "accepted_entries.yaml").read_text())
FACTS.pop("$defs")
URL = "https://pve.example/mcp"
CONNECTIONS = (
    Connection(URL, "pvemcp_secret-key"),
    Connection(URL, name="my lab"),
    Connection("http://[fd00::1]:8811/mcp", "k", command=("C:\\py.exe", "C:\\x\\bridge.pyz")),
    Connection(URL, "k", options={"MCP_CA_FILE": "/etc/ca.pem"}),
)


def accepted(name, way, entry):
    """Raise ValidationError for an entry that the client would not accept."""
    schema = FACTS[name][way]
    jsonschema.validate(entry, {"type": "object", "additionalProperties": False, **schema})


def linked(link):
    """Return the name and the entry that the program reads from an install link."""
    parts = urlsplit(link)
    if parts.scheme == "vscode":
        entry = json.loads(unquote(parts.query))
        return entry.pop("name"), entry
    values = parse_qs(parts.query, strict_parsing=True)
    (name,) = values["name"]
    if "config" in values:
        (config,) = values["config"]
        return name, json.loads(b64decode(config, validate=True))
    headers = dict(each.split("=") for each in values.get("header", ()))  # as goose splits them
    return name, {
        "enabled": True,
        "type": values["type"][0],
        "name": name,
        "description": values["description"][0],
        "uri": values["url"][0],
        **({"headers": headers} if headers else {}),
    }


def test_each_client_is_a_real_one_or_has_the_facts_of_its_entries():
    assert list(FACTS) == list(CLIENTS)
    for name, facts in FACTS.items():
        kind = facts["checked"].partition(":")[0]
        assert kind in {"real client", "published schema", "source", "documentation"}
        assert kind == "real client" or "local" in facts
        assert ("remote" in facts) == bool(CLIENTS[name].remote and "local" in facts), name


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if "local" in facts])
def test_the_entries_are_accepted(name):
    client = CLIENTS[name]
    for connection in CONNECTIONS:
        accepted(name, "local", client.entry(connection))
        if client.remote:
            accepted(name, "remote", client.entry(connection, bridged=False))


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if client.link])
def test_the_entry_of_an_install_link_is_accepted(name):
    client = CLIENTS[name]
    for connection in CONNECTIONS:
        found, entry = linked(client.link(connection))
        assert found == connection.name
        accepted(name, "remote", entry)
        written = client.entry(connection, bridged=False)
        assert entry.get("headers", {}) == written.get("headers", {})
