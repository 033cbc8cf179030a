"""What one more decision costs where a saga's history is long, and what it costs to take such a saga up again.

    python -m tests.bench.histories [--events 1000 10000 100000] [--json]

One saga does one step after the other. At each length of its history the same number of further replies is decided, as
its owner does: decide, apply, encode for the journal, encode for the store. Told are the median and the 99th percentile
of the CPU microseconds of one decision, the milliseconds to load the run from its store and to replay its code, and the
bytes that the run takes in memory. The floor is the same for a saga that has just begun, measured between the others.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
import tracemalloc
from typing import Any

from pydantic import BaseModel

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.decide import decide
from orchestrator.model.driver import Driver
from orchestrator.model.messages import Outcome
from orchestrator.model.turn import Execution, Moment
from orchestrator.runtime.materialize import changes_of, load_state
from orchestrator.saga import Saga
from orchestrator.service import Service, command
from orchestrator.store.memory import MemoryStores
from orchestrator.wire.journal import write_decision

SAGA_ID = "long"
PARTITIONS = 4
FLOOR_EVENTS = 20


class Work(BaseModel):
    number: int


class Shop(Service):
    work = command(Work, str)


class Long(Saga[None, None]):
    """Goes on for ever."""

    async def run(self, _: None) -> None:
        number = 0
        while True:
            number += 1
            await self.step(Shop.work(number=number))


class Owner:
    """Decides one run's inputs as its partition does, into a store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStores().open(0)
        self.execution: Execution | None = None
        self.offset = 10
        self.events = 0
        self.take(msg.Start(SAGA_ID, "m-1", "Long", b"null"))

    def take(self, given: msg.Input) -> float:
        """Decides it; gives the CPU microseconds."""
        moment = Moment(1_000_000 + self.offset, 1, self.offset, PARTITIONS)
        began = time.thread_time_ns()
        self.execution, events, run = decide(self.execution, Long.definition, given, moment)
        assert self.execution is not None
        write_decision(ev.Decision(SAGA_ID, run, moment.now_ms, events))
        self.store.write(changes_of(self.execution.state))
        spent = time.thread_time_ns() - began
        self.offset += 1
        self.events += len(events)
        return spent / 1_000

    def answer(self) -> float:
        """Decides the reply to the step that is open."""
        assert self.execution is not None
        state = self.execution.state
        return self.take(msg.Reply(SAGA_ID, state.run, state.sequence, False, 1, Outcome.SUCCESS, b'"done"'))


def decisions(owner: Owner, count: int) -> list[float]:
    """CPU microseconds of so many further decisions."""
    gc.collect()
    gc.disable()
    try:
        return [owner.answer() for _ in range(count)]
    finally:
        gc.enable()


def taken_up(owner: Owner) -> tuple[float, float]:
    """Milliseconds to load the run, and to replay its code."""
    began = time.perf_counter()
    state = load_state(owner.store, SAGA_ID)
    loaded = time.perf_counter()
    assert state is not None
    driver = Driver(Long.definition, state)
    driver.catch_up()
    replayed = time.perf_counter()
    driver.detach()
    return (loaded - began) * 1_000, (replayed - loaded) * 1_000


def bytes_held(owner: Owner) -> int:
    """What the state and the live code take, by loading them once more."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    state = load_state(owner.store, SAGA_ID)
    assert state is not None
    driver = Driver(Long.definition, state)
    driver.catch_up()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    driver.detach()
    return after - before


def measure(lengths: list[int], count: int) -> dict[str, Any]:
    """The figures by length of the history, each beside the floor of the same minute."""
    owner = Owner()
    decisions(Owner(), count)  # warm
    found = []
    for length in sorted(lengths):
        while owner.events < length:
            owner.answer()
        spent = decisions(owner, count)
        floor = [micros for _ in range(count // FLOOR_EVENTS) for micros in decisions(Owner(), FLOOR_EVENTS)]
        load_ms, replay_ms = taken_up(owner)
        found.append(
            {
                "events": length,
                "decision_us": {
                    "p50": round(statistics.median(spent), 1),
                    "p99": round(sorted(spent)[-count // 100], 1),
                },
                "floor_us": {"p50": round(statistics.median(floor), 1)},
                "load_ms": round(load_ms, 1),
                "replay_ms": round(replay_ms, 1),
                "bytes": bytes_held(owner),
            }
        )
    return {"decisions_each": count, "by_length": found}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Cost of a decision by the length of the history")
    parser.add_argument("--events", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--decisions", type=int, default=1_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.events, given.decisions)
    if given.json:
        print(json.dumps(result))
        return
    for row in result["by_length"]:
        cost, floor = row["decision_us"], row["floor_us"]
        print(
            f"{row['events']:>8,} events: {cost['p50']:7.1f} µs a decision (p99 {cost['p99']:.1f}), "
            f"{floor['p50']:.1f} at the beginning; load {row['load_ms']:.1f} ms, replay {row['replay_ms']:.1f} ms, "
            f"{row['bytes'] / 1e6:.1f} MB",
            file=sys.stdout,
        )


if __name__ == "__main__":
    main()
