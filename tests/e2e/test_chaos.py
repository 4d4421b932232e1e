"""Parts of a fleet fail while clients of three eras call: `benchmarks/soak_fleet.py` judges."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CLOCK = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def run(*options: str) -> None:
    """Run the script; fail with what it printed when something was lost."""
    command = [sys.executable, BENCHMARKS / "soak_fleet.py", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]


@pytest.fixture
def postgres_programs() -> None:
    """Skip a test where PostgreSQL is not installed."""
    if not (any(Path("/usr/lib/postgresql").glob("*/bin")) or shutil.which("pg_ctl")):
        pytest.skip("no PostgreSQL here: apt-get install postgresql to test on it")


# not in the default run: it takes half a minute of processor time
@pytest.mark.chaos
@pytest.mark.postgres
def test_a_kill_and_a_restart_of_the_database_lose_no_call(postgres_programs):
    small = ("--servers", "2", "--clients", "9", "--pace", "0.3", "--quiet", "1")
    run("--balancer", "workers", "--faults", "kill,restart", *small)


@pytest.mark.chaos
@pytest.mark.postgres
@pytest.mark.parametrize("balancer", ["haproxy", "nginx"])
def test_a_fleet_loses_nothing_while_each_of_its_parts_fails(postgres_programs, balancer):
    if shutil.which(balancer, path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
        pytest.skip(f"no {balancer}: apt-get install {balancer}")
    if not CLOCK.exists():
        pytest.skip("no clock to set: apt-get install libfaketime")
    run("--balancer", balancer)


@pytest.mark.chaos
def test_a_full_disk_stops_writes_and_loses_no_read():
    run("--balancer", "none", "--clients", "10", "--pace", "0.5", "--faults", "disk,file-size")
