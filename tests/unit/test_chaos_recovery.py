"""What a killed worker's partitions may wait for, and what they may not."""

from __future__ import annotations

import pytest

from orchestrator.chaos.history import Struck
from orchestrator.chaos.recovery import AT_LATEST_MS, HINDERING, RECOVERED_WITHIN_MS, Kill, check_recovery
from orchestrator.chaos.schedule import KINDS, draw
from orchestrator.checker.evidence import Place, Verdict
from orchestrator.checker.ownership import Tenure

KILLED_MS = 900_000
KILL = Kill(7, KILLED_MS)
ELSEWHERE = ("poison", "inputs-duplicated", "service-frozen", "claim-forged", "start-repeated")


def after(passed_ms: int, faults: list[Struck]) -> tuple[list[int], Verdict]:
    """The verdict where partition 3 of a killed worker was decided so long afterwards by another one."""
    at_ms, verdict = KILLED_MS + passed_ms, Verdict()
    held = {3: [Tenure("vm-7", 1, 2, KILLED_MS - 5), Tenure("vm-8", at_ms - 1, at_ms, at_ms + 9)]}
    return check_recovery(held, [KILL], faults, verdict), verdict


def fault(kind: str, begin_ms: int, heal_ms: int | None) -> Struck:
    return Struck(1, kind, "", KILLED_MS + begin_ms, None if heal_ms is None else KILLED_MS + heal_ms)


def often(kinds: tuple[str, ...], until_ms: int, lasts_ms: int = 100) -> list[Struck]:
    """One of these every four seconds."""
    return [fault(kinds[at % len(kinds)], 4_000 * at, 4_000 * at + lasts_ms) for at in range(until_ms // 4_000 + 1)]


def test_only_what_may_keep_an_owner_away_excuses_a_late_one() -> None:
    passed_ms = RECOVERED_WITHIN_MS + 1
    assert passed_ms < AT_LATEST_MS
    for faults in ([], often(ELSEWHERE, passed_ms), often(ELSEWHERE, passed_ms, lasts_ms=8_000)):
        times, verdict = after(passed_ms, faults)
        assert times == [passed_ms]
        (violation,) = verdict.violations
        assert violation.startswith(f"C14: partition 3 was decided {passed_ms} ms after the kill of 7")
        assert verdict.places[violation] == Place(3, first_ms=KILLED_MS, last_ms=KILLED_MS + passed_ms)
        assert after(passed_ms - 1, faults)[1].violations == []


@pytest.mark.parametrize("kind", ["broker-frozen-long", "worker-killed", "worker-cut-off"])
def test_what_may_keep_an_owner_away_gives_it_time_from_when_it_is_healed(kind: str) -> None:
    healed = fault(kind, 5_000, 20_000)
    assert after(RECOVERED_WITHIN_MS + 20_000, [healed])[1].violations == []
    assert len(after(RECOVERED_WITHIN_MS + 20_001, [healed])[1].violations) == 1
    assert after(AT_LATEST_MS, [fault(kind, 5_000, None)])[1].violations == []
    before, later = fault(kind, -9_000, -1), fault(kind, RECOVERED_WITHIN_MS + 2, None)
    assert len(after(RECOVERED_WITHIN_MS + 1, [before, later])[1].violations) == 1


def test_however_faults_overlap_there_is_an_end_to_it() -> None:
    kinds = tuple(sorted(HINDERING))
    faults = [*often(kinds, 600_000, lasts_ms=9_000), fault("brokers-rolled", -5, None)]
    assert after(AT_LATEST_MS, faults)[1].violations == []
    assert len(after(AT_LATEST_MS + 1, faults)[1].violations) == 1


@pytest.mark.parametrize("seed", [1, 2, 3, 2028])
def test_a_partition_without_an_owner_for_ten_minutes_is_told_in_the_middle_of_an_hour(seed: int) -> None:
    faults = [
        Struck(each.number, each.kind.name, "", int(1000 * each.begin_s), int(1000 * each.end_s))
        for each in draw(seed, 3_600)
    ]
    assert len(after(600_000, faults)[1].violations) == 1
    assert after(30_000, faults)[1].violations == []


def test_faults_of_three_lanes_keep_owners_away() -> None:
    assert {kind.lane.value for kind in KINDS if kind.name in HINDERING} == {"brokers", "workers", "links"}
    assert HINDERING.isdisjoint(ELSEWHERE)


def test_where_nobody_follows_it_is_told_as_such() -> None:
    verdict = Verdict()
    assert check_recovery({3: [Tenure("vm-7", 1, 2, 3)]}, [KILL], [], verdict) == []
    assert verdict.violations == ["C14: partition 3: nobody decided after the kill of 7"]
    assert verdict.places[verdict.violations[0]].partition == 3
