"""Journals that were cut on a real broker: owners, lists and checks go on with what stands in the archive."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.acls import PUBLISHERS
from orchestrator.archive.archiver import EVERY_MS, Archiver
from orchestrator.archive.journals import JournalArchive, whole_journal
from orchestrator.checker.check import check
from orchestrator.depot import Depot
from orchestrator.log.base import Record
from orchestrator.snapshots.vault import Vault
from tests.e2e.shop import MODULE, Shop, run_saga
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

PARTITIONS = 2


class CutShop(Shop):
    """A shop whose worker takes a snapshot every second; the test cuts its journals, as a worker does after days."""

    def prepare(self, depot: Depot) -> None:
        topic = self.names.journal
        with closing(self.log.admin()) as admin:
            topic_id = admin.describe([topic])[topic].topic_id
        self.vault, self.archive = Vault(depot), JournalArchive(depot, topic, topic_id)
        group = self.names.prefix + PUBLISHERS
        self.archiver = Archiver(self.log, self.archive, self.vault, topic_id, group, keep_ms=0, least=1)
        self.mono_ms = 0

    def bounds(self) -> dict[int, tuple[int, int]]:
        with closing(self.log.admin()) as admin:
            found = admin.ends([(self.names.journal, number) for number in range(self.partitions)])
        return {number: bounds for (_, number), bounds in found.items()}

    def cut(self) -> bool:
        """Whether something was cut off each journal by now."""
        self.mono_ms += EVERY_MS
        self.archiver.step(range(self.partitions), self.mono_ms, 1 << 42)
        return all(start for start, _ in self.bounds().values())

    def whole(self) -> dict[int, list[Record]]:
        found: dict[int, list[Record]] = {number: [] for number in range(self.partitions)}
        for record in whole_journal(self.log, self.names.journal, self.bounds(), self.archive):
            found[record.partition].append(record)
        return found


def test_a_worker_without_disk_and_snapshots_begins_with_the_archive(
    broker: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "depot")
    monkeypatch.setenv("SAGA_SNAPSHOTS", place)
    monkeypatch.setenv("SAGA_ARCHIVE", place)
    monkeypatch.setenv("SAGA_SNAPSHOT_EVERY_MS", "1000")
    (tmp_path / "shop").mkdir()
    shop = CutShop(broker, prefix, tmp_path / "shop", partitions=PARTITIONS, workers=1)
    shop.prepare(Depot(place))
    shop.start()
    try:
        for number in range(3):
            shop.order(20, f"before-{number}")
            assert eventually(
                lambda count=number + 1: all(len(shop.vault.list(n)) >= count for n in range(PARTITIONS)), 40
            )  # type: ignore[misc]
        assert eventually(shop.cut, 40), shop.archiver.failures
        worker = shop.processes["worker-1"]
        worker.kill()
        shutil.rmtree(tmp_path / "shop" / "stores")
        for number in range(PARTITIONS):
            shutil.rmtree(tmp_path / "depot" / f"partition-{number}")
        worker.start()
        shop.order(10, "after")
        assert "restored from the archive and the journal" in worker.told()

        options = ["-b", broker, "--development", "--prefix", prefix]
        listed = run_saga("list", "--json", *options)
        assert json.loads(listed.stdout)["counts"] == {"COMPLETED": 56, "COMPENSATED": 14}, listed.stderr
        shown = run_saga("show", "before-0-1", "--json", *options)
        assert json.loads(shown.stdout)["saga"]["status"] == "COMPLETED", shown.stderr
        replayed = run_saga("replay-check", MODULE, "--all", "--json", *options)
        assert json.loads(replayed.stdout)["checked"] == 70, replayed.stderr
        monkeypatch.delenv("SAGA_ARCHIVE")
        monkeypatch.setenv("SAGA_STATE_DIRECTORY", str(tmp_path / "elsewhere"))
        refused = run_saga("list", *options)
        assert refused.returncode == 1
        assert "the journal was cut, its beginning is needed" in refused.stderr
        verdict = check(replace(shop.evidence(), journal=shop.whole()))
    finally:
        shop.close()
        shop.archiver.close()
    assert verdict.violations == []
    assert verdict.sagas == 70
