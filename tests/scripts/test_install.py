"""A lock file is installed in parts that have every package once, with its hashes."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("install", ROOT / "scripts" / "install.py")
install = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(install)


@pytest.mark.parametrize("lock", sorted(ROOT.glob("constraints*.txt")), ids=lambda lock: lock.stem)
@pytest.mark.parametrize("number", [1, 2, 4])
def test_parts_have_every_package_once_with_its_hashes(lock, number):
    parts = install.parts(lock.read_text(), number)
    assert len(parts) == number
    packages = [package for part in parts for package in part.replace("\\\n", "").splitlines()]
    assert sorted(packages) == sorted(lock.read_text().replace("\\\n", "").splitlines())
    assert all("==" in package and "--hash=sha256:" in package for package in packages)


@pytest.mark.parametrize(("python", "succeeds"), [("true", True), ("false", False)])
def test_the_exit_code_is_that_of_a_pip_that_failed(tmp_path, monkeypatch, python, succeeds):
    lock = tmp_path / "lock.txt"
    lock.write_text("one==1 --hash=sha256:1\ntwo==2 --hash=sha256:2\n")
    monkeypatch.setattr(sys, "executable", shutil.which(python))
    assert (install.install(lock) == 0) is succeeds
