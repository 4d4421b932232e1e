"""The compose file, as far as it can be read without an engine."""

from pathlib import Path

import pytest
import yaml

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]

service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


@service
def test_a_container_tells_the_address_at_which_it_is_published(service):
    [published] = service["ports"]
    address, inside = published.rsplit(":", 1)
    assert inside == "8811"
    assert f"http://{address}" in service["environment"]["PVEMCP_PUBLIC_URL"]


@service
def test_a_container_changes_nothing_but_its_volume(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    [volume] = service["volumes"]
    assert volume.endswith(":/var/lib/pvemcp")
