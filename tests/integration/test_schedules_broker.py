"""Schedules over a real broker, with a worker."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator import Abort, Calendar, Client, Interval, Overlap, Saga, ScheduleSpec, Status, cli
from orchestrator.visibility import Visibility
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


class Report(Saga[str, str]):
    async def run(self, region: str) -> str:
        if region == "nowhere":
            raise Abort("NoData")
        return f"{region} at {self.baggage['scheduled-at']}"


async def until_started(client: Client, id: str, times: int) -> None:
    async with asyncio.timeout(60):
        while len((await client.schedules.describe(id)).recent) < times:
            await asyncio.sleep(0.05)


async def ended_of(client: Client, id: str) -> list[str]:
    return [run.id for run in (await client.schedules.describe(id)).recent if run.outcome != "running"]


async def until_ended(client: Client, id: str, saga_id: str) -> None:
    """Until the schedule has heard of that saga's end: what it starts is on its way to another partition before."""
    async with asyncio.timeout(60):
        while saga_id not in await ended_of(client, id):
            await asyncio.sleep(0.05)


def test_a_schedule_starts_sagas_is_triggered_paused_backfilled_and_deleted(
    broker: str, prefix: str, tmp_path: Path
) -> None:
    async def main() -> str:
        async with Client.connect(broker, prefix=prefix) as client:
            schedules = client.schedules
            often = ScheduleSpec(intervals=(Interval(every=0.3),))
            await schedules.create("sales", Report, "north", often, overlap=Overlap.BUFFER_ONE)
            await until_started(client, "sales", 3)
            await schedules.pause("sales", "enough")
            before = await schedules.describe("sales")
            assert {run.outcome for run in before.recent} == {"completed"}
            started = await schedules.trigger("sales")
            await until_ended(client, "sales", started)
            report = await client.attach(Report, started)
            assert await report.result(timeout=60) == f"north at {started.removeprefix('sales-')}"
            hour = datetime(2026, 1, 1, tzinfo=UTC)
            assert await schedules.backfill("sales", hour, hour + timedelta(seconds=0.6), Overlap.ALLOW_ALL) == 3
            await until_started(client, "sales", min(10, len(before.recent) + 4))
            told = await schedules.describe("sales")
            assert told.paused
            assert told.counts.started == before.counts.started + 4
            return started

    def said(*words: str) -> Any:
        options = ["-b", broker, "--prefix", prefix, "--json"]
        result = CliRunner().invoke(cli.saga, [*words, *options], env={"SAGA_STATE_DIRECTORY": str(tmp_path)})
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    with shop(broker, prefix, sagas=(Report,)):
        started = asyncio.run(main())
        listed = {"id": "sales", "status": "paused", "action": "Report", "spec": "every 0.3 s"}
        assert said("schedule", "list")["schedules"] == [listed]
        runs = said("list", "--where", "schedule = 'sales'", "--order-by", "scheduled_at")["sagas"]
        assert runs[-1]["saga_id"] == started
        assert {run["status"] for run in runs} == {Status.COMPLETED}
        said("schedule", "delete", "sales")
        assert said("schedule", "list")["schedules"] == []
        assert said("schedule", "list", "--all")["schedules"] == [listed | {"status": "terminated"}]


HALF = timedelta(seconds=0.5)


def at_of(saga_id: str) -> datetime:
    """The time that a schedule started this saga for."""
    return datetime.fromisoformat(saga_id.partition("-")[2])


def test_times_are_excluded_delayed_and_made_up_for_after_an_outage(broker: str, prefix: str, tmp_path: Path) -> None:
    odd = ScheduleSpec(
        calendars=(Calendar(second="*", minute="*", hour="*"),),
        exclude=(Calendar(second="*/2", minute="*", hour="*"),),
        jitter=HALF,
    )
    often = ScheduleSpec(intervals=(Interval(every=HALF),))

    async def before() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            schedules = client.schedules
            await schedules.create("odd", Report, "north", odd)
            await schedules.create("kept", Report, "north", often, overlap=Overlap.ALLOW_ALL)
            await schedules.create("missed", Report, "north", often, catch_up_window=0.01)
            await until_started(client, "odd", 2)
            await until_started(client, "kept", 2)
            for run in (await schedules.describe("odd")).recent:
                assert run.at.second % 2 == 1
                assert run.at <= odd.delayed(run.at, "odd") <= run.started

    async def after() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            schedules = client.schedules
            now = datetime.now(UTC)
            async with asyncio.timeout(60):
                while not any(run.at > now for run in (await schedules.describe("kept")).recent):
                    await asyncio.sleep(0.05)
            for id in ("kept", "missed"):
                await schedules.pause(id)
            kept, missed = await schedules.describe("kept"), await schedules.describe("missed")
            assert (kept.counts.missed, kept.counts.skipped) == (0, 0)
            assert missed.counts.missed > 1

    with shop(broker, prefix, sagas=(Report,)):
        asyncio.run(before())
    with shop(broker, prefix, sagas=(Report,)) as (log, topics):
        asyncio.run(after())
        with Visibility(tmp_path / "v.sqlite", log, topics, PARTITIONS) as visibility:
            assert visibility.catch_up(60)
            times = sorted(at_of(run.saga_id) for run in visibility.find("schedule = 'kept'"))
    assert {later - earlier for earlier, later in pairwise(times)} == {HALF}


def test_a_time_zone_a_number_of_times_and_a_pause_after_a_failure_that_is_mended(broker: str, prefix: str) -> None:
    often = ScheduleSpec(intervals=(Interval(every=0.3),))
    tokyo = ScheduleSpec(crons=("30 9 * * *",), time_zone="Asia/Tokyo")
    day = datetime(2026, 1, 1, tzinfo=UTC)

    async def main() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            schedules = client.schedules
            await schedules.create("tokyo", Report, "east", tokyo)
            assert await schedules.backfill("tokyo", day, day + timedelta(days=1), Overlap.ALLOW_ALL) == 1
            await until_started(client, "tokyo", 1)
            assert (await schedules.describe("tokyo")).recent[0].at == day.replace(minute=30)
            await schedules.create("twice", Report, "north", often, remaining_actions=2)
            await schedules.create("fails", Report, "nowhere", often, pause_on_failure=True)
            async with asyncio.timeout(60):
                while not (await schedules.describe("fails")).paused:
                    await asyncio.sleep(0.05)
            assert "NoData" in (await schedules.describe("fails")).note
            await schedules.update("fails", action=(Report, "south"))
            await schedules.resume("fails")
            before = len((await schedules.describe("fails")).recent)
            await until_started(client, "fails", before + 1)
            assert (await schedules.describe("fails")).recent[-1].outcome == "completed"
            async with asyncio.timeout(60):
                while not (told := await schedules.describe("twice")).ended:
                    await asyncio.sleep(0.05)
            assert (told.counts.started, told.next_times) == (2, [])

    with shop(broker, prefix, sagas=(Report,)):
        asyncio.run(main())
