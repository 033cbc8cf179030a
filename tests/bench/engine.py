"""What the engine costs by itself: the owner's part of three-step orders, with broker and services in this process.

    python -m tests.bench.engine [--sagas 3000] [--processes 1 2] [--json]

Each process owns four partitions of a log in memory, with stores in RocksDB; 400 orders are under way at once, and
every command is answered at once. Told are the decisions a second of all processes together (clock time, with what the
log and the services take) and the processor milliseconds of the engine's own steps by saga, the median of the rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from orchestrator.log.base import Record
from orchestrator.model.definition import Definition
from orchestrator.model.messages import Outcome
from orchestrator.sagas.order_fulfilment import Order, OrderFulfilment
from orchestrator.wire.commands import ReplyMessage, read_command, reply_headers
from tests.bench.town import Log, Town

PARTITIONS = 4
SERVICES = ("inventory", "payments", "shipping")
ANSWERS = {"reserve": b'{"warehouse":"A"}', "charge": b'{"payment_id":"p-1"}', "ship": b'"shipped"'}
DECISIONS = 4
"""Of an order: its start, and a reply to each step."""
UNDER_WAY = 400
ROUNDS = 3


class Shop(Town):
    """An owner of orders, and the services that answer every command at once."""

    def __init__(self, folder: Path, number: int, others: Sequence[Definition] = (), left: Log | None = None) -> None:
        super().__init__(
            folder,
            [OrderFulfilment.definition, *others],
            partitions=PARTITIONS,
            services=SERVICES,
            left=left,
            feeds={},
        )
        self.shipped = 0
        self._number, self._started = number, 0
        self._commands, self._replies = self.log.reader(), self.log.appender()
        for service in SERVICES:
            for partition in range(PARTITIONS):
                place = (self.topics.commands(service), partition)
                self._commands.assign(*place, self.log.partitions[place].end)

    def run(self, sagas: int) -> None:
        """So many orders to their end, and what the engine then still has to do."""
        end, left = self.shipped + sagas, sagas
        while self.shipped < end:
            starting = min(left, UNDER_WAY - (end - self.shipped - left))
            for _ in range(starting):
                self._order()
            left -= starting
            self.step()
        for _ in range(20):
            self.step()

    def step(self) -> None:
        super().step()
        for happening in self._commands.poll():
            assert isinstance(happening, Record), happening
            message = read_command(happening.headers, happening.value)
            answer = ReplyMessage(Outcome.SUCCESS, ANSWERS[message.command_type])
            self._replies.append(
                message.reply_to,
                message.reply_partition,
                answer.payload,
                key=happening.key,
                headers=reply_headers(message, answer),
                token=None,
            )
            self.shipped += message.command_type == "ship"
        self._replies.poll()

    def _order(self) -> None:
        self._started += 1
        saga_id = f"order-{self._number}-{self._started:07d}"
        order = Order(id=saga_id, sku="tea", cents=995).model_dump_json().encode()
        self.start(OrderFulfilment.definition, saga_id, order)


def work(sagas: int, number: int) -> tuple[float, float]:
    """One process: its processor milliseconds by saga, and the clock seconds, of so many orders after a warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder), number)
        shop.run(min(500, sagas))
        gc.collect()
        gc.freeze()
        shop.engine_s, began = 0.0, time.perf_counter()
        shop.run(sagas)
        return 1_000 * shop.engine_s / sagas, time.perf_counter() - began


def measure(sagas: int, processes: list[int], rounds: int = ROUNDS) -> dict[str, Any]:
    """The figures by number of processes, each number in turn in every round."""
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in processes}
    for _ in range(rounds):
        for count in processes:
            with ProcessPoolExecutor(count, get_context("spawn")) as pool:
                parts = list(pool.map(partial(work, sagas), range(count)))
            slowest = max(seconds for _, seconds in parts)
            found[count].append((median(ms for ms, _ in parts), count * sagas * DECISIONS / slowest))
    return {
        "sagas_each": sagas,
        "rounds": rounds,
        "processors": os.cpu_count(),
        "by_processes": [
            {
                "processes": count,
                "engine_ms_per_saga": round(median(ms for ms, _ in each), 3),
                "decisions_per_second": _spread([rate for _, rate in each]),
            }
            for count, each in found.items()
        ],
    }


def _spread(values: list[float]) -> dict[str, int]:
    return {"min": round(min(values)), "median": round(median(values)), "max": round(max(values))}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What the engine costs by itself")
    parser.add_argument("--sagas", type=int, default=3_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.sagas, given.processes)
    if given.json:
        print(json.dumps(result))
        return
    for row in result["by_processes"]:
        rate = row["decisions_per_second"]
        print(
            f"{row['processes']} processes: {row['engine_ms_per_saga']} ms a saga, "
            f"{rate['median']:,} decisions a second ({rate['min']:,} to {rate['max']:,})"
        )


if __name__ == "__main__":
    main()
