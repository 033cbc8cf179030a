"""A backup of a shop that works, on one real broker, and the shop that is made from it on another."""

import json
import sqlite3
from pathlib import Path

import pytest

from orchestrator.broker import SHORT_LIVED, provide
from tests.e2e.shop import MODULE, SERVICES, Shop, run_saga
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

PARTITIONS = 4
ORDERS = 120


def listed(broker: str, prefix: str) -> dict[str, str]:
    """Statuses by id, as `saga list` says them."""
    answer = run_saga("list", "--limit", "1000", "--json", "-b", broker, "--development", "--prefix", prefix)
    assert answer.returncode == 0, answer.stderr
    return {run["saga_id"]: run["status"] for run in json.loads(answer.stdout)["sagas"]}


def test_sagas_under_way_in_a_live_backup_end_in_another_cluster(
    broker: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = str(tmp_path / "backup")
    options = ["--development", "--prefix", prefix, "--json"]
    (tmp_path / "shop").mkdir()
    monkeypatch.setenv("SAGA_STATE_DIRECTORY", str(tmp_path / "state"))
    shop = Shop(broker, prefix, tmp_path / "shop", partitions=PARTITIONS, workers=1)
    shop.start()
    try:

        def take() -> None:
            answer = run_saga("backup", backup, "-b", broker, *options)
            assert answer.returncode == 0, answer.stderr
            assert json.loads(answer.stdout)["services"] == sorted(SERVICES)

        statuses = shop.order(ORDERS, "order", take, per_second=20)
    finally:
        shop.close()
    expected = {f"order-{number}": status for number, status in enumerate(statuses)}
    assert set(expected.values()) == {"COMPLETED", "COMPENSATED"}
    again = run_saga("restore", backup, MODULE, "-b", broker, *options)
    assert again.returncode == 1
    assert "not empty; a backup is restored where there is nothing of it" in again.stderr

    with provide(None, ephemeral=True, jvm=SHORT_LIVED) as provided:
        elsewhere = provided.bootstrap_servers
        answer = run_saga("restore", backup, MODULE, "-b", elsewhere, *options)
        assert answer.returncode == 0, answer.stderr
        # The services and what they wrote down are the same: their books are not Kafka's.
        monkeypatch.setenv("SAGA_STATE_DIRECTORY", str(tmp_path / "elsewhere"))
        (tmp_path / "other").mkdir()
        (tmp_path / "shop" / "books").rename(tmp_path / "other" / "books")
        other = Shop(elsewhere, prefix, tmp_path / "other", partitions=PARTITIONS, workers=1)
        other.start()
        try:
            # What comes is new, what has ended stays, and what was under way ends as it would have.
            assert other.order(5, "new") == ["COMPENSATED", *["COMPLETED"] * 4]

            def as_expected() -> bool:
                found.update(listed(elsewhere, prefix))
                return all(expected.get(saga_id, status) == status for saga_id, status in found.items())

            found: dict[str, str] = {}
            assert eventually(as_expected, 60), found
            assert len(found) > ORDERS // 4
        finally:
            other.close()
    for service in SERVICES:
        with sqlite3.connect(tmp_path / "other" / "books" / f"{service}.db") as book:
            effects = book.execute("SELECT saga_id, step, direction, run FROM book").fetchall()
        assert len(effects) == len(set(effects)), "an effect was repeated in the other cluster"
        # Only a start that waited in the inbox at the moment of the backup is run by both: each in a run of its own.
        twice = {saga_id for saga_id, step, direction, run in effects if run.startswith("2-") and saga_id in expected}
        assert len(twice) < ORDERS // 4
