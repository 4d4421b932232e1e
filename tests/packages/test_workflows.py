"""What the workflows may do and install, so that a release is signed only over locked inputs."""

import json
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cases import walk

from pvemcp_bridge import bundle

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.name: path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")}
LOCKED = sorted(ROOT.glob("constraints*.txt"))

# Each job that holds more than `contents: read`, and all that it holds
PERMISSIONS = {
    "attest": {"id-token": "write", "attestations": "write"},
    "release": {"contents": "write"},
    "analyze": {"contents": "read", "security-events": "write"},
}
# A permission with which a job could sign or publish what a pull request brings
POWERS = {"id-token", "attestations", "contents", "packages", "actions"}
# The jobs that make what is released
MAKERS = ("build", "server", "wheels", "deb", "image")
# All that a job with such a permission runs
HARMLESS = {"sha256sum", "gh"}
ON_TAGS = "github.event_name == 'push' && startsWith(github.ref, 'refs/tags/v')"

workflow = pytest.mark.parametrize("text", WORKFLOWS.values(), ids=WORKFLOWS.keys())
locked = pytest.mark.parametrize("path", LOCKED, ids=lambda path: path.name)


def _jobs(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)["jobs"]


def _commands(run: str) -> list[str]:
    """Return the commands of a script, one a line, with continued lines joined."""
    return [line.strip() for line in re.sub(r"\\\n\s*", "", run).splitlines()]


def _scripts(text: str) -> list[str]:
    return [step["run"] for job in _jobs(text).values() for step in job["steps"] if "run" in step]


