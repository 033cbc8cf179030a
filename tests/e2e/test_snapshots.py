"""A worker that lost its disk, on a real broker: it begins with the snapshots, and every order has its outcome."""

import shutil
from pathlib import Path

import pytest

from orchestrator.checker.check import check
from orchestrator.depot import Depot
from orchestrator.snapshots.vault import Vault
from tests.e2e.shop import Shop
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

PARTITIONS = 2


def test_a_worker_without_its_disk_begins_with_snapshots(
    broker: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = Vault(Depot(str(tmp_path / "vault")))
    monkeypatch.setenv("SAGA_SNAPSHOTS", vault.depot.url)
    monkeypatch.setenv("SAGA_SNAPSHOT_EVERY_MS", "1000")
    shop = Shop(broker, prefix, tmp_path / "shop", partitions=PARTITIONS, workers=1)
    (tmp_path / "shop").mkdir()
    shop.start()
    try:
        shop.order(30, "before")
        ends = {partition: len(records) for partition, records in shop.journal().items()}
        assert eventually(
            lambda: all([each.offset for each in vault.list(number)[:1]] >= [ends[number] - 2] for number in ends), 40
        )
        worker = shop.processes["worker-1"]
        worker.kill()
        shutil.rmtree(tmp_path / "shop" / "stores")
        worker.start()
        shop.order(10, "after")
        verdict = check(shop.evidence())
    finally:
        shop.close()
    assert verdict.violations == []
    assert verdict.sagas == 40
    for number in range(PARTITIONS):
        assert f"partition {number}: restored from the snapshot of journal offset" in worker.told()
