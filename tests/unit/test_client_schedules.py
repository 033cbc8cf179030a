"""A client keeps schedules: engine, client and child sagas in memory, over partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel, ValidationError

from orchestrator import Saga
from orchestrator.client import Client
from orchestrator.errors import ConfigurationError, InvalidRequest, SagaAlreadyExists, SagaNotFound, UpdateRejected
from orchestrator.model.events import Status
from orchestrator.schedules import with_schedules
from orchestrator.schedules.saga import ScheduleSaga
from orchestrator.schedules.schedule import Overlap, Schedule, ScheduleDescription
from orchestrator.schedules.times import Calendar, Interval, ScheduleSpec
from tests.shop_world import PARTITIONS, World, drive

T = TypeVar("T")
OFTEN = ScheduleSpec(intervals=(Interval(every=0.2),))
YEARLY = ScheduleSpec(crons=("0 0 1 1 *",))
ODD = ScheduleSpec(crons=("1-59/2 * * * *",), exclude=(Calendar(hour="*", minute="1-59/2"),))
done: list[tuple[str, str, str]] = []


class Sales(BaseModel):
    region: str
    seconds: float = 0


class Report(Saga[Sales, str]):
    async def run(self, sales: Sales) -> str:
        await self.sleep(sales.seconds)
        done.append((self.id, sales.region, self.baggage["scheduled-at"]))
        return sales.region


@pytest.fixture
def world() -> World:
    done.clear()
    return World(sagas=(ScheduleSaga, Report))


def using(world: World, work: Callable[[Client], Awaitable[T]]) -> T:
    async def main() -> T:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            return await work(client)

    return drive(world, main())


async def until(client: Client, id: str, there: Callable[[ScheduleDescription], bool]) -> ScheduleDescription:
    while not there(described := await client.schedules.describe(id)):
        await asyncio.sleep(0)
    return described


def test_sagas_are_started_at_their_times_and_heard_of(world: World) -> None:
    async def work(client: Client) -> ScheduleDescription:
        await client.schedules.create("sales", Report, Sales(region="north"), OFTEN, baggage={"tenant": "acme"})
        return await until(client, "sales", lambda told: len(told.recent) >= 3)

    told = using(world, work)
    assert [run.outcome for run in told.recent] == ["completed"] * len(told.recent)
    first, region, at = done[0]
    assert (region, first) == ("north", f"sales-{at}")
    assert (told.schedule.saga_type, told.schedule.input) == ("Report", {"region": "north", "seconds": 0.0})
    assert len(told.next_times) == 10


def test_a_crash_loses_no_time_and_doubles_none(world: World) -> None:
    async def create(client: Client) -> None:
        await client.schedules.create("sales", Report, Sales(region="north"), OFTEN, overlap=Overlap.ALLOW_ALL)

    using(world, create)
    for _ in range(8):
        world.advance(130)
        world.crash()
        world.settle()
    told = using(world, lambda client: client.schedules.describe("sales"))
    times = {at for _, _, at in done}
    assert told.counts.started >= 5
    assert (told.counts.failed, told.counts.skipped, told.counts.missed) == (0, 0, 0)
    assert len(times) >= told.counts.started - 1


def test_it_is_told_what_to_do(world: World) -> None:
    async def work(client: Client) -> None:
        schedules = client.schedules
        await schedules.create("sales", Report, Sales(region="north"), YEARLY, paused=True, note="not yet")
        assert (await schedules.describe("sales")).note == "not yet"
        started = await schedules.trigger("sales")
        assert started.startswith("sales-20")
        await until(client, "sales", lambda told: bool(told.recent))
        first = datetime(2019, 1, 1, tzinfo=UTC)
        assert await schedules.backfill("sales", first, datetime(2022, 6, 1, tzinfo=UTC)) == 4
        await until(client, "sales", lambda told: len(told.recent) == 5)
        await schedules.resume("sales", "now")
        hourly = ScheduleSpec(crons=("0 * * * *",))
        await schedules.update("sales", spec=hourly, action=(Report, Sales(region="south")), overlap=Overlap.ALLOW_ALL)
        await schedules.update("sales", catch_up_window=timedelta(minutes=5), remaining_actions=3)
        told = await schedules.describe("sales")
        assert told.schedule == Schedule(
            saga_type="Report",
            input={"region": "south", "seconds": 0.0},
            spec=hourly,
            overlap=Overlap.ALLOW_ALL,
            catch_up_window=300,
            remaining_actions=3,
        )
        assert (told.paused, len(told.next_times)) == (False, 3)
        with pytest.raises(UpdateRejected, match="never be due"):
            await schedules.update("sales", spec=ScheduleSpec(crons=("0 * * * *",), end=first))
        await schedules.pause("sales", "holidays")
        told = await schedules.describe("sales")
        assert told.paused
        assert not told.ended
        await schedules.delete("sales")
        told = await schedules.describe("sales")
        assert told.ended
        assert told.next_times == []

    using(world, work)
    assert world.status("schedule:sales") is Status.TERMINATED
    assert [at for _, _, at in done][1:] == [f"20{year}-01-01T00:00:00Z" for year in (19, 20, 21, 22)]


def test_the_next_one_ends_what_is_under_way(world: World) -> None:
    async def work(client: Client) -> tuple[str, str]:
        long = Sales(region="north", seconds=3_600)
        await client.schedules.create("sales", Report, long, OFTEN, overlap=Overlap.CANCEL_OTHER)
        await until(client, "sales", lambda told: len(told.recent) >= 2)
        await client.schedules.update("sales", overlap=Overlap.TERMINATE_OTHER)
        changed = await client.schedules.describe("sales")
        before = {run.id for run in changed.recent}
        told = await until(client, "sales", lambda told: len({run.id for run in told.recent} - before) >= 2)
        return changed.recent[0].id, told.recent[-1].id

    cancelled, terminated = using(world, work)
    assert (world.status(cancelled), world.status(terminated)) == (Status.CANCELED, Status.TERMINATED)


def test_an_input_that_does_not_fit_shows_in_the_description_and_pauses_it(world: World) -> None:
    async def work(client: Client) -> ScheduleDescription:
        schedule = Schedule(saga_type="Report", input={"regions": 1}, spec=OFTEN, pause_on_failure=True)
        await client.schedules.create_raw("sales", schedule)
        return await until(client, "sales", lambda told: told.paused)

    told = using(world, work)
    assert told.recent[0].error.startswith("ChildRefused: ")
    assert "does not fit Report" in told.note


def test_an_id_has_one_schedule_at_a_time(world: World) -> None:
    async def work(client: Client) -> None:
        await client.schedules.create("sales", Report, Sales(region="north"), YEARLY)
        with pytest.raises(SagaAlreadyExists, match="delete it first"):
            await client.schedules.create("sales", Report, Sales(region="south"), YEARLY)
        await client.schedules.delete("sales")
        await client.schedules.create("sales", Report, Sales(region="east"), YEARLY)
        told = await client.schedules.describe("sales")
        assert told.schedule.input == {"region": "east", "seconds": 0.0}
        with pytest.raises(SagaNotFound):
            await client.schedules.pause("costs")

    using(world, work)


@pytest.mark.parametrize(
    ("id", "spec", "options", "why"),
    [
        ("", YEARLY, {}, "1 to"),
        ("x" * 500, YEARLY, {}, "1 to"),
        ("sales", ScheduleSpec(), {}, "never be due"),
        ("sales", ODD, {}, "exclude whole hours or days"),
        ("sales", YEARLY, {"baggage": {"tenant": "x" * 2_040}}, "baggage has"),
    ],
)
def test_what_is_no_schedule_is_refused_before_it_is_sent(
    world: World, id: str, spec: ScheduleSpec, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        using(world, lambda client: client.schedules.create(id, Report, Sales(region="north"), spec, **options))
    assert world.records(world.topics.inbox) == []


def test_an_input_of_another_type_is_refused_where_the_type_is_known(world: World) -> None:
    with pytest.raises(ValidationError):
        using(world, lambda client: client.schedules.create("sales", Report, {"regions": 1}, YEARLY))  # type: ignore[misc]


def test_a_saga_may_not_have_the_name_of_schedules() -> None:
    with pytest.raises(ConfigurationError, match="another name"):
        with_schedules({"saga.schedule": Report.definition})
    assert set(with_schedules({"Report": Report.definition})) == {"Report", "saga.schedule"}
