"""The compose file and the Dockerfile, as far as they can be read without an engine."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
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


def test_an_image_starts_from_a_digest_or_from_an_earlier_stage():
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE.read_text(), re.MULTILINE)
    names = {name for _, name in stages if name}
    foreign = [image for image, _ in stages if image not in names]
    assert foreign
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image) for image in foreign)