def unpinned_actions(text: str) -> list[str]:
    """Return each `uses` that is no full commit with its release as comment."""
    used = re.findall(r"^[\s-]*uses:\s*(.*)$", text, re.MULTILINE)
    pinned = re.compile(r"[\w-]+(/[\w-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    return [action for action in used if not pinned.fullmatch(action)]


def unhashed_installs(script: str) -> list[str]:
    """Return each installation of Python packages that could bring in an unlocked one."""
    package = r"(-e )?[\"']?(\./)?packages/\w+(\[[\w,]+\])?[\"']?"
    ours = re.compile(rf"--no-deps --no-build-isolation {package}( {package})*$")
    hashed = re.compile(r"--require-hashes .*-r constraints[\w-]*\.txt$")
    return [
        line
        for line in _commands(script)
        if re.search(r"\b(pip|pipx|uv)\b.* install\b|\bpipx\b|\buvx\b", line)
        and not (ours.search(line) or hashed.search(line))
    ]


def unsafe_powers(text: str) -> list[str]:
    """Return why jobs that can sign or publish may carry foreign code, or run for pull requests."""
    faults = []
    for name, job in _jobs(text).items():
        granted = job.get("permissions", {})
        if granted == "write-all" or any(granted.get(power) == "write" for power in POWERS):
            if job.get("if") != ON_TAGS:
                faults.append(f"{name}: not for pushed tags only")
            if any(step.get("uses", "").startswith("actions/checkout") for step in job["steps"]):
                faults.append(f"{name}: checks out code")
            lines = [line for step in job["steps"] for line in _commands(step.get("run", ""))]
            faults += [f"{name}: {line}" for line in lines if line.split()[0] not in HARMLESS]
    return faults


@workflow
def test_every_action_is_named_by_commit_and_release(text):
    assert unpinned_actions(text) == []


@workflow
def test_a_job_holds_only_the_permissions_listed_here(text):
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    for name, job in _jobs(text).items():
        assert job.get("permissions") == PERMISSIONS.get(name), name


@workflow
def test_a_job_that_signs_or_publishes_runs_no_foreign_code(text):
    assert unsafe_powers(text) == []


@workflow
def test_python_packages_are_installed_with_hashes(text):
    assert [line for script in _scripts(text) for line in unhashed_installs(script)] == []


def test_what_a_release_is_made_of_is_installed_as_wheels_without_node_packages():
    jobs = _jobs(WORKFLOWS["bridge.yml"])
    lines = [
        line
        for name in MAKERS
        for step in jobs[name]["steps"]
        for line in _commands(step.get("run", ""))
    ]
    lines += _commands((ROOT / "scripts/make_environment.sh").read_text())  # packages and images
    hashed = [line for line in lines if "--require-hashes" in line]
    assert len(hashed) >= len(MAKERS)
    assert all("--only-binary :all:" in line for line in hashed)
    assert not [line for line in lines if re.search(r"\b(npm|npx|make|pytest)\b", line)]


@workflow
def test_no_script_has_text_of_others_written_into_it(text):
    assert [script for script in _scripts(text) if "${{" in script] == []


@workflow
def test_no_workflow_runs_with_the_rights_of_main_for_a_pull_request(text):
    triggers = yaml.safe_load(text)[True]  # YAML 1.1 reads the key `on` as true
    assert not {"pull_request_target", "workflow_run"} & set(triggers)


@workflow
def test_a_checkout_leaves_no_token_in_the_work_tree(text):
    steps = [step for job in _jobs(text).values() for step in job["steps"]]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@workflow
def test_no_released_file_is_replaced(text):
    assert "--clobber" not in text
    assert "gh release upload" not in text


def test_checksums_are_signed_with_the_files():
    steps = _jobs(WORKFLOWS["bridge.yml"])["attest"]["steps"]
    [signed] = [place for place, step in enumerate(steps) if "subject-path" in step.get("with", {})]
    [summed] = [place for place, step in enumerate(steps) if "> SHA256SUMS" in step.get("run", "")]
    assert summed < signed
    assert steps[signed]["with"]["subject-path"] == "dist/*"


@pytest.mark.parametrize(
    ("name", "sources"), [("attest", MAKERS), ("release", (*MAKERS, "attest"))]
)
def test_a_job_that_signs_or_publishes_names_what_it_takes(name, sources):
    jobs = _jobs(WORKFLOWS["bridge.yml"])
    made = set()
    for source in sources:
        platforms = jobs[source].get("strategy", {}).get("matrix", {}).get("include", [{}])
        uploads = [step["with"] for step in jobs[source]["steps"] if "upload-artifact" in str(step)]
        made |= {
            re.sub(r"\$\{\{ matrix\.\w+ \}\}", str(name), upload["name"])
            for upload in uploads
            for platform in platforms
            for name in [platform.get(upload["name"].partition("matrix.")[2].rstrip(" }"))]
        }
    for step in jobs[name]["steps"]:
        if "download-artifact" in step.get("uses", ""):
            assert expanded(step["with"]["pattern"]) == made


@pytest.mark.parametrize(
    ("job", "command"), [("attest", "sha256sum pvemcp"), ("release", "gh release create")]
)
def test_every_file_that_is_made_for_a_release_is_summed_and_released(job, command):
    jobs = _jobs(WORKFLOWS["bridge.yml"])
    uploads = [step["with"] for name in MAKERS for step in jobs[name]["steps"] if "with" in step]
    made = " ".join(upload.get("path", "") for upload in uploads).split()
    run = next(step["run"] for step in jobs[job]["steps"] if command in step.get("run", ""))
    [line] = [line for line in _commands(run) if line.startswith(command)]
    assert "dist/server.json" in made
    for path in made:
        name = Path(path).name.replace("*", "any")
        assert any(fnmatchcase(name, word) for word in line.split()), path


def test_the_registry_entry_is_made_of_the_released_extension():
    steps = _jobs(WORKFLOWS["bridge.yml"])["build"]["steps"]
    [run] = [step["run"] for step in steps if "make_server_json.py" in step.get("run", "")]
    build, entry = _commands(run)
    assert build == "python scripts/build_mcpb.py"
    assert entry.endswith(f'"$GITHUB_REPOSITORY" dist/{bundle.EXTENSION}')


def expanded(pattern: str) -> set[str]:
    """Return the names that a pattern of braces alone stands for."""
    assert not set(pattern) & set("*?[]!+@()")
    innermost = re.search(r"\{([^{}]*)\}", pattern)
    if innermost is None:
        return {pattern}
    before, after = pattern[: innermost.start()], pattern[innermost.end() :]
    # a comma of an inner group belongs to the outer one after it is expanded
    parts = [f"{before}{part}{after}" for part in innermost[1].split(",")]
    return set().union(*map(expanded, parts))


@pytest.mark.parametrize("name", ["Makefile", "scripts/make_environment.sh"])
def test_images_and_make_install_python_packages_with_hashes(name):
    script = re.sub(r"\$\(PACKAGES:%=(-e )?(packages)/%\)", r"\1\2/all", (ROOT / name).read_text())
    script = re.sub(r"(\./packages/\w+ )+\./packages", "./packages", script)
    if pip := re.search(r"^PIP := (.*)\n", script, re.MULTILINE):
        script = script.replace(pip[0], "").replace("$(PIP)", pip[1])
        assert script.count(pip[1]) > 2
    assert unhashed_installs(script) == []


@locked
def test_every_locked_package_has_one_version_and_hashes(path):
    entries = re.split(r"\n(?=\S)", path.read_text().strip())
    assert len(entries) > 10
    for entry in entries:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+( ; .*)? \\\n", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


@locked
def test_a_package_has_the_same_version_in_every_list(path):
    pinned = _versions(ROOT / "constraints-dev.txt")
    for name, versions in _versions(path).items():
        assert versions <= pinned.get(name, versions), name


def _versions(path: Path) -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)(?:\[.*\])?==(\S+)", path.read_text(), re.MULTILINE
    ):
        versions.setdefault(name, set()).add(version)
    return versions


