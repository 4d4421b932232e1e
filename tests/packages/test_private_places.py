"""No tracked file names a folder of a machine, and no lock or configuration a package index."""

import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.cases import walk

REPOSITORY = Path(__file__).parents[2]
# in parts, since this file is tracked too
HOMES = ("/" + "root/", "/" + "home/[^/\\s]+/", "/" + "Users/[^/\\s]+/")
INDEXES = (
    ("py" + "pi", "org"),
    ("python" + "hosted", "org"),
    ("npm" + "js", "org"),
    ("npm" + "js", "com"),
    ("yarn" + "pkg", "com"),
)
URL, REGISTRY = "index" + "-url", "regis" + "try"
ADDRESS = r"""["']?(?:[\w+]+:)?//|["']?[\w-]+(?:\.[\w-]+)+["':/]"""  # a URL or a host
INDEX_OPTION = rf"(?:{URL}|{REGISTRY})\s*[=:]\s*(?:{ADDRESS})|--(?:extra-)?{URL}|--{REGISTRY}\b"
CONFIGURATION = {".txt", ".in", ".toml", ".json", ".yml", ".yaml", ".cfg", ".ini", ".lock", ""}


def folder_of_machine() -> re.Pattern[str]:
    """Match home folders, and the folder of this checkout unless it is any temporary one."""
    parent = REPOSITORY.parent
    shared = {Path(parent.root), Path(tempfile.gettempdir())}
    own = [] if parent in shared else [re.escape(f"{parent}/")]
    return re.compile(rf"(?<![\w.~])(?:{'|'.join([*HOMES, *own])})")


def package_index() -> re.Pattern[str]:
    """Match the host of a package index, or what chooses one."""
    hosts = (rf"\b{re.escape('.'.join(labels))}\b" for labels in INDEXES)
    return re.compile("|".join([*hosts, INDEX_OPTION]))


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Return the text of each tracked file."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("no checkout: only Git knows which files are tracked")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.split("\0") if (REPOSITORY / name).is_file()]
    return {name: (REPOSITORY / name).read_text(errors="replace") for name in names}


def test_no_file_names_a_folder_of_a_machine(texts):
    folder = folder_of_machine()
    found = {name: folder.findall(text) for name, text in texts.items()}
    assert {name: folders for name, folders in found.items() if folders} == {}


def test_no_lock_or_configuration_names_a_package_index(texts):
    index = package_index()
    found = {n: index.findall(t) for n, t in texts.items() if Path(n).suffix in CONFIGURATION}
    assert len(found) > 50
    assert {name: hosts for name, hosts in found.items() if hosts} == {}


def test_no_file_at_all_sets_what_looks_like_an_index(texts):
    found = {name: re.findall(INDEX_OPTION, text) for name, text in texts.items()}
    assert {name: options for name, options in found.items() if options} == {}


@walk(
    "text",
    [
        f"see {HOMES[0]}repo/x",
        "file://" + HOMES[1].replace("[^/\\s]+", "ada") + "x",
        f"{REPOSITORY.parent}/x" if REPOSITORY.parent != Path(tempfile.gettempdir()) else HOMES[0],
    ],
)
def test_a_folder_of_a_machine_is_found(text):
    assert folder_of_machine().search(text)


@walk(
    "text",
    [
        f"see {'.'.join(INDEXES[0])}",
        f"files.{'.'.join(INDEXES[1])}/x.whl",
        f'"resolved": "{REGISTRY}.{".".join(INDEXES[2])}"',
        f"--{URL} https://packages.example",
        f"{REGISTRY}=https://packages.example",
        f'{REGISTRY} = "192.0.2.1:5000"',
    ],
)
def test_a_package_index_is_found(text):
    assert package_index().search(text)
