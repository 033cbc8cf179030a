"""C14: each partition of a worker that was killed has an owner again that decides, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.chaos.history import Struck
from orchestrator.chaos.schedule import KINDS, Lane
from orchestrator.checker.evidence import Place, Verdict
from orchestrator.checker.ownership import Tenures, owned_by, taken_over

RECOVERED_WITHIN_MS = 60_000
"""From the kill, or from when the last fault was over that may keep an owner away, to the next accepted decision.

The longest of an hour of chaos was 14 s.
"""
AT_LATEST_MS = 120_000
"""From the kill, however faults overlap: twice the longest of that hour, in which a broker stood still for a minute.

Something that may keep an owner away is nearly always broken, so most of the time this is the bound.
"""
HINDERING = frozenset(kind.name for kind in KINDS if kind.lane in (Lane.BROKERS, Lane.WORKERS, Lane.LINKS))
"""Kinds of faults that may keep an owner away: brokers do not answer, or workers are struck.

Any worker, for the group waits for each of its members before it gives a partition to one. Services that stand still,
repeats and rubbish keep nobody away.
"""


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker process that was killed: its number, and when, in milliseconds since 1970."""

    pid: int
    at_ms: int


def check_recovery(held: Tenures, kills: Sequence[Kill], faults: Sequence[Struck], verdict: Verdict) -> list[int]:
    """For each partition of each killed process the milliseconds to its next owner's first decision."""
    times = []
    hindering = [each for each in faults if each.kind in HINDERING]
    for kill in kills:
        again = taken_over(held, kill.pid, kill.at_ms)
        for partition in sorted(owned_by(held, kill.pid, kill.at_ms)):
            if partition not in again:
                verdict.blame(
                    "C14",
                    f"partition {partition}: nobody decided after the kill of {kill.pid}",
                    Place(partition, first_ms=kill.at_ms, last_ms=kill.at_ms + AT_LATEST_MS),
                )
                continue
            at_ms = again[partition].decision_ms
            times.append(at_ms - kill.at_ms)
            free_ms = at_ms - _hindered_until(kill.at_ms, at_ms, hindering)
            if free_ms > RECOVERED_WITHIN_MS or times[-1] > AT_LATEST_MS:
                verdict.blame(
                    "C14",
                    f"partition {partition} was decided {times[-1]} ms after the kill of {kill.pid}, "
                    f"{free_ms} ms after the last fault that may have kept its owner away",
                    Place(partition, first_ms=kill.at_ms, last_ms=at_ms),
                )
    return times


def _hindered_until(first_ms: int, last_ms: int, hindering: Sequence[Struck]) -> int:
    """When in this span the last of these faults was still there; the beginning where there was none."""
    until = [each.heal_ms or last_ms for each in hindering if each.during(first_ms, last_ms)]
    return min(last_ms, max([first_ms, *until]))
