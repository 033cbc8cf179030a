"""Many runs, some at a time: which points there are, and what became of the process that died at each."""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crashes.archiving import LOSSES, NOTHING
from tests.crashes.failpoints import Point, moments_of
from tests.crashes.run import Result, Run
from tests.crashes.victims import ARCHIVIST, INBOX, LEDGER, WORKER

VICTIMS = (WORKER, ARCHIVIST, INBOX, LEDGER)
COUNTING_RUNS = 3
"""How often a call is made varies a little with the clock: of so many runs the one that made most of them counts."""


_Wanted = tuple[str, Point | None, Point | None, str]
"""A victim, where it dies, where whoever comes after it dies, and what that one lacks."""


@dataclass
class Row:
    """Of one kind of call of one victim."""

    calls: int = 0
    points: int = 0
    died: int = 0
    violations: int = 0


@dataclass
class Report:
    """All runs together."""

    results: list[Result] = field(default_factory=list)
    calls: dict[str, Counter[str]] = field(default_factory=dict)
    """By victim: how often it makes each call."""
    seconds: float = 0.0

    @property
    def violations(self) -> list[str]:
        """Each with where it happened."""
        return [f"{each.place}: {what}" for each in self.results for what in each.violations]

    def rows(self) -> dict[tuple[str, str], Row]:
        """By victim and kind of call."""
        rows = {
            (victim, kind): Row(calls=number)
            for victim, counts in self.calls.items()
            for kind, number in sorted(counts.items())
        }
        for result in self.results:
            if result.point is not None:
                row = rows.setdefault((result.victim, result.point.kind), Row())
                row.points += 1
                row.died += result.died
                row.violations += bool(result.violations)
        return rows

    def as_json(self) -> dict[str, Any]:
        at_points = [each for each in self.results if each.point is not None]
        recovered = [each.recovery_s for each in at_points if each.recovery_s]
        return {
            "runs": len(self.results),
            "points": len(at_points),
            "died": sum(each.died for each in at_points),
            "missed": [each.place for each in at_points if not each.died],
            "deaths": sum(each.deaths for each in at_points),
            "violations": self.violations,
            "seconds": round(self.seconds, 1),
            "recovery_s": {
                "median": round(statistics.median(recovered), 2) if recovered else None,
                "most": round(max(recovered), 2) if recovered else None,
            },
            "by_call": {
                f"{victim} {kind}": [row.calls, row.points, row.died, row.violations]
                for (victim, kind), row in self.rows().items()
            },
        }

    def table(self) -> str:
        """For people."""
        lines = [f"{'victim and call':42} {'calls':>6} {'points':>7} {'died':>6} {'violated':>9}"]
        for (victim, kind), row in self.rows().items():
            lines.append(f"{victim + ' ' + kind:42} {row.calls:6} {row.points:7} {row.died:6} {row.violations:9}")
        told = self.as_json()
        lines.append(
            f"{told['points']} points, {told['died']} reached, {told['deaths']} deaths in {told['seconds']} s;"
            f" from a death to the last saga's end {told['recovery_s']['median']} s at the median,"
            f" {told['recovery_s']['most']} s at most; {len(told['violations'])} violations"
        )
        return "\n".join([*lines, *told["violations"]])


def points_of(calls: Counter[str]) -> list[Point]:
    """All that there are, by call, number and moment."""
    return [
        Point(kind, number, moment)
        for kind, most in sorted(calls.items())
        for number in range(1, most + 1)
        for moment in moments_of(kind)
    ]


class Campaign:
    """Runs on one broker, `lanes` at a time. `say` gets a line now and then."""

    def __init__(
        self, bootstrap_servers: str, root: Path, lanes: int, say: Callable[[str], None], **options: Any
    ) -> None:
        """`options` are each run's, such as `mutant`."""
        self._bootstrap_servers = bootstrap_servers
        self._root = root
        self._lanes = lanes
        self._say = say
        self._options = options
        self.report = Report()

    def count(
        self, victims: Iterable[str], runs: int = COUNTING_RUNS, *, surely: bool = False
    ) -> dict[str, list[Point]]:
        """The points of each victim that some of these runs without a death come to; `surely`: that all of them do."""
        wanted: list[_Wanted] = [(victim, None, None, NOTHING) for victim in victims for _ in range(runs)]
        for result in self._run(wanted):
            calls = self.report.calls.setdefault(result.victim, Counter(result.calls))
            self.report.calls[result.victim] = calls & result.calls if surely else calls | result.calls
        return {victim: points_of(calls) for victim, calls in self.report.calls.items()}

    def go(
        self, points: dict[str, list[Point]], *, every: int = 1, seed: int = 0, twice: bool = False, loss: str = ""
    ) -> None:
        """Every n-th of the points, which ones the seed says. `twice`: who comes back dies too, somewhere.

        `loss`: what an archivist lacks then; the seed says it where nothing is said.
        """
        pick = random.Random(seed)
        wanted: list[_Wanted] = []
        for victim, of_victim in points.items():
            for point in of_victim[pick.randrange(every) :: every]:
                lacks = (loss or pick.choice(LOSSES)) if victim == ARCHIVIST else NOTHING
                wanted.append((victim, point, pick.choice(of_victim) if twice else None, lacks))
        pick.shuffle(wanted)
        for number, _ in enumerate(self._run(wanted), 1):
            if number % 50 == 0:
                self._say(f"{number} of {len(wanted)} points, {len(self.report.violations)} violations")

    def _run(self, wanted: list[_Wanted]) -> Iterable[Result]:
        began = time.monotonic()

        def one(what: _Wanted) -> Result:
            victim, point, again, loss = what
            run = Run(self._bootstrap_servers, victim, point, self._root, again=again, loss=loss, **self._options)
            return run.go()

        with ThreadPoolExecutor(self._lanes) as pool:
            for result in pool.map(one, wanted):
                self.report.results.append(result)
                for what in result.violations:
                    self._say(f"{result.place}: {what} ({result.folder})")
                yield result
        self.report.seconds += time.monotonic() - began
