"""A worker that follows what another owns, on a real broker: it takes over from its own store."""

import asyncio
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from orchestrator.client import Client
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.progress import Progress
from orchestrator.runtime.tenure import Phase
from orchestrator.runtime.worker import Worker
from orchestrator.store import keys
from orchestrator.store.rocks import RocksStores
from orchestrator.wire.tokens import TokenKeys
from tests.shop_cluster import shop
from tests.shop_world import PARTITIONS, Greeting
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

SAGAS = 40


def test_a_standby_takes_over_with_its_own_store(broker: str, prefix: str, tmp_path: Path) -> None:
    async def start() -> None:
        async with Client.connect(broker, prefix=prefix) as client:
            for number in range(SAGAS):
                await client.start(Greeting, "you", id=f"g-{number}")

    stores = RocksStores(tmp_path)
    with shop(broker, prefix, sagas=(Greeting,)) as (log, topics):
        definitions = {Greeting.definition.name: Greeting.definition}
        config = PartitionConfig(topics, PARTITIONS, TokenKeys({"k": b"0" * 16}), definitions)
        worker = Worker(log, config, stores, standby=True)

        def owned() -> int:
            return sum(each.phase is Phase.OWNING for each in list(worker.engine.tenures.values()))

        thread = Thread(target=worker.run, name="standby")
        thread.start()
        try:
            standby = worker.standby
            assert standby is not None
            assert eventually(lambda: owned() == len(standby.followed) == PARTITIONS // 2, 40)
            asyncio.run(start())
            followed, places = standby.followed, [(topics.journal, number) for number in range(PARTITIONS)]
            with closing(log.admin()) as admin:

                def read_all() -> bool:
                    ends = admin.ends(places)
                    if sum(end for _, end in ends.values()) < SAGAS + 2 * PARTITIONS:
                        return False  # not all are decided
                    return all(standby.next_offset(number) == ends[topics.journal, number][1] for number in followed)

                assert eventually(read_all)
            ends = {number: standby.next_offset(number) for number in followed}
        except BaseException:
            worker.stop()
            raise
    try:
        assert eventually(lambda: owned() == PARTITIONS, 40)
        assert standby.followed == frozenset()
    finally:
        worker.stop()
        thread.join()
    assert max(ends.values()) > 2
    held = 0
    for number in range(PARTITIONS):
        store = stores.open(number)
        assert Progress(store).at.offset >= ends.get(number, 0)
        held += len(list(store.scan(keys.RUNS)))
        store.close()
    assert held == SAGAS
