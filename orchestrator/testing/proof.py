"""Proves of one saga and one input that it is completed or fully compensated, whatever goes wrong on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from orchestrator.service import Command
from orchestrator.testing.end import End
from orchestrator.testing.faults import Fault, Faults, read_faults
from orchestrator.testing.saga_test import START, SagaTest
from orchestrator.testing.trial import Court, Trial

I = TypeVar("I")  # noqa: E741 - input, beside O for output
O = TypeVar("O")  # noqa: E741


ALIKE = 2
"""So many of what looks the same are disturbed."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was tried. `ways`: how the saga can go by its services and by who cancels it; `cases`: those, disturbed too.

    `statuses`: how many cases ended so.
    """

    cases: int
    ways: int
    statuses: Counter[str] = field(default_factory=Counter)

    def __repr__(self) -> str:
        ends = ", ".join(f"{count:,} {status}" for status, count in self.statuses.most_common())
        return f"<{self.cases:,} cases over {self.ways} ways: {ends}>"


def prove(
    test: SagaTest[I, O],
    input: I,
    *,
    id: str = "test",
    now: datetime = START,
    harmless: Collection[Command[..., Any, Any]] = (),
    check: Callable[[End[O]], object] | None = None,
    only: str | None = None,
) -> Proof:
    """Tries everything that can go wrong, systematically, and judges each case. Raises `AssertionError`.

    First each way the saga can go: every command refused; failing until its attempts are used up, with and without its
    effect; unanswered until its time is up; a cancel, and the saga's own timeout if it has one, before each arrival. On
    each way then, at each arrival: the owner crashes, its state is rebuilt from the events and its open commands are
    sent again; what arrives comes twice; what else was on its way arrives first. After the end all comes once more.

    Each case must end completed, or with every effect undone in the right order; past the pivot it goes forward, with a
    person who has tried again what is parked. `harmless` names commands that change nothing, so that they need no undo.
    `check` is asked about every end: it may assert, or say False. `only` repeats the one case that a failure names.
    """
    court = Court(test, input, id, now, harmless)
    if only is not None:
        trial = _heard(court, read_faults(only), check)
        if trial.problem is not None:
            _give_up(trial, 1, test)
        return Proof(1, 1, Counter([_status(trial)]))
    statuses: Counter[str] = Counter()

    def take(trials: list[Trial[O]]) -> None:
        wrong = [trial for trial in trials if trial.problem is not None]
        if wrong:
            _give_up(min(wrong, key=lambda trial: len(trial.arrivals)), statuses.total() + len(trials), test)
        statuses.update(map(_status, trials))

    ways: list[Trial[O]] = []
    for level in _levels(court, check):
        take(level)
        ways += level
    for way in ways:
        take([_disturbed(court, way, fault, check) for fault in _disturbances(way)])
    return Proof(statuses.total(), len(ways), statuses)


def _heard(
    court: Court[Any, O], faults: Faults, check: Callable[[End[O]], object] | None, *, replaying: bool = True
) -> Trial[O]:
    trial = court.hear(faults, replaying=replaying)
    if trial.problem is None and check is not None and trial.end is not None:
        try:
            if check(trial.end) is False:
                trial.problem = f"check(end) is False for {trial.end!r}"
        except AssertionError as failed:
            trial.problem = str(failed) or "check(end) failed"
    return trial


def _disturbed(court: Court[Any, O], way: Trial[O], fault: Fault, check: Callable[[End[O]], object] | None) -> Trial[O]:
    trial = _heard(court, (*way.faults, fault), check, replaying=False)
    if trial.problem is None and fault.kind != "swap":
        trial.problem = _other_than(way, trial)
    return trial


def _levels(court: Court[Any, O], check: Callable[[End[O]], object] | None) -> Iterator[list[Trial[O]]]:
    """The undisturbed cases: none, one and two faults. An undo's own are tried on the first way that comes to it."""
    base = _heard(court, (), check)
    yield [base]
    seen = {(asked.sequence, asked.direction) for asked in base.commands}
    undos: list[Faults] = []
    stops = ["cancel", *(["expire"] if court.has_timeout else [])]
    firsts = [Fault(kind, at) for at, asked in enumerate(base.commands, start=1) for kind in asked.troubles]
    firsts += [Fault(kind, at) for at in range(1, len(base.arrivals) + 1) for kind in stops]
    ways = [_heard(court, (fault,), check) for fault in firsts]
    yield ways
    for fault, way in zip(firsts, ways, strict=True):
        for at, asked in enumerate(way.commands, start=1):
            if (asked.sequence, asked.direction) not in seen:
                seen.add((asked.sequence, asked.direction))
                undos += [(fault, Fault(kind, at)) for kind in asked.troubles]
    yield [_heard(court, faults, check) for faults in undos]


def _disturbances(way: Trial[Any]) -> Iterator[Fault]:
    """What may happen at each arrival of one way. A command's third failure and later ones are as its second."""
    seen: Counter[object] = Counter()
    for at, arrival in enumerate(way.arrivals, start=1):
        seen[arrival.kind] += 1
        if seen[arrival.kind] > ALIKE:
            continue
        yield Fault("crash", at)
        yield Fault("twice", at)
        for other in range(1, arrival.others + 1):
            yield Fault("swap", at, other)


def _other_than(way: Trial[Any], trial: Trial[Any]) -> str | None:
    """A crash or a repeat must change nothing that counts."""
    assert way.end is not None
    assert trial.end is not None
    if trial.end.status is not way.end.status:
        return f"it ends {trial.end.status}, without the disturbance {way.end.status}"
    if trial.kept.keys() != way.kept.keys():
        differing = ", ".join(sorted(trial.kept.keys() ^ way.kept.keys()))
        return f"other effects take place than without the disturbance: {differing}"
    return None


def _status(trial: Trial[Any]) -> str:
    return "none" if trial.end is None else str(trial.end.status)


def _give_up(trial: Trial[Any], cases: int, test: SagaTest[Any, Any]) -> NoReturn:
    name = test.saga.definition.name
    repeat = ", ".join(map(str, trial.faults))
    raise AssertionError(
        f"{name} is not completed or fully compensated (the simplest of {cases:,} cases):\n{trial.told()}\n"
        f'repeat it with prove(..., only="{repeat}")'
    )
