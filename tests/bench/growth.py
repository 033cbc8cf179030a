"""What sagas cost that are over or wait: memory, disk and journal for each of them, and time of all that are under way.

    python -m tests.bench.growth [--finished 1000000] [--idle 1000000] [--json]

Orders are brought to their end, then so many sagas start that wait for a signal, then as many that sleep for days: by a
worker's engine with its stores in RocksDB and a log in memory that keeps nothing it has delivered. After each of these
stages another process opens the stores, takes over and rests for some seconds. Told are

- its resident memory then, and by how much a saga of the stage has added to it: after a garbage collection and a
  `malloc_trim`, and what RocksDB's caches hold by then included;
- the resident memory of the process that has made them, at its end: with the runs that it keeps warm;
- the bytes of the stores' files, and of the values of the journal's records, by saga;
- the processor time of the take-over.

And behind each kind of idle sagas, the engine's processor time by decision and decisions a second (clock time, with
what the log and the services take), while orders run on these stores and on empty ones in turn, in one process.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from orchestrator.participant.runner import settle_collector
from orchestrator.saga import Saga
from orchestrator.signals import signal
from tests.bench.engine import UNDER_WAY, Shop
from tests.bench.town import Log

ROUND = 50
"""Steps of the engine after which the log forgets."""
DAY_S = 86_400
R = TypeVar("R")


class Waiting(Saga[None, None]):
    go = signal()

    async def run(self, _: None) -> None:
        await self.receive(self.go)


class Sleeping(Saga[float, None]):
    async def run(self, seconds: float) -> None:
        await self.sleep(seconds)


@dataclass(frozen=True)
class Size:
    """How much is made and measured: sagas, orders of a round of each pace, rounds, seconds of rest."""

    finished: int
    idle: int
    orders: int = 2_000
    rounds: int = 7
    rest_s: float = 10.0


@dataclass(frozen=True)
class Filled:
    """One stage: its sagas, clock seconds, the bytes of its journal, and the process's memory at its end."""

    sagas: int
    seconds: float
    journal_bytes: int
    resident: int | None


@dataclass(frozen=True)
class Rested:
    """A process after its take-over and a rest; what cannot be known here is None."""

    resident: int | None
    stored: int
    takeover_ms: float


class Growing(Shop):
    """A shop with idle sagas, whose log forgets. `journal_bytes` are those of all records in its time."""

    def __init__(self, folder: Path, number: int, left: Log | None) -> None:
        super().__init__(folder, number, (Waiting.definition, Sleeping.definition), left)
        self.journal_bytes = 0
        self._steps = 0
        settle_collector()  # as the process of a worker does
        self.take_over()
        self.takeover_s = self.engine_s

    def step(self) -> None:
        super().step()
        self._steps += 1
        if self._steps % ROUND == 0:
            self.count()

    def count(self) -> None:
        """Adds up what has come to the journal since the last call, and has the log forget."""
        self.journal_bytes += sum(len(record.value or b"") for record in self.forget())

    def idle(self, kind: str, sagas: int) -> None:
        """So many begin, and wait for what does not come."""
        spread, end = random.Random(kind), self.decisions + sagas
        definition = Sleeping.definition if kind == "sleeping" else Waiting.definition
        started, before = 0, self.decisions
        while self.decisions < end:
            for _ in range(min(sagas - started, UNDER_WAY - (started - self.decisions + before))):
                payload = f"{spread.uniform(1, 10) * DAY_S:.3f}" if kind == "sleeping" else "null"
                self.start(definition, f"{kind}-{started:07d}", payload.encode())
                started += 1
            self.step()

    def rest(self, seconds: float) -> None:
        """Nothing happens for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.step()
            time.sleep(0.001)


def fill(folder: Path, left: Log | None, kind: str, sagas: int) -> tuple[Filled, Log]:
    """One process: makes so many sagas of a kind."""
    town, began = Growing(folder, 0, left), time.perf_counter()
    if kind == "finished":
        town.run(sagas)
    else:
        town.idle(kind, sagas)
    town.count()
    return Filled(sagas, time.perf_counter() - began, town.journal_bytes, _resident()), town.leave()


def rest(folder: Path, left: Log | None, seconds: float) -> tuple[Rested, Log]:
    """One process: takes over and rests."""
    town = Growing(folder, 0, left)
    town.rest(seconds)
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    resident = _resident()
    left = town.leave()
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Rested(resident, stored, round(1_000 * town.takeover_s, 1)), left


def _resident() -> int | None:
    """Bytes of this process in memory, where there is a `/proc`."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else None


