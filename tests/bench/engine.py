"""What the engine costs by itself: the owner's part of three-step orders, with broker and services in this process.

    python -m tests.bench.engine [--sagas 3000] [--json]

Each process owns partitions of a log in memory, with stores in RocksDB; 400 orders are under way at once, and every
command is answered at once. One process and two, one partition to 64, one saga type and a thousand. Told are the
decisions a second of all processes together (clock time, with what the log and the services take) and the processor
milliseconds of the engine's own steps by saga, over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from orchestrator.bench.figures import spread
from orchestrator.log.base import Record
from orchestrator.model.definition import Definition
from orchestrator.model.messages import Outcome
from orchestrator.participant.runner import settle_collector
from orchestrator.sagas.order_fulfilment import Order, OrderFulfilment
from orchestrator.wire.commands import ReplyMessage, read_command, reply_headers
from tests.bench.town import Log, Town

SERVICES = ("inventory", "payments", "shipping")
ANSWERS = {"reserve": b'{"warehouse":"A"}', "charge": b'{"payment_id":"p-1"}', "ship": b'"shipped"'}
DECISIONS = 4
"""Of an order: its start, and a reply to each step."""
UNDER_WAY = 400
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured. `types` is how many saga types the worker has."""

    processes: int = 1
    partitions: int = 4
    types: int = 1


CASES = (Case(), Case(processes=2), Case(partitions=1), Case(partitions=16), Case(partitions=64), Case(types=1_000))


class Shop(Town):
    """An owner of orders, and the services that answer every command at once."""

    def __init__(
        self,
        folder: Path,
        number: int,
        others: Sequence[Definition] = (),
        left: Log | None = None,
        partitions: int = 4,
    ) -> None:
        super().__init__(
            folder,
            [OrderFulfilment.definition, *others],
            partitions=partitions,
            services=SERVICES,
            left=left,
            feeds={},
        )
        self.shipped = 0
        self._number, self._started = number, 0
        self._commands, self._replies = self.log.reader(), self.log.appender()
        for service in SERVICES:
            for partition in range(partitions):
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


def work(sagas: int, case: Case, number: int) -> tuple[float, float]:
    """One process: its processor milliseconds by saga, and the clock seconds, of so many orders after a warm-up."""
    orders = OrderFulfilment.definition
    others = [replace(orders, name=f"Type{other}") for other in range(1, case.types)]
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder), number, others, partitions=case.partitions)
        shop.run(min(500, sagas))
        settle_collector()
        shop.engine_s, began = 0.0, time.perf_counter()
        shop.run(sagas)
        return 1_000 * shop.engine_s / sagas, time.perf_counter() - began


def measure(sagas: int, cases: Sequence[Case] = CASES, rounds: int = ROUNDS) -> dict[str, Any]:
    """The figures of each case, all of them in turn in every round."""
    found: dict[Case, list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            with ProcessPoolExecutor(case.processes, get_context("spawn")) as pool:
                parts = list(pool.map(partial(work, sagas, case), range(case.processes)))
            slowest = max(seconds for _, seconds in parts)
            found[case].append((median(ms for ms, _ in parts), case.processes * sagas * DECISIONS / slowest))
    return {
        "sagas_each": sagas,
        "rounds": rounds,
        "processors": os.cpu_count(),
        "cases": [
            {
                **asdict(case),
                "engine_ms_per_saga": spread([ms for ms, _ in each], 3),
                "decisions_per_second": spread([rate for _, rate in each], 0),
            }
            for case, each in found.items()
        ],
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What the engine costs by itself")
    parser.add_argument("--sagas", type=int, default=3_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.sagas)
    if given.json:
        print(json.dumps(result))
        return
    for row in result["cases"]:
        ms, rate = row["engine_ms_per_saga"], row["decisions_per_second"]
        print(
            f"{row['processes']} processes, {row['partitions']:2} partitions, {row['types']:4} types: "
            f"{ms['min']} / {ms['median']} / {ms['max']} ms a saga, "
            f"{rate['min']:,.0f} / {rate['median']:,.0f} / {rate['max']:,.0f} decisions a second"
        )


if __name__ == "__main__":
    main()
