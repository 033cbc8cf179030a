"""One way a saga can go, with its faults, and the verdict on it: completed, or fully compensated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from orchestrator.checker.evidence import Verdict
from orchestrator.checker.journal import History, check_undone
from orchestrator.model import messages as msg
from orchestrator.model.divergence import name_in_history
from orchestrator.model.events import Event, Status
from orchestrator.model.messages import Override
from orchestrator.model.state import SagaState, StepStatus
from orchestrator.testing.end import AnyCommand, End
from orchestrator.testing.faults import Asked, Effect, Faults, FaultyServices
from orchestrator.testing.flights import Flight
from orchestrator.testing.histories import runs_of
from orchestrator.testing.running import Running
from orchestrator.testing.saga_test import SagaTest
from orchestrator.testing.stuck import why_stuck
from orchestrator.testing.world import World

I = TypeVar("I")  # noqa: E741 - input, beside O for output
O = TypeVar("O")  # noqa: E741

BY = "proof"
TOLD = 50
"""So many arrivals of a long way are told, from its beginning and from its end."""
MAX_DECISIONS = 20
"""How often a person decides about one saga."""


class Arrival(NamedTuple):
    """What came to the saga. `others`: how many could have come instead; `kind`: alike for attempts of one command."""

    words: str
    others: int
    kind: object


@dataclass(slots=True)
class Trial(Generic[O]):
    """What became of one case."""

    faults: Faults
    end: End[O] | None = None
    problem: str | None = None
    commands: list[Asked] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)
    """Steps and undos whose effect took place."""

    def told(self) -> str:
        """What went wrong, and what happened."""
        lines = [*(f"  {fault.words(self.commands)}" for fault in self.faults), f"→ {self.problem}"]
        arrivals = [f"  {number}. {arrival.words}" for number, arrival in enumerate(self.arrivals, start=1)]
        if len(arrivals) > 2 * TOLD:
            arrivals[TOLD:-TOLD] = [f"  ... and {len(arrivals) - 2 * TOLD:,} more"]
        return "\n".join([*lines, "what arrived:" if arrivals else "nothing arrived before that", *arrivals])


class Court(Generic[I, O]):
    """Tries cases of one saga, one input and its services."""

    def __init__(
        self,
        test: SagaTest[I, O],
        input: I,
        id: str,
        now: datetime,
        harmless: Collection[AnyCommand],
    ) -> None:
        self.test = test
        self.input = input
        self.id = id
        self.now = now
        self.harmless = harmless
        self._cases = 1

    @property
    def has_timeout(self) -> bool:
        """Whether the saga has a time of its own."""
        return self.test.saga.definition.execution_timeout_ms is not None

    def hear(self, faults: Faults, *, replaying: bool = True) -> Trial[O]:
        """Runs one case to its end, and judges it."""
        # A database that the cases share keeps their outcomes under one key each.
        self._cases += self.test.script.has_inbox
        services = FaultyServices(self.test.script, faults)
        world = self.test.world(self.id, self.now, services, self._cases, replaying=replaying)
        services.world = world
        world.tells_refusals = False
        trial: Trial[O] = Trial(faults, commands=services.commands)
        try:
            self.test.begin(world, self.input)
            _Way(world, services, trial).to_the_end()
            self._judge(world, services, trial)
            if replaying and trial.problem is None:
                _say_everything_again(world, trial)
        except AssertionError as failed:
            trial.problem = str(failed)
        finally:
            if world.execution is not None:
                world.execution.detach()
            services.close()
        return trial

    def _judge(self, world: World, services: FaultyServices, trial: Trial[O]) -> None:
        state = world.state
        trial.end = Running(self.test.saga, world).end()
        trial.kept = Counter(f"{effect.direction} of step {effect.sequence}" for effect in services.log)
        if 0 in state.parked:
            trial.problem = f"it is parked, for {trial.end.reason}"
        elif not state.ended:
            why = repr(trial.end) if state.parked else why_stuck(world, self.test.saga)
            trial.problem = f"it has no end: {why}"
        elif services.problems:
            trial.problem = services.problems[0]
        else:
            trial.problem = _verdict(world, services, self.harmless)


class _Way(Generic[O]):
    """Lets one saga go its way, and its faults happen."""

    def __init__(self, world: World, services: FaultyServices, trial: Trial[O]) -> None:
        self.world = world
        self.services = services
        self.trial = trial
        self.at = {(fault.kind, fault.at): fault for fault in trial.faults}
        self.decided = 0

    def to_the_end(self) -> None:
        world, trial = self.world, self.trial
        while not world.state.ended:
            number = len(trial.arrivals) + 1
            if ("cancel", number) in self.at and self.at.pop(("cancel", number)):
                world.take(msg.Cancel(world.saga_id, f"{BY}-cancel", None, "by the proof", BY))
                continue
            if ("expire", number) in self.at and self.at.pop(("expire", number)):
                world.expire()
                continue
            if ("crash", number) in self.at and self.at.pop(("crash", number)):
                world.crash()
            upcoming = world.upcoming()
            if upcoming and upcoming[0].repeat:
                world.arrive(upcoming[0])
                continue
            if not upcoming:
                if not self._ask_a_person():
                    return
                continue
            swap = self.at.get(("swap", number))
            flight = upcoming[min(swap.other, len(upcoming) - 1) if swap else 0]
            trial.arrivals.append(Arrival(_words(flight, world), len(upcoming) - 1, _kind(flight.input)))
            world.arrive(flight)
            if ("twice", number) in self.at:
                world.take(flight.input)
        for flight in list(world.flights):
            world.arrive(flight)

    def _ask_a_person(self) -> bool:
        """A step that is parked is tried again, and works this time. False: nobody can help."""
        state = self.world.state
        self.decided += 1
        if not state.parked or 0 in state.parked or self.decided > MAX_DECISIONS:
            return False
        self.services.calm = True
        self.world.take(msg.Unpark(state.saga_id, f"{BY}-{self.decided}", Override.RETRY, by=BY))
        return True


def _say_everything_again(world: World, trial: Trial[Any]) -> None:
    """All that ever came comes once more after the end, and must change nothing."""
    status, sent = world.state.status, len(world.sent)
    runs = (None, world.state.run, world.state.previous_run)
    for given in [each for each in world.taken if getattr(each, "run", None) in runs]:
        world.take(given)
    if world.state.status is not status or len(world.sent) != sent:
        trial.problem = "what came again after the end has changed it"


def _verdict(world: World, services: FaultyServices, harmless: Collection[AnyCommand]) -> str | None:
    """What is wrong with any of its runs."""
    for state, events in runs_of(world.decisions):
        log = [effect for effect in services.log if effect.key.split("/")[-3] == state.run]
        problem = _against_history(state, events) or _against_services(state, log, harmless)
        if problem is not None:
            return problem
    return None


def _against_history(state: SagaState, events: list[Event]) -> str | None:
    """What the events themselves say is wrong: which steps were undone, and in which order."""
    verdict = Verdict()
    check_undone(History(state.saga_id, state.run, 0, state, events), verdict)
    return next((str(violation) for violation in verdict.violations), None)


def _against_services(state: SagaState, log: list[Effect], harmless: Collection[AnyCommand]) -> str | None:
    """What the services' own log says is wrong: an effect that is kept and should not be, or the other way round."""
    forward = state.phase in (Status.COMPLETED, Status.CONTINUED_AS_NEW) or state.pivot_done
    undone: set[int] = set()
    done: dict[int, AnyCommand | str] = {}
    for effect in log:
        if effect.direction == "undo":
            undone.add(effect.sequence)
        elif effect.sequence in undone:
            return f"{effect.command} (step {effect.sequence}) was done behind its undo"
        else:
            done[effect.sequence] = effect.command
    for sequence, command in done.items():
        step = state.steps[sequence]
        certain = step.status is StepStatus.DONE
        if forward and certain:
            if sequence in undone:
                return f"{command} (step {sequence}) was undone, and the saga went on"
        elif step.undo_command is None and (state.pivot_done or isinstance(command, str)):
            continue  # on the way forward, and what a saga only calculates, needs no undo
        elif sequence not in undone and command not in harmless:
            why = "it has no undo" if step.undo_command is None else f"its undo is {step.status.lower()}"
            what = f"the saga is {state.phase}, and what {command} (step {sequence}) has done stays: {why}"
            return f"{what}. Give the step an undo; if the command changes nothing, name it in harmless=[...]"
    return None


def _kind(given: msg.Input) -> object:
    if isinstance(given, msg.Reply):
        return given.sequence, given.undo, given.outcome
    return type(given), getattr(given, "sequence", 0)


def _words(flight: Flight, world: World) -> str:
    given = flight.input
    if isinstance(given, msg.Reply):
        step = world.state.steps.get(given.sequence)
        who = "an earlier run" if step is None or given.run != world.state.run else name_in_history(step)
        undo = "the undo of " if given.undo else ""
        return f"{given.outcome} of {undo}{who}, attempt {given.attempt} of step {given.sequence}"
    if isinstance(given, msg.TimerDue):
        who = name_in_history(world.state.steps[given.sequence]) if given.sequence else "the saga"
        return f"the time of {who} is up"
    return f"{type(given).__name__.lower()} {getattr(given, 'name', '')}".rstrip()
