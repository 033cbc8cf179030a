"""Human tasks over a real broker: listed, claimed, refused, filled in."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from orchestrator import cli
from orchestrator.client import Client
from orchestrator.errors import UpdateRejected
from orchestrator.saga import Saga
from tests.shop_cluster import shop

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


class Decision(BaseModel):
    approved: bool
    why: str = ""


class Purchase(Saga[int, str]):
    async def run(self, cents: int) -> str:
        task = self.human_task(Decision, title=f"{cents} for tea", group="managers", due=timedelta(days=2))
        decision = await task
        return f"{'yes' if decision.approved else 'no'} by {task.assignee}"


def test_a_task_is_listed_claimed_and_filled_in(
    broker: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGA_STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SAGA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("SAGA_PREFIX", prefix)

    def tasks(*words: str, exit_code: int = 0) -> str:
        done = CliRunner().invoke(cli.saga, ["tasks", *words])
        if exit_code == 0 and done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == exit_code, done.output
        return done.output

    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(Purchase, 900, id="p-1")
            await client.claim_task("p-1", by="ann")
            with pytest.raises(UpdateRejected, match="the task Decision is ann's"):
                await client.complete_task("p-1", Decision(approved=True), by="bob")
            with pytest.raises(UpdateRejected, match="does not fit: approved: Input should be a valid boolean"):
                await client.complete_task_raw("p-1", "Decision", '{"approved": "perhaps"}', by="ann")
            listed = json.loads(await asyncio.to_thread(tasks, "list", "--assignee", "ann", "--json"))
            assert [(task["saga_id"], task["title"]) for task in listed["tasks"]] == [("p-1", "900 for tea")]
            assert "p-1" not in await asyncio.to_thread(tasks, "list", "--group", "managers")
            await asyncio.to_thread(tasks, "reassign", "p-1", "--assignee", "bob", "--by", "ann")
            assert "approved" in await asyncio.to_thread(tasks, "show", "p-1")
            await asyncio.to_thread(tasks, "complete", "p-1", "--form", '{"approved": true}', "--by", "bob")
            assert await handle.result(timeout=60) == "yes by bob"
            assert "p-1" not in await asyncio.to_thread(tasks, "list")

    with shop(broker, prefix, sagas=(Purchase,)):
        asyncio.run(main())
