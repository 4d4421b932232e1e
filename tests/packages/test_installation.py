"""What installs the server for good: Debian package, manifests, proxies, and their agreement."""

import configparser
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import hatchling.build as hatchling
import pytest
import yaml
from packaging.requirements import Requirement
from tests.cases import walk

from pvemcp_server.config import Config

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "deploy" / "debian"
KUBERNETES = ROOT / "deploy" / "kubernetes"
SETTINGS = {f"PVEMCP_{name.upper()}" for name in Config.model_fields}
SECRETS = {
    f"PVEMCP_{name.upper()}"
    for name, field in Config.model_fields.items()
    if "SecretStr" in str(field.annotation)
}
SCRIPTS = [
    *ROOT.glob("scripts/*.sh"),
    *ROOT.glob("deploy/**/*.sh"),
    *(DEBIAN / name for name in ("pvemcp", "preinst", "postinst", "prerm", "postrm")),
]
TEXTS = [path for path in ROOT.glob("deploy/**/*") if path.is_file()]
MANIFESTS = [
    document
    for path in sorted(KUBERNETES.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _needed(program: str) -> str:
    """Return a program's path; skip the test without it."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def _projects() -> dict[str, dict[str, Any]]:
    files = ROOT.glob("packages/*/pyproject.toml")
    return {file.parent.name: tomllib.loads(file.read_text()) for file in files}


def _kind(kind: str, name: str) -> dict[str, Any]:
    [found] = [m for m in MANIFESTS if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def test_an_environment_that_is_half_made_is_made_again(tmp_path):
    install = _script("install")
    python = install.python_of(tmp_path / ".venv")
    assert not install.is_usable(tmp_path / ".venv")
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.executable).resolve())  # no pyvenv.cfg: the system's packages
    assert not install.is_usable(tmp_path / ".venv")


def test_the_packages_have_one_version_that_the_server_accepts():
    versions = {each["project"]["version"] for each in _projects().values()}
    [version] = versions
    for file in ROOT.glob("packages/*/pyproject.toml"):
        assert _script("set_version").with_version(file.read_text(), version) == file.read_text()
    assert f"## [{version}] - 20" in (ROOT / "CHANGELOG.md").read_text()
    tags = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["images"]
    assert [tag["newTag"] for tag in tags] == [version]


def test_a_new_version_changes_versions_and_ranges_and_no_name():
    change = _script("set_version").with_version
    text = (ROOT / "packages/server/pyproject.toml").read_text()
    project = tomllib.loads(change(text, "1.4.2"))["project"]
    assert project["version"] == "1.4.2"
    siblings = [each for each in project["dependencies"] if each.startswith("pvemcp-")]
    assert siblings == [f"pvemcp-{name}>=1.4,<1.5" for name in ("bridge", "client", "formats")]
    assert project["optional-dependencies"]["demo"] == ["pvemcp-client[emulator]>=1.4,<1.5"]
    client = (ROOT / "packages/proxmox_client/pyproject.toml").read_text()
    assert tomllib.loads(change(client, "1.4.2"))["project"]["name"] == "pvemcp-client"


def test_uv_takes_every_sibling_package_from_a_checkout():
    server = _projects()["server"]
    siblings = set(server["tool"]["uv"]["sources"])
    named = {re.split(r"[<>=\[]", each)[0] for each in server["project"]["dependencies"]}
    assert siblings == {name for name in named if name.startswith("pvemcp-")}
    for source in server["tool"]["uv"]["sources"].values():
        assert (ROOT / "packages/server" / source["path"] / "pyproject.toml").is_file()


def _siblings_in(metadata: str) -> list[str]:
    """Return the requirements of our own packages: a name with the range or the URL."""
    return re.findall(r"^Requires-Dist: (pvemcp-[^;\n]+)$", metadata, re.MULTILINE)


def _metadata_of_wheel(folder: Path, into: Path) -> str:
    """Build a wheel as pip does; return its metadata."""
    with (
        contextlib.chdir(folder),
        zipfile.ZipFile(into / hatchling.build_wheel(str(into))) as wheel,
    ):
        [name] = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        return wheel.read(name).decode()


def _copy_without_code(checkout: Path) -> Path:
    """Copy what makes the metadata of the server, with its siblings; return its folder."""
    for file in ROOT.glob("packages/*/pyproject.toml"):
        folder = checkout / "packages" / file.parent.name
        folder.mkdir(parents=True)
        shutil.copy(file, folder)
    server = checkout / "packages" / "server"
    (server / "src" / "pvemcp_server").mkdir(parents=True)
    for name in ("hatch_build.py", "README.md", "LICENSE", "src/pvemcp_server/__init__.py"):
        shutil.copy(ROOT / "packages" / "server" / name, server / name)
    return server


def test_a_wheel_has_urls_of_its_siblings_in_a_checkout_only(tmp_path, monkeypatch):
    server, dist = _copy_without_code(tmp_path / "a checkout"), tmp_path / "dist"
    project = _projects()["server"]
    sources = project["tool"]["uv"]["sources"]
    urls = [
        f"{name} @ {(server / source['path']).resolve().as_uri()}"
        for name, source in sources.items()
    ]
    named = project["project"]["dependencies"]
    ranges = [str(Requirement(each)) for each in named if each.startswith("pvemcp-")]
    assert _siblings_in(_metadata_of_wheel(server, dist)) == [*urls, *ranges]
    with contextlib.chdir(server), tarfile.open(dist / hatchling.build_sdist(str(dist))) as file:
        file.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.glob("pvemcp_server-*/")
    assert _siblings_in((unpacked / "PKG-INFO").read_text()) == ranges
    assert _siblings_in(_metadata_of_wheel(unpacked, dist)) == ranges
    monkeypatch.setenv("HATCH_BUILD_NO_HOOKS", "true")
    assert _siblings_in(_metadata_of_wheel(server, dist)) == ranges


RELEASED = [ROOT / "Makefile", ROOT / ".github/workflows/bridge.yml", *ROOT.glob("scripts/*.sh")]


@walk("path", RELEASED)
def test_what_is_released_is_built_without_urls_of_siblings(path):
    text = path.read_text()
    builds = re.search(
        r"pip (wheel|install)\b(.*\\\n)*.*(\./packages/server|\$\(PACKAGES:%=\./)", text
    )
    assert bool(builds) == bool(re.search(r"HATCH_BUILD_NO_HOOKS(=|: \")true", text))


def test_an_environment_that_is_released_names_no_folder_of_its_build():
    text = (ROOT / "scripts/make_environment.sh").read_text()
    assert "-path '*.dist-info/direct_url.json' -delete" in text


def test_the_page_gives_uvx_and_pipx_a_wheel_of_every_sibling():
    examples = [each for each in _script("try_packages").examples() if "/dist/" in each]
    files = {
        f"{name.replace('-', '_')}-*.whl" for name in _projects()["server"]["tool"]["uv"]["sources"]
    }
    for example, option in zip(examples, ("uvx --with", "pipx install --preinstall"), strict=True):
        assert example.startswith(option)
        beside = re.findall(rf" {option.split()[-1]} \S+/dist/(\S+)", example)
        assert set(beside) == files


def _unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(DEBIAN / "pvemcp.service")
    return unit


def test_the_unit_runs_the_packaged_server_on_the_packaged_state():
    service = _unit()["Service"]
    built = (ROOT / "scripts/build_deb.sh").read_text()
    assert service["ExecStart"] == "/usr/lib/pvemcp/bin/pvemcp serve"
    assert '"$root/usr/lib/pvemcp" /usr/lib/pvemcp' in built
    for place in (service["EnvironmentFile"].lstrip("-"), service["LoadCredential"].split(":")[1]):
        assert f"$root{place}" in built
    assert service["Environment"] == "PVEMCP_STATE_DIR=/var/lib/pvemcp"
    assert f"export {service['Environment']}" in (DEBIAN / "pvemcp").read_text()


def test_the_journal_gets_no_one_time_password():
    assert _unit()["Service"]["StandardOutput"] == "null"  # where the first start prints it


def test_systemd_rates_the_unit_as_hardened():
    analyze = _needed("systemd-analyze")
    options = ("security", "--offline=true", "--threshold=20", "--no-pager")
    rated = subprocess.run(
        [analyze, *options, DEBIAN / "pvemcp.service"], capture_output=True, text=True, check=False
    )
    assert rated.returncode == 0, rated.stdout + rated.stderr


def test_the_packaged_configuration_names_settings_and_credentials_only():
    text = (DEBIAN / "pvemcp.env").read_text()
    assert set(re.findall(r"^#(PVEMCP_\w+)=", text, re.MULTILINE)) < SETTINGS - SECRETS
    named = re.search(r"named without PVEMCP_: ([\w,\s#]+)\.", text)[1]
    assert {f"PVEMCP_{name}" for name in re.findall(r"[A-Z_]+", named)} == SECRETS


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_the_packaged_command_refuses_other_users_in_one_line():
    process = subprocess.run(
        ["sh", "-s", "keys", "list"],
        input=(DEBIAN / "pvemcp").read_text(),
        capture_output=True,
        text=True,
        user=65534,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.endswith("as root: sudo pvemcp keys list\n")
    assert len(process.stderr.splitlines()) == 1


@pytest.fixture
def open_folder():
    """Return a folder that every user reaches, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason="the script runs as root only")
def test_names_of_backups_make_an_upgrade_delete_nothing_else(open_folder):
    script = (DEBIAN / "preinst").read_text()
    for text, other in {
        "/usr/lib/pvemcp/bin/pvemcp": "/bin/true",
        "/var/lib/pvemcp": str(open_folder),
        "--reuid=pvemcp --regid=pvemcp": "--reuid=65534 --regid=65534",
        "! pvemcp backup": "! true",
    }.items():
        assert text in script
        script = script.replace(text, other)
    victim, folder = open_folder / "victim", open_folder / "backups"
    misleading = folder / f"a {victim} /before-package-0.jsonl.gz"
    for file in (victim, open_folder / "server.lock", misleading):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for number in range(8, 16):
        file = folder / f"before-package-0.{number}\n{victim.name}.jsonl.gz"
        file.touch()
        os.utime(file, (number, number))
    for place in (folder, *folder.rglob("*")):
        os.chown(place, 65534, 65534)
    run = ["sh", "-s", "upgrade", "0.1"]
    subprocess.run(run, input=script, text=True, check=True, cwd=open_folder)
    kept = {each.name.split("\n")[0] for each in folder.glob("before-*")}
    assert victim.exists()
    assert kept == {f"before-package-0.{number}" for number in range(11, 16)}


@pytest.mark.skipif(os.getuid() != 0, reason="the script runs as root only")
@pytest.mark.parametrize("checksum", ["right", "wrong"])
def test_the_script_for_containers_checks_what_it_downloads(checksum, tmp_path):
    release = platform.freedesktop_os_release()
    if release["ID"] != "debian" or release["VERSION_ID"] not in ("12", "13"):
        pytest.skip("the script is for Debian 12 and 13")
    programs, files = tmp_path / "programs", tmp_path / "files"
    for folder in (programs, files, tree := tmp_path / "tree" / "DEBIAN"):
        folder.mkdir(parents=True)
    (tree / "control").write_text("Package: x\nVersion: 9\nArchitecture: all\nMaintainer: x\n")
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    )
    name = f"pvemcp-deb{release['VERSION_ID']}-{machine.stdout.strip()}.deb"
    build = ["dpkg-deb", "--root-owner-group", "--build", tree.parent, files / name]
    subprocess.run(build, check=True, capture_output=True)
    digest = hashlib.sha256((files / name).read_bytes()).hexdigest()
    text = digest if checksum == "right" else "0" * 64
    (files / f"{name}.sha256").write_text(f"{text}  {name}\n")
    calls = tmp_path / "calls"
    for program, body in {
        "curl": f'cp "{files}/$(basename "${{@: -1}}")" .',
        "apt-get": f'echo "$*" >>{calls}',
        "systemctl": "true",
        "dpkg-query": "echo installed 8",
    }.items():
        (programs / program).write_text(f"#!/bin/bash\n{body}\n")
        (programs / program).chmod(0o755)
    process = subprocess.run(
        ["bash", ROOT / "deploy/lxc/install.sh", "owner/pvemcp"],
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if checksum == "right":
        assert process.stdout == "pvemcp 9 is installed and runs.\n", process.stderr
        assert name in calls.read_text()
    else:
        assert f"has no valid {name}" in process.stderr
        assert not calls.exists()


@walk("script", SCRIPTS)
def test_a_shell_script_parses(script):
    shell = (script.read_text().splitlines()[0]).removeprefix("#!")
    subprocess.run([shell, "-n", script], check=True)


def test_shellcheck_finds_nothing():
    subprocess.run([_needed("shellcheck"), *SCRIPTS], check=True)


def test_a_script_of_the_package_stops_at_the_first_error():
    for script in SCRIPTS:
        assert re.search(r"^set -eu", script.read_text(), re.MULTILINE), script


def test_compose_passes_every_variable_that_a_container_can_have():
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["pvemcp"]
    fixed = {"PVEMCP_HOST", "PVEMCP_PORT", "PVEMCP_STATE_DIR", "PVEMCP_MASTER_KEY_FILE"}
    exported = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"}
    assert set(service["environment"]) == SETTINGS - fixed | exported
    for name, value in service["environment"].items():
        assert value.startswith(f"${{{name}:-"), name


def test_the_manifests_name_settings_and_paths_that_exist():
    [container] = _kind("Deployment", "pvemcp")["spec"]["template"]["spec"]["containers"]
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    literals = kustomization["configMapGenerator"][0]["literals"]
    named = {each["name"] for each in container["env"]} | {each.split("=")[0] for each in literals}
    assert named < SETTINGS
    probes = {container[each]["httpGet"]["path"] for each in container if each.endswith("Probe")}
    health = (ROOT / "packages/server/src/pvemcp_server/http/health.py").read_text()
    assert probes == {"/healthz", "/readyz"}
    assert all(f'"{path}"' in health for path in probes)
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(kustomization["resources"])


def test_replicas_share_postgresql_and_the_master_key():
    spec = _kind("Deployment", "pvemcp")["spec"]
    [container] = spec["template"]["spec"]["containers"]
    secret = {each["name"] for each in container["env"] if "valueFrom" in each}
    assert spec["replicas"] > 1
    assert {"PVEMCP_DATABASE_URL", "PVEMCP_MASTER_KEY"} <= secret
    assert not spec["template"]["spec"]["enableServiceLinks"]  # else PVEMCP_PORT is a URL
    install = (ROOT / "docs/users/install.md").read_text()
    for each in secret | {"POSTGRES_PASSWORD"}:
        assert f"--from-literal={each}=" in install


def test_a_pod_runs_as_the_user_of_the_image():
    pod = _kind("Deployment", "pvemcp")["spec"]["template"]["spec"]
    user = re.search(r"--uid (\d+)", (ROOT / "Dockerfile").read_text())[1]
    assert pod["securityContext"]["runAsUser"] == int(user)


def test_the_manifests_fit_the_schemas_of_kubernetes():
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    for manifest in MANIFESTS:
        if manifest["kind"] != "Kustomization":
            validate.validate(manifest, validate.latest_version(), strict=True)


def test_kubectl_builds_the_manifests_with_the_released_image():
    build = [_needed("kubectl"), "kustomize", KUBERNETES]
    built = list(
        yaml.safe_load_all(subprocess.run(build, check=True, stdout=subprocess.PIPE).stdout)
    )
    assert len(built) == len(MANIFESTS)  # the configuration in place of the kustomization
    [deployment] = [each for each in built if each["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"pvemcp:{_projects()['server']['project']['version']}"
    assert {each["metadata"].get("namespace", "pvemcp") for each in built} == {"pvemcp"}


@walk("path", TEXTS)
def test_a_file_of_a_deployment_names_no_registry(path):
    assert not re.search(r"\b(ghcr|docker|quay|gcr)\.io\b|pypi|npmjs", path.read_text())


@pytest.fixture(scope="module")
def proxies() -> ModuleType:
    return _script("try_proxies")


@pytest.mark.parametrize("prefix", ["", "/pve"])
@pytest.mark.parametrize("name", ["nginx", "haproxy", "caddy"])
def test_the_example_of_a_proxy_is_accepted_by_it(name, prefix, proxies, tmp_path, monkeypatch):
    program = _needed(name)
    monkeypatch.setenv("PATH", f"{Path(program).parent}:{os.environ['PATH']}")
    _needed("openssl")
    text = proxies.example(name)
    if prefix:
        text = text.replace(*proxies.prefixed(name))
        assert prefix in text
    proxies.certificate(tmp_path)
    command = proxies.PROXIES[name](proxies.localized(text, tmp_path), tmp_path)
    if name == "caddy":
        adapt = [program, "adapt", "--adapter", "caddyfile", "--config", command[-1]]
        subprocess.run(adapt, check=True, capture_output=True)


def test_the_example_of_traefik_is_yaml_with_both_rules(proxies):
    dynamic = yaml.safe_load(proxies.example("yaml"))["http"]
    assert dynamic["routers"]["pvemcp"]["service"] in dynamic["services"]


def test_the_entry_of_the_registry_names_the_release_and_its_checksum(tmp_path):
    bundle = tmp_path / "pvemcp-bridge.mcpb"
    bundle.write_bytes(b"bundle")
    entry = json.loads(json.dumps(_script("make_server_json").server("owner/pvemcp", bundle)))
    [package] = entry["packages"]
    version = _projects()["bridge"]["project"]["version"]
    assert entry["version"] == package["version"] == version
    assert package["identifier"].endswith(f"/releases/download/v{version}/pvemcp-bridge.mcpb")
    assert re.fullmatch(r"[0-9a-f]{64}", package["fileSha256"])
    assert len(entry["description"]) <= 100
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", entry["name"])
    secret = [each["name"] for each in package["environmentVariables"] if each["isSecret"]]
    assert secret == ["MCP_API_KEY"]


def test_set_version_refuses_what_is_no_version():
    script = ROOT / "scripts" / "set_version.py"
    process = subprocess.run(
        [sys.executable, script, "0.3"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    assert "no version like" in process.stderr