def pace(folder: Path, left: Log | None, size: Size, number: int) -> tuple[dict[str, Any], Log]:
    """One process: orders on these stores and on empty ones in turn."""
    found: dict[str, list[tuple[float, float]]] = {"empty": [], "full": []}
    with tempfile.TemporaryDirectory() as fresh:
        towns = {"empty": Growing(Path(fresh), number, None), "full": Growing(folder, number, left)}
        for town in towns.values():
            town.rest(size.rest_s / 2)
            town.run(min(500, size.orders))
        settle_collector()
        for turn in range(size.rounds):
            for name in sorted(towns, reverse=bool(turn % 2)):
                town = towns[name]
                before, town.engine_s, began = town.decisions, 0.0, time.perf_counter()
                town.run(size.orders)
                decisions = town.decisions - before
                found[name].append((1e6 * town.engine_s / decisions, decisions / (time.perf_counter() - began)))
        towns["empty"].leave()
        left = towns["full"].leave()
    pairs = list(zip(found["empty"], found["full"], strict=True))
    return {
        name: {"decision_us": _spread([us for us, _ in each], 1), "decisions_per_second": _spread([r for _, r in each])}
        for name, each in found.items()
    } | {
        "time_ratio": round(median(full[0] / empty[0] for empty, full in pairs), 3),
        "rate_ratio": round(median(full[1] / empty[1] for empty, full in pairs), 3),
    }, left


def _spread(values: list[float], digits: int | None = None) -> dict[str, float]:
    return {name: round(of(values), digits) for name, of in (("min", min), ("median", median), ("max", max))}


class Bench:
    """All stages, one after the other on the same stores, each in a process of its own."""

    def __init__(self, folder: Path, size: Size, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._size = size
        self._say = say
        self._left: Log | None = None

    def run(self) -> dict[str, Any]:
        """The figures."""
        size, load = self._size, os.getloadavg()[0]
        rested = self._alone(rest, size.rest_s)
        stages, paces = [], {}
        for number, (kind, sagas) in enumerate(
            [("finished", size.finished), ("waiting", size.idle), ("sleeping", size.idle)], start=1
        ):
            before = rested
            filled = self._alone(fill, kind, sagas)
            rested = self._alone(rest, size.rest_s)
            stages.append(_stage(kind, filled, before, rested))
            self._say(f"{kind}: {stages[-1]}")
            if kind != "finished":
                paces[kind] = self._alone(pace, size, number)
                self._say(f"beside {kind} ones: {paces[kind]}")
                rested = self._alone(rest, size.rest_s)
        return {
            **asdict(size),
            "processors": os.cpu_count(),
            "load_average_1m": [round(load, 2), round(os.getloadavg()[0], 2)],
            "stages": stages,
            "pace": paces,
        }

    def _alone(self, part: Callable[..., tuple[R, Log]], *arguments: Any) -> R:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found, self._left = pool.submit(part, self._folder, self._left, *arguments).result()
        return found


def _stage(kind: str, filled: Filled, before: Rested, after: Rested) -> dict[str, Any]:
    memory = None
    if before.resident is not None and after.resident is not None:
        memory = round((after.resident - before.resident) / filled.sagas, 1)
    return {
        "kind": kind,
        "sagas": filled.sagas,
        "seconds": round(filled.seconds, 1),
        "memory_bytes_each": memory,
        "resident_mb": _mb(after.resident),
        "maker_mb": _mb(filled.resident),
        "store_bytes_each": round((after.stored - before.stored) / filled.sagas, 1),
        "journal_bytes_each": round(filled.journal_bytes / filled.sagas, 1),
        "takeover_ms": after.takeover_ms,
    }


def _mb(size: int | None) -> float | None:
    return None if size is None else round(size / 1e6, 1)


def measure(size: Size, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The figures."""
    with tempfile.TemporaryDirectory() as folder:
        return Bench(Path(folder), size, say).run()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--finished", type=int, default=1_000_000)
    parser.add_argument("--idle", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args()
    result = measure(Size(given.finished, given.idle), lambda line: print(line, file=sys.stderr, flush=True))
    if given.json:
        print(json.dumps(result))
        return
    for row in result["stages"]:
        memory = "" if row["memory_bytes_each"] is None else f"{row['memory_bytes_each']:.0f} bytes of memory, "
        print(
            f"{row['sagas']:,} {row['kind']}: {memory}{row['store_bytes_each']:.0f} of the stores and "
            f"{row['journal_bytes_each']:.0f} of the journal each; taken over within {row['takeover_ms']:.0f} ms; "
            f"{row['maker_mb']} MB where they were made"
        )
    for kind, row in result["pace"].items():
        empty, full = row["empty"], row["full"]
        print(
            f"behind {kind} ones: {full['decision_us']['median']} µs a decision ({empty['decision_us']['median']} on "
            f"empty stores, times {row['time_ratio']}), {full['decisions_per_second']['median']:,} a second (times "
            f"{row['rate_ratio']})"
        )


if __name__ == "__main__":
    main()
