"""Metrics and probes, read from engines on a log in memory."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from orchestrator.client import Client
from orchestrator.errors import SagaFailed
from orchestrator.model import events as ev
from orchestrator.model.messages import Outcome
from orchestrator.model.state import SagaState
from orchestrator.runtime.tally import BUCKETS_MS, MAX_OPEN, Durations, Tally
from orchestrator.runtime.tenure import Phase
from orchestrator.telemetry import (
    ParticipantMetrics,
    Pulse,
    Telemetry,
    WorkerMetrics,
    participant_readiness,
    worker_readiness,
)
from orchestrator.telemetry.families import copied
from tests.shop_world import PARTITIONS, Greeting, Order, OrderFulfilment, World, drive, refuse
from tests.unit.participant.world import DECLINED, SUCCESS
from tests.unit.participant.world import World as Members

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(collector: Collector) -> Samples:
    """All samples, by name and sorted labels, as a scraper would parse them."""
    status, _, body = Telemetry(collector, lambda _: "", Pulse()).respond("/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


@pytest.fixture
def world() -> World:
    return World()


def run_orders(world: World, *ids: str) -> list[str]:
    """Runs orders to their end; their results, or their final statuses."""

    async def work() -> list[str]:
        found = []
        async with Client(world.log, world.topics, PARTITIONS) as client:
            for each in ids:
                handle = await client.start(OrderFulfilment, Order(id=each), id=each)
                try:
                    found.append(await handle.result(timeout=30))
                except SagaFailed as failed:
                    found.append(failed.status)
        return found

    return drive(world, work())


def test_a_worker_counts_sagas_and_steps(world: World) -> None:
    assert run_orders(world, "o-1", "o-2") == ["shipped", "shipped"]
    world.behave = refuse("charge")
    assert run_orders(world, "o-3") == ["COMPENSATED"]
    samples = scrape(WorkerMetrics(world.engine))
    kind = OrderFulfilment.definition.name
    assert value(samples, "saga_sagas_started_total", saga_type=kind) == 3
    assert value(samples, "saga_sagas_ended_total", saga_type=kind, status="COMPLETED") == 2
    assert value(samples, "saga_sagas_ended_total", saga_type=kind, status="COMPENSATED") == 1
    assert value(samples, "saga_sagas_compensating_total", saga_type=kind) == 1
    assert value(samples, "saga_duration_seconds_count", saga_type=kind, status="COMPLETED") == 2
    assert value(samples, "saga_steps_ended_total", service="payments", command="charge", outcome="success") == 2
    assert value(samples, "saga_steps_ended_total", service="payments", command="charge", outcome="failure") == 1
    assert value(samples, "saga_steps_ended_total", service="inventory", command="release", outcome="success") == 1
    assert value(samples, "saga_step_duration_seconds_count", service="payments", command="charge") == 3
    assert value(samples, "saga_partitions", phase="owning") == 4
    assert value(samples, "saga_takeovers_total") == 4
    assert value(samples, "saga_decisions_total") > 0
    assert value(samples, "saga_effects_pending", partition="0") == 0
    assert value(samples, "saga_queue_depth", partition="3", input="inbox") == 0


def test_a_dead_letter_is_counted_and_counters_survive_a_lost_epoch(world: World) -> None:
    appender = world.log.appender()
    appender.append(world.topics.inbox, 0, b"not a saga", key=b"k", headers=[], token=None)
    run_orders(world, "o-1")
    before = scrape(WorkerMetrics(world.engine))
    assert value(before, "saga_dead_letters_total") == 1
    tenure = world.engine.tenures[0]
    world.engine._end_epoch(tenure, world.now_ms, "for the test")
    assert worker_readiness(world.engine, 60.0) == "partition 0: proving membership"
    after = scrape(WorkerMetrics(world.engine))
    assert value(after, "saga_epochs_lost_total") == 1
    assert value(after, "saga_partitions", phase="proving") == 1
    for name in ("saga_dead_letters_total", "saga_decisions_total", "saga_decisions_confirmed_total"):
        assert value(after, name) == value(before, name)


def test_what_is_parked_and_tried_again_is_counted(world: World) -> None:
    world.behave = refuse("charge", outcome=Outcome.RETRY)

    async def work() -> None:
        async with Client(world.log, world.topics, PARTITIONS) as client:
            await client.start(OrderFulfilment, Order(id="o-1"), id="o-1")
            await client.start(Greeting, "Ada", id="g-1")

    drive(world, work())
    world.settle()
    world.advance(2_000)
    samples = scrape(WorkerMetrics(world.engine))
    assert value(samples, "saga_sagas_parked_total", saga_type=OrderFulfilment.definition.name) == 1
    assert value(samples, "saga_step_retries_total", service="payments", command="charge") == 1


def test_a_worker_is_ready_when_it_owns_what_it_was_granted(world: World) -> None:
    assert worker_readiness(world.engine, 0.0) == ""
    world.engine._halt(world.engine.tenures[2], "the journal was cut")
    assert worker_readiness(world.engine, 60.0) == "partition 2 is halted: the journal was cut"
    assert world.engine.tenures[2].phase is Phase.HALTED
    fresh = world.new_engine()
    assert "granted no partition" in worker_readiness(fresh, 1.0)
    assert worker_readiness(fresh, 16.0) == "", "it stands by"


def test_durations_go_into_the_bucket_that_bounds_them() -> None:
    durations = Durations()
    for ms in (0, 5, 6, BUCKETS_MS[-1] + 1):
        durations.add(ms)
    assert durations.counts[:2] == [2, 1]
    assert durations.counts[-1] == 1
    assert durations.sum_ms == 11 + BUCKETS_MS[-1] + 1


def test_the_memory_of_open_steps_is_bounded() -> None:
    tally = Tally()
    for number in range(MAX_OPEN + 1):
        tally.began(f"o-{number}", 1, number)
    assert tally.took("o-0", 1, 10) is None
    assert tally.took("o-1", 1, 10) == 9
    assert tally.took("o-1", 1, 10) is None


def test_an_event_of_a_step_that_the_state_does_not_know_is_not_counted() -> None:
    tally = Tally()
    events = (ev.StepSucceeded(7, 1, b""), ev.StepAttempted(7, 2), ev.UndoSucceeded(7, 1))
    tally.confirmed(ev.Decision("o", "r", 1, events), SagaState("o", "r"), "Order")
    assert not tally.steps
    assert not tally.retries


class Changing(dict[str, int]):
    """A mapping that another thread changes during the first copies."""

    failures = 3

    def items(self) -> Any:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("dictionary changed size during iteration")
        return super().items()


def test_a_copy_that_a_change_got_in_the_way_of_is_made_again() -> None:
    assert copied(Changing(a=1)) == [("a", 1)]


def test_a_participant_counts_commands_and_outcomes() -> None:
    members = Members()
    member = members.member()
    metrics = ParticipantMetrics(member.engine, "payments")
    assert "granted no partition" in participant_readiness(member.engine, 1.0) or member.engine.partitions
    members.run()
    assert participant_readiness(member.engine, 1.0) == ""
    members.send("o-1")
    members.run()
    samples = scrape(metrics)
    assert value(samples, "saga_participant_handlers_running", service="payments") == 1
    assert value(samples, "saga_participant_partitions", service="payments", state="exact") == 1
    member.finish(SUCCESS)
    members.run()
    members.send("o-2")
    members.run()
    member.finish(DECLINED)
    members.run()
    samples = scrape(metrics)
    assert value(samples, "saga_participant_commands_total", service="payments") == 2
    assert value(samples, "saga_participant_outcomes_total", service="payments", outcome="success") == 1
    assert value(samples, "saga_participant_outcomes_total", service="payments", outcome="failure") == 1
    assert value(samples, "saga_participant_handlers_running", service="payments") == 0


class Nothing(Collector):
    def collect(self) -> Iterator[Any]:
        return iter(())


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return min(port, 65_000)


def test_the_probes_say_why_not() -> None:
    now_s, reason = 100.0, "partition 3: taking over"
    pulse = Pulse(lambda: now_s)
    telemetry = Telemetry(Nothing(), lambda age_s: reason if age_s < 50 else "", pulse)
    with telemetry.served(free_port(), "127.0.0.1") as port:
        assert get(port, "/livez") == (200, "ok\n")
        assert get(port, "/readyz") == (503, "partition 3: taking over\n")
        now_s += 40
        assert get(port, "/livez") == (503, "the loop has not turned for 40 s\n")
        now_s += 20
        pulse.beat()
        assert get(port, "/livez?verbose") == (200, "ok\n")
        assert get(port, "/readyz") == (200, "ok\n")
        assert get(port, "/readyz", "HEAD") == (200, "")
        assert get(port, "/")[0] == 404
        status, text = get(port, "/metrics")
        assert status == 200
        assert "python_info" in text


def test_a_reader_that_fails_answers_500(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: float) -> str:
        raise KeyError("x")

    with Telemetry(Nothing(), broken, Pulse()).served(free_port(), "127.0.0.1") as port:
        assert get(port, "/readyz")[0] == 500
    assert "could not be answered" in caplog.text


def test_a_taken_port_is_passed_over_and_port_0_serves_nowhere() -> None:
    def telemetry() -> Telemetry:
        return Telemetry(Nothing(), lambda _: "", Pulse())

    with telemetry().served(free_port(), "127.0.0.1") as first, telemetry().served(first, "127.0.0.1") as second:
        assert second > first
        assert get(second, "/livez")[0] == 200
    with telemetry().served(0) as nowhere:
        assert nowhere == 0
