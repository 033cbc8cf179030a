"""What the pages of the use cases say is typed as it stands there, all of them under one `saga dev`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.terminal import Terminal
from tests.e2e.use_cases import MODULES
from tests.processes import wait_for_dev

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
IDS = {
    "etl_pipeline": "monday",
    "expense_approval": "laptop",
    "infrastructure_provisioning": "staging",
    "order_fulfilment": "o-1",
    "subscription_billing": "ada",
    "travel_booking": "t-1",
}
"""Of each page's saga, which completes."""


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """One in whose folder `saga dev` runs all use cases."""
    folder = tmp_path_factory.mktemp("pages")
    made = Terminal({"SHOP_BOOKS": str(folder / "books")}, folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SAGA_BOOTSTRAP_SERVERS", "SAGA_PREFIX", "SAGA_STATE_DIRECTORY", "SAGA_CONFIG"):
            patch.delenv(name, raising=False)
        patch.chdir(folder)
        with made.running("dev", "dev", *MODULES) as dev:
            wait_for_dev(dev)
            yield made


def commands_of(page: str) -> list[list[str]]:
    """The words of what is typed after `saga dev`, line by line, without the `saga` in front."""
    block = re.search(
        rf"```sh\nsaga dev orchestrator\.sagas\.{page}\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.S
    )
    assert block is not None, page
    return [shlex.split(line)[1:] for line in block[1].splitlines()]


@pytest.mark.parametrize("page", [module.rpartition(".")[2] for module in MODULES])
def test_a_pages_commands_do_what_it_says(page: str, terminal: Terminal) -> None:
    saga_id = IDS[page]
    for words in commands_of(page):
        if words[:2] == ["tasks", "complete"]:
            terminal.until(lambda: terminal.told("tasks", "list")["tasks"], bool)
        said = terminal.saga(*words)
        assert saga_id in said or words[0] == "signal", (words, said)

    def status() -> Any:
        return terminal.told("show", saga_id)["saga"]["status"]

    assert terminal.until(status, lambda found: found not in ("RUNNING", "COMPENSATING")) == "COMPLETED"
