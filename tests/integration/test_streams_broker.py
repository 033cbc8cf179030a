"""What a saga publishes, followed over a real broker: while it runs, and after its end from the command line."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from orchestrator import cli
from orchestrator.client import Client
from orchestrator.saga import Saga
from orchestrator.signals import signal
from orchestrator.streams import stream
from tests.shop_cluster import shop

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


class Progress(BaseModel):
    done: int
    of: int


class Import(Saga[int, str]):
    progress = stream(Progress)
    go_on = signal()

    async def run(self, pages: int) -> str:
        for number in range(1, pages + 1):
            self.publish(Import.progress, Progress(done=number, of=pages))
            await self.receive(Import.go_on)
        return "all"


def test_progress_is_followed_while_it_happens_and_afterwards(
    broker: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGA_STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SAGA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("SAGA_PREFIX", prefix)

    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            handle = await client.start(Import, 3, id="i-1")
            heard = []
            async for progress in handle.follow(Import.progress):
                heard.append(progress)
                await handle.signal(Import.go_on)
            assert heard == [Progress(done=number, of=3) for number in (1, 2, 3)]
            assert await handle.result(timeout=60) == "all"

    with shop(broker, prefix, sagas=(Import,)):
        asyncio.run(main())
        followed = CliRunner().invoke(cli.saga, ["follow", "i-1", "progress"])
        assert [json.loads(line)["done"] for line in followed.output.splitlines()] == [1, 2, 3], followed.output
        shown = CliRunner().invoke(cli.saga, ["show", "i-1"])
        assert 'progress: {"done":3,"of":3}' in shown.output
