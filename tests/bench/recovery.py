"""How long a worker takes to go on where its partition's journal holds many decisions.

    python -m tests.bench.recovery [--decisions 100000] [--live 0] [--json]

Real orders run on one partition until its journal holds so many decisions, one order in five is undone; then so many
sagas start that wait for a signal. A standby follows the journal to its end, the worker is killed (kill -9), another
takes over four times: with the standby's store, with a snapshot of it, with the store as the dead one left it, and with
none. Told are the milliseconds from the opening of the store to the claim and to the first decision, by the broker's
append times, the processor time that the standby took, and the time and size of the snapshot.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from orchestrator.broker import SHORT_LIVED, provide
from orchestrator.checker.ownership import accepted
from orchestrator.config import load_settings
from orchestrator.depot import Depot
from orchestrator.log.kafka import KafkaLog
from orchestrator.model.rule import Kind
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.standby import Standby
from orchestrator.runtime.worker import Worker, WorkerIdentity
from orchestrator.sagas.order_fulfilment import OrderFulfilment
from orchestrator.snapshots.keeper import Keeper
from orchestrator.snapshots.restoring import Restoring
from orchestrator.snapshots.vault import Vault
from orchestrator.store.base import Store, Stores
from orchestrator.store.rocks import RocksStores
from orchestrator.wire import headers as h
from orchestrator.wire.journal import read_envelope
from tests.bench.growth import Waiting
from tests.e2e.shop import MODULE, Shop

BATCH = 2_000
"""Orders under way at once."""
MODULES = (MODULE, "tests.bench.growth:Waiting")
STORE = "worker-0"
WARM = "standby"
RESTORED = "restored"
JOURNAL = "the only one"
STARTS = 10_000
"""Waiting sagas that are started at once."""
SLOWEST_PER_SECOND = 500
"""Decisions that even a busy machine replays in a second: so long is waited for the order behind them."""


class WatchedStores:
    """The stores in a directory, and when the first of them was opened: a take-over begins with that."""

    def __init__(self, path: Path, vault: Vault) -> None:
        stores = RocksStores(path)
        self._stores: Stores = Restoring(stores, vault, JOURNAL) if path.name == RESTORED else stores
        self.opened_ms = 0

    def open(self, partition: int) -> Store:
        self.opened_ms = self.opened_ms or time.time_ns() // 1_000_000
        return self._stores.open(partition)

    def wipe(self, partition: int) -> None:
        self._stores.wipe(partition)


class Recovery:
    """A shop of one worker and one partition, and what its journal's recovery costs."""

    def __init__(self, shop: Shop, say: Callable[[str], None]) -> None:
        self.shop = shop
        self.vault = Vault(Depot(str(shop.folder / "vault")))
        self._say = say
        self._orders = 0

    def fill(self, decisions: int) -> None:
        """Runs orders until the journal holds so many decisions."""
        self.shop.start()
        began = time.monotonic()
        while (held := self._held()) < decisions:
            # An order takes at least four decisions.
            self._order(min(BATCH, math.ceil((decisions - held) / 4)))
            self._say(f"{self._orders} orders in {time.monotonic() - began:.0f} s")

    def wait(self, live: int) -> None:
        """Starts so many sagas that wait for a signal; returns when each has been decided."""
        end, began, inbox = self._held() + live, time.monotonic(), self.shop.names.inbox
        wake = Event()
        appender = self.shop.log.appender(wake=wake)
        headers = h.write_headers({h.SAGA_TYPE: Waiting.definition.name})
        for number in range(live):
            appender.append(inbox, 0, b"null", key=b"waiting-%07d" % number, headers=headers, token=None)
            if (number + 1) % STARTS == 0 or number + 1 == live:
                while self._held() < end - live + number + 1:
                    wake.wait(0.1)
                    wake.clear()
                    appender.poll()
                self._say(f"{number + 1} sagas wait after {time.monotonic() - began:.0f} s")
        appender.close(5.0)

    def stand_by(self) -> dict[str, Any]:
        """Follows the journal in this process until nothing is unread."""
        wake, cpu_s = Event(), time.process_time()
        stores = RocksStores(self.shop.folder / "stores" / WARM)
        new_reader = partial(self.shop.log.reader, wake=wake)
        standby = Standby(stores, new_reader, self.shop.names.journal, self.shop.partitions, lambda number: False)
        end = self._held()
        while standby.next_offset(0) < end + 2:
            if not standby.step(time.monotonic_ns() // 1_000_000):
                wake.wait(0.1)
                wake.clear()
        standby.close()
        found = {"followed": end, "cpu_ms": round((time.process_time() - cpu_s) * 1000)}
        self._say(f"standby: {found}")
        return found

    def keep(self) -> dict[str, Any]:
        """Takes a snapshot of the standby's store."""
        store = RocksStores(self.shop.folder / "stores" / WARM).open(0)
        keeper = Keeper(self.vault, self.shop.folder / "scratch", JOURNAL, 0)
        began = time.monotonic()
        keeper.step({0: store}, 0, 0)
        store.close()
        size = sum(manifest.size for manifest in self.vault.list(0))
        found = {"ms": round((time.monotonic() - began) * 1000), "bytes": size}
        self._say(f"snapshot: {found}")
        return found

    def take_over(self, name: str, store: str = STORE) -> dict[str, Any]:
        """Times of one take-over by a worker of this name, in this process; one order shows that it goes on."""
        stores = WatchedStores(self.shop.folder / "stores" / store, self.vault)
        settings = load_settings({"development": True, "partitions": self.shop.partitions})
        log = KafkaLog(self.shop.bootstrap_servers, consumer=settings.group_consumer)
        definitions = {each.name: each for each in (OrderFulfilment.definition, Waiting.definition)}
        config = PartitionConfig(self.shop.names, self.shop.partitions, settings.token_keys(), definitions)
        gc.collect()
        worker = Worker(log, config, stores, identity=WorkerIdentity(name))
        thread = Thread(target=worker.run, name=name)
        load, cpu_s = os.getloadavg()[0], time.process_time()
        thread.start()
        try:
            self._order(1)
            cpu_s = time.process_time() - cpu_s
        finally:
            worker.stop()
            thread.join()
        mine = [each for each in accepted(self.shop.journal()[0]) if each.owner == name]
        claim_ms = next(each.at_ms for each in mine if each.is_claim)
        decision_ms = next(each.at_ms for each in mine if not each.is_claim)
        found = {
            "claim_ms": claim_ms - stores.opened_ms,
            "first_decision_ms": decision_ms - stores.opened_ms,
            "effects_sent_again": worker.engine.counters["resent"],
            "cpu_ms": round(cpu_s * 1000),
            "load_average_1m": round(load, 2),
        }
        self._say(f"{name}: {found}")
        return found

    def lose_store(self) -> None:
        """Deletes what the worker keeps on disk."""
        shutil.rmtree(self.shop.folder / "stores")

    def run(self, decisions: int, live: int = 0) -> dict[str, Any]:
        """All of it. Leaves the services running and no worker."""
        self.shop.result_within_s += (decisions + live) / SLOWEST_PER_SECOND
        self.fill(decisions)
        self.wait(live)
        standby = self.stand_by()
        self.shop.processes["worker-1"].kill()
        snapshot = self.keep()
        warm = self.take_over("warm-store", WARM)
        restored = self.take_over("restored-store", RESTORED)
        records = self.shop.journal()[0]
        held = sum(bool(envelope.body) for envelope in map(_envelope, records) if envelope.kind == Kind.DECISION)
        size = sum(len(record.value or b"") for record in records)
        del records
        intact = self.take_over("intact-store")
        self.lose_store()
        lost = self.take_over("lost-store")
        return {
            "decisions": held,
            "orders": self._orders - 4,
            "live": live,
            "journal_mib": round(size / (1 << 20), 1),
            "processors": os.cpu_count(),
            "standby": standby,
            "snapshot": snapshot,
            "warm_store": warm,
            "restored_store": restored,
            "intact_store": intact,
            "lost_store": {**lost, "decisions_per_second": round(held / max(lost["claim_ms"], 1) * 1000)},
        }

    def _order(self, count: int) -> None:
        self.shop.order(count, f"batch-{self._orders}")
        self._orders += count

    def _held(self) -> int:
        """Records of the journal without its genesis and its claim: decisions, save a mark now and then."""
        journal = self.shop.names.journal
        admin = self.shop.log.admin()
        try:
            return admin.ends([(journal, 0)])[journal, 0][1] - 2
        finally:
            admin.close()


def _envelope(record: Any) -> Any:
    return read_envelope(record.value)


def main() -> None:
    """One measurement with a broker of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=100_000)
    parser.add_argument("--live", type=int, default=0, help="sagas that wait besides")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="saga-recovery-"))
    try:
        with provide(ephemeral=True, jvm=SHORT_LIVED) as broker:
            shop = Shop(broker.bootstrap_servers, "recovery-", folder, partitions=1, workers=1, modules=MODULES)
            try:
                result = Recovery(shop, lambda line: print(line, file=sys.stderr, flush=True)).run(
                    arguments.decisions, arguments.live
                )
            finally:
                shop.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
