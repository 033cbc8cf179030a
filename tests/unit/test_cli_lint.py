"""`saga lint`, and the linter where a worker loads its sagas."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import saga
from orchestrator.cli.application import load_definitions
from orchestrator.errors import DefinitionError

CARELESS = """
import os
import time

from orchestrator import Saga


class Careless(Saga[str, float]):
    async def run(self, given: str) -> float:
        os.getenv("HOME")
        return time.time()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "careless_shop.py").write_text(CARELESS)
    return "careless_shop"


def test_a_worker_does_not_load_a_saga_that_cannot_replay(module: str) -> None:
    with pytest.raises(DefinitionError, match=r"careless_shop.py:11: Careless.run calls time.time\(\): use self.now"):
        load_definitions((module,))


def test_errors_and_warnings_are_told_with_their_lines(module: str) -> None:
    done = CliRunner().invoke(saga, ["lint", module])
    assert done.exit_code == 1
    assert "warning: careless_shop.py:10: Careless.run calls os.getenv()" in done.output
    assert "error: careless_shop.py:11: Careless.run calls time.time(): use self.now() [clock]" in done.output
    told = json.loads(CliRunner().invoke(saga, ["lint", module, "--json"]).stdout.splitlines()[-1])
    assert (told["sagas"], told["errors"], told["warnings"]) == (1, 1, 1)
    assert told["findings"][1]["rule"] == "clock"
    assert told["findings"][1]["line"] == 11


def test_code_that_replays_is_told_to_be_fine() -> None:
    done = CliRunner().invoke(saga, ["lint", "orchestrator.sagas.order_fulfilment"])
    assert (done.exit_code, done.output) == (0, "1 sagas read: 0 errors, 0 warnings\n")
