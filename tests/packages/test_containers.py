"""Checks of the compose file and the Dockerfile that need no container engine."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
SERVERS = {name: each for name, each in SERVICES.items() if each["image"] == "pvemcp"}
FLEET = {name: each for name, each in SERVERS.items() if each.get("profiles") == ["fleet"]}
BALANCER = ROOT / "deploy" / "fleet" / "haproxy.cfg"

service = pytest.mark.parametrize("service", SERVERS.values(), ids=SERVERS.keys())
published = pytest.mark.parametrize("name", sorted(SERVERS.keys() - FLEET.keys()))


@published
def test_the_public_url_is_the_published_address(name):
    service = SERVERS[name]
    published = service["ports"][0].replace("${PUBLISH_ADDRESS:-127.0.0.1}", "127.0.0.1")
    address, container_port = published.rsplit(":", 1)
    assert container_port == "8811"
    assert f"http://{address}" in service["environment"]["PVEMCP_PUBLIC_URL"]


@service
def test_a_container_writes_to_its_volume_only(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    [volume] = service["volumes"]
    assert volume.endswith(":/var/lib/pvemcp")


def test_the_fleet_is_what_its_balancer_knows():
    assert set(re.findall(r"^ +server (\w+) ", BALANCER.read_text(), re.MULTILINE)) == FLEET.keys()
    balancer = SERVICES["balancer"]
    assert balancer["volumes"][0].startswith(f"./{BALANCER.relative_to(ROOT)}:")
    address = balancer["networks"]["fleet"]["ipv4_address"]
    for server in FLEET.values():
        assert server["environment"]["PVEMCP_TRUSTED_PROXIES"] == address
        assert "@postgresql/" in server["environment"]["PVEMCP_DATABASE_URL"]
        assert server["ports"] == []


def test_the_balancer_accepts_its_configuration():
    if shutil.which("haproxy") is None:
        pytest.skip("no haproxy: apt-get install haproxy to check it")
    subprocess.run(["haproxy", "-c", "-q", "-f", BALANCER], check=True)


def test_the_image_has_the_demo_extra():
    assert "--demo-if-empty" in SERVICES["demo"]["command"]
    script = (ROOT / "scripts/make_environment.sh").read_text()
    assert "demo" in re.search(r"packages/server\[([\w,]+)\]", script)[1].split(",")
    assert "scripts/make_environment.sh" in DOCKERFILE.read_text()


def test_an_image_starts_from_a_digest_or_from_an_earlier_stage():
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE.read_text(), re.MULTILINE)
    names = {name for _, name in stages if name}
    foreign = [image for image, _ in stages if image not in names]
    assert foreign
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image) for image in foreign)


def test_the_health_of_a_container_is_not_asked_like_a_balancer():
    # a stop waits for balancers, and Docker kills after ten seconds
    assert "/readyz?balancer=no" in re.search(r"HEALTHCHECK.*\n.*", DOCKERFILE.read_text())[0]


def test_what_the_dockerfile_copies_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert {f"!{name}" for name in copied} == {line for line in ignored if line.startswith("!")}
