"""What a map over many rows holds: in memory, and in the history of each of its runs.

    python -m tests.bench.maps [--items 10000 100000] [--json]

For each number of items a process of its own maps a JSON Lines file of so many rows, with one local step for each, into
a file of results. Its engine is a worker's, with its store in RocksDB; the log is in memory and keeps nothing that was
read. Told are the clock seconds of the engine's steps (reading, functions and writing among them), the greatest memory
of the process and by how much that is above its memory after a first map of 1,000 items, both resident MB, the greatest
number of events of a run, and the number of runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator import Map, MapJob
from orchestrator.model.events import SagaEnded, Status
from orchestrator.wire.journal import Kind, read_decision, read_envelope
from tests.bench.town import Town

WARM_UP = 1_000
ROUND = 100
"""Steps of the engine between two looks at the journal."""


class Customer(BaseModel):
    id: str
    cents: int


def bill(customer: Customer) -> str:
    return f"{customer.id} owes {customer.cents}"


class Bills(Map[Customer, str]):
    async def item(self, customer: Customer) -> str:
        return await self.local(bill, customer)


class Office(Town):
    """An owner of maps with one partition. `events` are those of each run so far, `busy_s` the seconds of its steps."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "store", [Bills.definition], partitions=1)
        self.events: Counter[str] = Counter()
        self.busy_s = 0.0
        self._folder = folder
        self._ended: set[Status] = set()

    def map(self, items: int) -> int:
        """Maps so many rows; gives the lines of the results."""
        source, results = self._folder / f"{items}.jsonl", self._folder / f"{items}-results.jsonl"
        with source.open("w") as file:
            for number in range(items):
                file.write(f'{{"id":"c-{number:07d}","cents":{number}}}\n')
        self.events.clear()
        self._ended.clear()
        self.busy_s = 0.0
        job = MapJob(source=str(source), results=str(results)).model_dump_json().encode()
        self.start(Bills.definition, f"map-{items}", job)
        while not self._ended - {Status.CONTINUED_AS_NEW}:
            began = time.perf_counter()
            for _ in range(ROUND):
                self.step()
            self.busy_s += time.perf_counter() - began
            self._count()
        assert Status.COMPLETED in self._ended, self._ended
        with results.open() as file:
            return sum(1 for _ in file)

    def _count(self) -> None:
        """What has come to the journal."""
        for record in self.forget():
            envelope = read_envelope(record.value)
            decision = read_decision(envelope) if envelope.kind == Kind.DECISION else None
            if decision is not None:
                self.events[decision.run] += len(decision.events)
                self._ended |= {event.status for event in decision.events if isinstance(event, SagaEnded)}


def _peak_mb() -> float:
    """The greatest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def work(items: int) -> dict[str, Any]:
    """One process: its figures."""
    with tempfile.TemporaryDirectory() as folder:
        office = Office(Path(folder))
        office.map(WARM_UP)
        before = _peak_mb()
        lines = office.map(items)
        assert lines == items, lines
    return {
        "items": items,
        "seconds": round(office.busy_s, 3),
        "peak_mb": round(_peak_mb(), 1),
        "grown_mb": round(_peak_mb() - before, 1),
        "most_events": max(office.events.values()),
        "runs": len(office.events),
    }


def measure(items: list[int]) -> list[dict[str, Any]]:
    """The figures for each number of items, one process after the other."""
    found = []
    for count in items:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found.append(pool.submit(work, count).result())
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Memory and history of a map by the number of its rows")
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.items)
    if given.json:
        print(json.dumps(result))
        return
    for row in result:
        print(
            f"{row['items']:>9,} items: {row['seconds']:.1f} s; {row['peak_mb']:.1f} MB at most, {row['grown_mb']:.1f} "
            f"more than after {WARM_UP:,}; {row['runs']} runs of at most {row['most_events']:,} events"
        )


if __name__ == "__main__":
    main()
