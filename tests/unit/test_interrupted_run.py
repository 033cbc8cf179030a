"""A test run that is terminated leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import eventually

ROOT = Path(__file__).parents[2]

CONFTEST = """
from tests.conftest import pytest_configure as pytest_configure
from tests.conftest import pytest_xdist_newgateway as pytest_xdist_newgateway
"""
DEAF = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"]
"""Starts a command as a script does in its background: pytest-xdist's own way to end its workers goes unheard there."""
TEST = """
import signal
from pathlib import Path

import pytest


@pytest.fixture
def held():
    Path("held").touch()
    yield
    Path("held").unlink()


def test_that_does_not_end(held):
    Path("running").touch()
    signal.pause()
"""


@pytest.mark.parametrize("parallel", [[], ["-n", "1"]])
def test_fixtures_of_a_terminated_run_are_torn_down(tmp_path: Path, parallel: list[str]) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_endless.py").write_text(TEST)
    command = [*DEAF, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *parallel]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    with subprocess.Popen([*command, str(tmp_path)], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as run:
        began = eventually((tmp_path / "running").exists)
        run.terminate()
        assert (began, run.wait()) == (True, 2)
    assert not (tmp_path / "held").exists()
