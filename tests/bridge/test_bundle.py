"""The bridge in one file: the zipapp and the Claude Desktop extension, run as a user gets them."""

import io
import json
import re
import stat
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from packaging.requirements import Requirement

from pvemcp_bridge import bundle
from pvemcp_bridge.options import OPTIONS, settings

HERE = Path(__file__).parent
KEY = "bundle-key-0123456789"
URL = "https://pve.example:8811/mcp"
# without the packages of the tests' environment
PYTHON = Path(sys.base_prefix, "python.exe" if sys.platform == "win32" else "bin/python3")


@pytest.fixture(scope="module")
def server():
    """Start a server made with the SDK; give the URL of its endpoint."""
    process = subprocess.Popen(
        [sys.executable, HERE / "sdk_server.py", "--key", KEY], stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory):
    """Give the zipapp as a download, which is not executable."""
    file = tmp_path_factory.mktemp("zip app") / bundle.ZIPAPP
    file.write_bytes(bundle.zipapp())
    return file


@pytest.fixture(scope="module")
def manifest():
    """Give the manifest of the extension."""
    return bundle.manifest(URL)


def clean(folder, **more):
    """Return an environment that holds nothing of the tests' own."""
    home = dict.fromkeys(("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"), str(folder))
    return {"PATH": "/usr/bin:/bin", **home, **more}


async def greeting(parameters):
    """Return what a client reads through the bridge."""
    async with Client(parameters) as client:
        return (await client.call_tool("echo", {"text": "grün"})).content[0].text


@pytest.mark.e2e
@pytest.mark.anyio
async def test_the_zipapp_carries_a_call_on_a_python_without_packages(server, zipapp, tmp_path):
    environment = clean(tmp_path, MCP_URL=server, MCP_API_KEY=KEY)
    command = StdioServerParameters(
        command=str(PYTHON), args=["-I", str(zipapp)], env=environment, cwd=tmp_path
    )
    assert await greeting(command) == "grün"


@pytest.mark.e2e
def test_the_zipapp_installs_itself_with_full_paths(zipapp, tmp_path):
    command = [PYTHON, "-I", zipapp.name, "install", "--client", "cursor", "--yes", "--url", URL]
    done = subprocess.run(
        command, cwd=zipapp.parent, env=clean(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / ".cursor" / "mcp.json").read_text())
    entry = config["mcpServers"]["pvemcp"]
    assert Path(entry["command"]).is_absolute()
    assert entry["args"] == [str(zipapp)]


def started(manifest, folder, values):
    """Return the server's command as a host makes it of the manifest, the folder and settings."""
    defaults = {name: each["default"] for name, each in manifest["user_config"].items()}
    known = {f"user_config.{name}": value for name, value in {**defaults, **values}.items()}
    known["__dirname"] = str(folder)

    def filled(text):
        return re.sub(r"\$\{([\w.]+)\}", lambda match: known.get(match[1], match[0]), text)

    config = manifest["server"]["mcp_config"]
    environment = {name: filled(value) for name, value in config["env"].items()}
    return config["command"], list(map(filled, config["args"])), environment


@pytest.mark.e2e
@pytest.mark.anyio
async def test_the_extension_carries_a_call_when_it_starts_as_its_manifest_says(server, tmp_path):
    folder = tmp_path / "extension"
    with zipfile.ZipFile(io.BytesIO(bundle.extension(server))) as archive:
        archive.extractall(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    command, arguments, environment = started(manifest, folder, {"api_key": KEY})
    uv = Path(sys.executable).with_name(command)
    more = {"UV_OFFLINE": "1", "UV_PYTHON": str(PYTHON)}
    parameters = StdioServerParameters(
        command=str(uv), args=arguments, env=clean(tmp_path, **more, **environment), cwd=tmp_path
    )
    assert environment["MCP_URL"] == server
    assert await greeting(parameters) == "grün"


def test_a_bundle_holds_all_that_the_bridge_needs_and_nothing_else():
    """Follow the declared dependencies over all systems and versions, but for the keychain."""
    environments = [
        {"python_version": version, "python_full_version": f"{version}.0", **system}
        for version in ("3.11", "3.12", "3.13", "3.14")
        for system in (
            {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
            {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
            {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
        )
    ]
    needed, found = ["pvemcp-bridge"], set()
    while needed:
        name = needed.pop()
        found.add(name.replace("_", "-").lower())
        for requirement in map(Requirement, distribution(name).requires or ()):
            marker = requirement.marker
            applies = not marker or any(marker.evaluate({"extra": "", **e}) for e in environments)
            if applies and requirement.name.replace("_", "-").lower() not in {*found, "keyring"}:
                needed.append(requirement.name)
    assert found == set(bundle.DISTRIBUTIONS)


def test_the_same_packages_make_the_same_bytes():
    assert bundle.zipapp() == bundle.zipapp()
    assert bundle.extension(URL) == bundle.extension(URL)


@pytest.mark.parametrize("content", [bundle.zipapp(), bundle.extension(URL)], ids=["pyz", "mcpb"])
def test_a_bundle_is_small_and_has_licenses_and_no_compiled_file(content):
    assert len(content) < 1_000_000
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    assert {Path(name).suffix for name in names if "dist-info" not in name} <= {
        *(".py", ".json", ".toml"),
    }
    for each in bundle.DISTRIBUTIONS:
        folder = f"{each.replace('-', '_')}-{distribution(each).version}.dist-info"
        assert any(f"{folder}/licenses/" in name for name in names), each
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {stat.S_IMODE(entry.external_attr >> 16) for entry in entries} == {0o644}


def test_every_setting_becomes_a_variable_that_the_bridge_reads(manifest):
    environment = manifest["server"]["mcp_config"]["env"]
    assert environment.keys() <= {option.variable for option in OPTIONS}
    matches = [re.fullmatch(r"\$\{user_config\.(\w+)\}", value) for value in environment.values()]
    names = [match[1] for match in matches]
    assert sorted(names) == sorted(manifest["user_config"])


def test_the_key_is_sensitive_and_not_an_argument(manifest):
    assert manifest["user_config"]["api_key"]["sensitive"] is True
    assert not [word for word in manifest["server"]["mcp_config"]["args"] if "user_config" in word]


def test_the_url_is_filled_in_and_no_setting_has_to_be(manifest):
    shown = manifest["user_config"]
    assert {name: each["default"] for name, each in shown.items()} == {
        "url": URL,
        "api_key": "",
        "fingerprint": "",
    }
    assert not any(each["required"] for each in shown.values())


def test_the_manifest_names_a_program_for_uv_without_dependencies(manifest):
    server = manifest["server"]
    assert (manifest["manifest_version"], server["type"]) == ("0.4", "uv")
    with zipfile.ZipFile(io.BytesIO(bundle.extension(URL))) as archive:
        assert {server["entry_point"], "pyproject.toml"} <= set(archive.namelist())
        assert b"dependencies = []" in archive.read("pyproject.toml")


def test_a_setting_that_a_host_left_out_counts_as_empty():
    environment = {"MCP_URL": URL, "MCP_API_KEY": "${user_config.api_key}"}
    assert not settings({}, environment).target.has_key


def test_an_old_python_reads_what_the_zipapp_needs(zipapp):
    with zipfile.ZipFile(zipapp) as archive:
        text = archive.read("__main__.py").decode()
    assert text.index("sys.version_info") < text.index("from pvemcp_bridge")
    assert 'f"' not in text
