"""`python -m tests.bench.recovery` measures what it says it does. How long it takes is nobody's promise here."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.checker.check import check
from tests.bench.recovery import MODULES, Recovery
from tests.e2e.shop import Shop

DECISIONS, LIVE = 400, 50


@pytest.fixture
def shop(broker: str, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(broker, prefix, tmp_path, partitions=1, workers=1, modules=MODULES)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_journal_is_recovered_with_a_standbys_store_with_its_own_and_without(shop: Shop) -> None:
    told: list[str] = []
    result = Recovery(shop, told.append).run(DECISIONS, LIVE)
    print(json.dumps(result))
    assert result["decisions"] >= DECISIONS
    assert result["standby"]["followed"] >= DECISIONS + LIVE
    assert result["snapshot"]["bytes"] > 0
    for case in ("warm_store", "restored_store", "intact_store", "lost_store"):
        assert 0 < result[case]["claim_ms"] <= result[case]["first_decision_ms"]
    assert result["lost_store"]["decisions_per_second"] > 0
    assert told
    verdict = check(shop.evidence())
    assert [each for each in verdict.violations if "C2: waiting-" not in each] == []  # those wait for a signal
    assert verdict.sagas == result["orders"] + LIVE + 4