def test_the_list_of_the_binaries_holds_what_the_bridge_asks_for():
    project = tomllib.loads((ROOT / "packages/bridge/pyproject.toml").read_text())["project"]
    asked_for = {re.split(r"[<>=]", each)[0] for each in project["dependencies"]}
    assert asked_for | {"pyinstaller"} <= _versions(ROOT / "constraints-bridge.txt").keys()


def test_the_audit_reads_every_locked_list():
    assert "for list in constraints*.txt" in WORKFLOWS["audit.yml"]
    assert yaml.safe_load(WORKFLOWS["audit.yml"])[True]["schedule"]


def test_dependabot_watches_every_kind_of_dependency():
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    watched = {
        (update["package-ecosystem"], directory)
        for update in updates
        for directory in update.get("directories", [update.get("directory")])
    }
    folders = [path.parent for path in ROOT.glob("[!.]*/*/package.json")]
    npm = {("npm", f"/{folder.relative_to(ROOT).as_posix()}") for folder in folders}
    assert len(npm) > 1
    assert watched == npm | {("pip", "/"), ("github-actions", "/"), ("docker", "/")}


def test_the_tool_that_packs_the_extension_is_locked_by_hash():
    folder = ROOT / "scripts" / "mcpb"
    lock = json.loads((folder / "package-lock.json").read_text())
    asked_for = json.loads((folder / "package.json").read_text())["devDependencies"]
    root, *packages = lock["packages"].values()
    assert root["devDependencies"] == asked_for
    assert all(package["integrity"].startswith("sha512-") for package in packages)
    assert not [package for package in packages if "resolved" in package]
    assert "ignore-scripts=true" in (folder / ".npmrc").read_text().splitlines()


@walk(
    "action",
    [
        "actions/checkout@v4",
        "actions/checkout@main # v7.0.1",
        "actions/checkout@3d3c42e # v7.0.1",
        f"actions/checkout@{'a' * 40}",
        f"'actions/checkout@{'a' * 40}' # v7.0.1",
        "docker://python:3.13",
    ],
)
def test_an_action_without_commit_or_release_is_found(action):
    assert unpinned_actions(f"steps:\n  - uses: {action}\n") == [action]


@walk(
    "line",
    [
        "pip install cyclonedx-bom",
        "python -m pip install --quiet -c pins.txt -e packages/bridge pyinstaller",
        "python -m pip --python sbom install ./packages/bridge",
        "python -m pip install --no-deps packages/bridge",
        "python -m pip install -r constraints.txt",
        "python -m pip install --require-hashes -r constraints.txt pytest",
        "uv pip install pytest",
        "uvx ruff",
        "pipx run build",
    ],
)
def test_an_installation_without_hashes_is_found(line):
    assert unhashed_installs(f"set -e\n{line}\n") == [line]


@pytest.mark.parametrize("permission", ["id-token", "attestations", "contents"])
@pytest.mark.parametrize(
    "job",
    [
        {"steps": [{"run": "sha256sum x"}]},
        {"if": "github.event_name != 'pull_request'", "steps": [{"run": "sha256sum x"}]},
        {"if": ON_TAGS, "steps": [{"run": "python -m pip install --require-hashes -r x"}]},
        {"if": ON_TAGS, "steps": [{"run": "sha256sum x\nnpm ci"}]},
        {"if": ON_TAGS, "steps": [{"uses": "actions/checkout@v4"}]},
    ],
)
def test_a_job_that_signs_and_runs_more_is_found(permission, job):
    text = yaml.safe_dump({"jobs": {"sign": job | {"permissions": {permission: "write"}}}})
    assert len(unsafe_powers(text)) == 1
