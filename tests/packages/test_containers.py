"""Checks of the compose file and the Dockerfile that need no container engine."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


@service
def test_the_public_url_is_the_published_address(service):
    [published] = service["ports"]
    address, container_port = published.rsplit(":", 1)
    assert container_port == "8811"
    assert f"http://{address}" in service["environment"]["PVEMCP_PUBLIC_URL"]


@service
def test_a_container_writes_to_its_volume_only(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    [volume] = service["volumes"]
    assert volume.endswith(":/var/lib/pvemcp")


def test_the_image_has_the_demo_extra():
    assert "--demo-if-empty" in SERVICES["demo"]["command"]
    assert "./packages/server[demo," in (ROOT / "Dockerfile").read_text()
