"""The journal's part of the check: rule R, positions, histories (C2, C4, C6, C10, C12)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from orchestrator.checker.evidence import Evidence, Verdict
from orchestrator.checker.inputs import Inputs
from orchestrator.model import events as ev
from orchestrator.model.calls import awaits_answer
from orchestrator.model.evolve import BrokenHistory, evolve, transition_of
from orchestrator.model.messages import KEPT_MESSAGES, Called
from orchestrator.model.rule import JournalHalted, Kind, Rule
from orchestrator.model.state import FINAL, WAITS, SagaState, Step, StepStatus
from orchestrator.runtime.materialize import begins_run
from orchestrator.wire.avro import UnreadableRecord
from orchestrator.wire.journal import Envelope, read_decision, read_envelope


@dataclass(slots=True)
class History:
    """One run as the accepted journal tells it."""

    saga_id: str
    run: str
    partition: int
    state: SagaState
    events: list[ev.Event] = field(default_factory=list)
    life: int = 0
    """So often had its saga been forgotten when it began."""
    moved_ms: int = 0
    """The time of its last decision."""


@dataclass(frozen=True, slots=True)
class Rung:
    """What waited for a time and came at `at_ms`. `since_ms`: it was due, its partition owned, its run still."""

    saga_id: str
    what: str
    due_ms: int
    since_ms: int
    at_ms: int


@dataclass(slots=True)
class Accepted:
    """All accepted decisions of all partitions."""

    histories: dict[tuple[str, str], History] = field(default_factory=dict)
    messages: dict[str, tuple[dict[str, None], dict[str, None]]] = field(
        default_factory=lambda: defaultdict(lambda: ({}, {}))
    )
    """By saga those that its owner must know, the newest since it was forgotten; second those that had a run begin."""
    cut: set[str] = field(default_factory=set)
    """Sagas of whose inputs some need not be known any more, though the saga is."""
    forgotten: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    """By saga the runs that were forgotten, each with the time: what is sent again after that is new."""
    events: dict[type, list[tuple[History | None, Any]]] = field(default_factory=lambda: defaultdict(list))
    """By kind, each with its run if it has one."""
    sent: Counter[tuple[int, int]] = field(default_factory=Counter)
    """By the partitions that it goes from and to, how much one had for the other."""
    taken: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How much of it was taken."""
    claimed_ms: dict[int, int] = field(default_factory=dict)
    """By partition when its owner claimed it."""
    rung: list[Rung] = field(default_factory=list)
    """What came later than it could have."""

    def of_runs(self, *kinds: type) -> Iterator[tuple[History, Any]]:
        """The events of these kinds that belong to a run."""
        for kind in kinds:
            for history, event in self.events[kind]:
                if history is not None:
                    yield history, event

    def of_commands(self, *kinds: type) -> Iterator[tuple[History, Any]]:
        """Those of them that are about a service's step."""
        for history, event in self.of_runs(*kinds):
            if history.state.steps[event.sequence].kind is ev.StepKind.SERVICE:
                yield history, event


def read_journal(evidence: Evidence, verdict: Verdict) -> Accepted:
    """Applies rule R to every partition; checks C6 and C10 on the way."""
    accepted = Accepted()
    inputs = Inputs(evidence, accepted, verdict)
    for partition, records in evidence.journal.items():
        rule = Rule()
        positions: dict[str, int] = {}
        for record in records:
            try:
                envelope = read_envelope(record.value)
                counts = rule.accept(
                    envelope.kind, envelope.nonce, envelope.seq, envelope.prev_hash, record.offset, record.value or b""
                )
                decision = read_decision(envelope) if counts and envelope.kind == Kind.DECISION else None
            except (UnreadableRecord, JournalHalted) as error:
                verdict.blame("C6", f"journal {partition} at offset {record.offset}: {error}")
                break
            if not counts:
                verdict.dropped += 1
                continue
            if envelope.kind == Kind.CLAIM:
                accepted.claimed_ms[partition] = record.timestamp_ms
                inputs.claimed(partition)
            if envelope.kind == Kind.DECISION:
                inputs.moved(partition, positions, envelope.input_positions, decision)
                _check_positions(partition, record.offset, envelope, decision, positions, verdict)
            if decision is not None:
                verdict.decisions += 1
                _check_passages(partition, record.offset, decision, accepted, verdict)
                _apply(partition, record.offset, decision, accepted, verdict)
                inputs.applied(partition, decision)
        inputs.ended(partition)
    for way in accepted.sent | accepted.taken if evidence.settled else ():
        if accepted.sent[way] != accepted.taken[way]:
            words = f"partition {way[0]} had {accepted.sent[way]} messages for {way[1]}"
            verdict.blame("C10", f"{words}, which took {accepted.taken[way]}")
    verdict.absorbed = len(accepted.events[ev.InputAbsorbed])
    return accepted


def _check_positions(
    partition: int,
    offset: int,
    envelope: Envelope,
    decision: ev.Decision | None,
    positions: dict[str, int],
    verdict: Verdict,
) -> None:
    """C10: positions never go back, and an input is decided where the position stood, not again."""
    for role, position in envelope.input_positions.items():
        before = positions.get(role, -1)
        if position < before:
            verdict.blame("C10", f"journal {partition} at {offset}: {role} went back from {before} to {position}")
        if decision is not None and decision.source == role:
            taken = decision.source_offset
            if taken < before or taken + 1 > position:
                verdict.blame(
                    "C10", f"journal {partition} at {offset}: {role} {taken} decided between {before} and {position}"
                )
        positions[role] = position


def _check_passages(partition: int, offset: int, decision: ev.Decision, accepted: Accepted, verdict: Verdict) -> None:
    """C10: what one partition has for another is numbered without a gap, and taken once, in that order."""
    ways = [(accepted.taken, (decision.internal_partition, partition), decision.internal_counter)]
    for event in decision.events:
        if isinstance(event, ev.InputSent | ev.InputForwarded):
            ways.append((accepted.sent, (partition, event.target), event.counter))
    for numbers, way, number in ways if decision.internal_partition >= 0 else ways[1:]:
        numbers[way] += 1
        if number != numbers[way]:
            words = f"message {number} from partition {way[0]} to {way[1]}"
            verdict.blame("C10", f"journal {partition} at {offset}: {words} comes as number {numbers[way]}")
            numbers[way] = number


_ABOUT_STEPS = {kind for kind in get_args(ev.Event) if any(field.name == "sequence" for field in fields(kind))} - {
    ev.InputAbsorbed
}
NOTED_ABOVE_MS = 1_000
"""What comes so late at most is not noted."""
_TIMED = {ev.SagaBegun, ev.WaitExpired, ev.StepAttempted, ev.UndoAttempted}
"""What waits for a time."""
_WAITS_OVER = (
    *(ev.WaitExpired, ev.SignalTaken, ev.PromiseKept, ev.PromiseBroken, ev.UpdateAccepted, ev.CancelRaised),
    *(ev.LockTaken, ev.LockRefused),
)
"""Outcomes that are no step's."""


def _apply(partition: int, offset: int, decision: ev.Decision, accepted: Accepted, verdict: Verdict) -> None:
    if decision.message_id:
        both, message_id = accepted.messages[decision.saga_id], decision.message_id
        if message_id in both[0] or message_id in both[1]:
            message = decision.saga_id, message_id
            verdict.blame("C10", f"journal {partition} at {offset}: message {message} was taken before")
        known = both[begins_run(decision)]
        known[message_id] = None
        if len(known) > KEPT_MESSAGES:
            del known[next(iter(known))]
            accepted.cut.add(decision.saga_id)
    history = _history(partition, decision, accepted) if decision.run else None
    for event in decision.events:
        kind = type(event)
        accepted.events[kind].append((history, event))
        if history is None:
            continue
        _note_transition(history.state, event, verdict)
        state = history.state
        if isinstance(event, ev.VersionChanged) and state.pinned and event.version != state.version and not event.by:
            verdict.blame("C2", f"journal {partition} at {offset}: a pinned run changed its version by itself")
        if kind in _TIMED or (kind is ev.SagaForgotten and state.ended):
            _check_time(history, event, decision.at_ms, accepted, verdict)
        try:
            evolve(history.state, event, decision.at_ms)
        except BrokenHistory as broken:
            verdict.blame("C2", f"journal {partition} at {offset}: {broken}")
            return
        history.events.append(event)
        if kind is ev.SagaForgotten:
            accepted.messages.pop(decision.saga_id, None)
            accepted.forgotten[decision.saga_id].append((decision.run, decision.at_ms))
    if history is not None:
        history.moved_ms = decision.at_ms


def _history(partition: int, decision: ev.Decision, accepted: Accepted) -> History:
    key = (decision.saga_id, decision.run)
    history = accepted.histories.get(key)
    if history is None:
        history = accepted.histories[key] = History(
            decision.saga_id,
            decision.run,
            partition,
            SagaState(decision.saga_id, decision.run),
            life=len(accepted.forgotten.get(decision.saga_id, ())),
        )
    return history


def _note_transition(state: SagaState, event: ev.Event, verdict: Verdict) -> None:
    if type(event) in _ABOUT_STEPS:
        step = state.steps.get(event.sequence)  # type: ignore[union-attr]
        before = "None" if step is None else str(step.status)
    else:
        before = str(state.phase)
    verdict.transitions.add((before, transition_of(event)))


def _check_time(history: History, event: ev.Event, at_ms: int, accepted: Accepted, verdict: Verdict) -> None:
    """C12: nothing that waits for a time happens before it. How long after it is noted."""
    if not getattr(event, "by", ""):
        sequence = getattr(event, "sequence", 0)
        due = history.state.due_of(sequence)
        if due is None or at_ms < due:
            verdict.blame("C12", f"{history.saga_id}: {event} at {at_ms}, due {due}")
            return
        since = max(due, history.moved_ms, accepted.claimed_ms.get(history.partition, 0))
        if at_ms - since > NOTED_ABOVE_MS and not (sequence and history.state.steps[sequence].held):
            accepted.rung.append(Rung(history.saga_id, str(event), due, since, at_ms))


def check_histories(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    """C2 and C4 on every run."""
    ends = Counter((history.saga_id, history.run) for history, _ in accepted.of_runs(ev.SagaEnded))
    for history, event in accepted.of_runs(ev.CompensationStarted):
        ends[history.saga_id, history.run] -= event.cause in (ev.Cause.UNDONE, ev.Cause.RESET)
    for key, history in accepted.histories.items():
        state = history.state
        verdict.sagas += 1
        status = str(state.status)
        verdict.statuses[status] = verdict.statuses.get(status, 0) + 1
        if ends[key] > 1:
            verdict.blame("C2", f"{history.saga_id} ended {ends[key]} times")
        idle = state.phase in (ev.Status.WAITING_FOR_CODE, ev.Status.NOT_STARTED)
        kinds = {state.steps[step].kind for step in (*state.open, *state.undo_open)}
        others = kinds & {ev.StepKind.CHILD, ev.StepKind.CALL, ev.StepKind.LOCK}
        asks = others or any(map(awaits_answer, state.steps.values()))
        waits = state.parked or state.paused or idle or asks or _lasts(history)
        if evidence.settled and state.phase not in FINAL and not waits:
            verdict.blame("C2", f"{history.saga_id} is {status} after all is quiet")
        if state.phase in FINAL and state.phase is not ev.Status.TERMINATED:
            check_undone(history, verdict)


def is_answered(history: History, step: Step) -> bool:
    """Whether what a call or a lock waits for has come, and there is no code to hear it."""
    mailbox = history.state.mailbox
    return any(isinstance(given, Called) and given.sequence == step.sequence for given in mailbox)


def _lasts(history: History) -> bool:
    """Whether the saga is one that waits until it is told something."""
    if history.state.saga_type == "saga.schedule":
        told = [event.payload for event in history.events if isinstance(event, ev.Recorded)]
        inherited = [event.result for event in history.events if isinstance(event, ev.StepInherited)]
        notes = [note for note in (*inherited, *told) if b"paused" in note]
        return bool(notes) and b'["Bool",true]' in notes[-1]
    return history.state.saga_type in ("saga.lock", "saga.correlator", "Tally")


_NOT_TO_UNDO = {StepStatus.REFUSED, StepStatus.RECORDED, StepStatus.UPDATING, StepStatus.UPDATED, *WAITS}

_STEP_OVER = (ev.StepSucceeded, ev.StepRefused, ev.StepEndedUnknown)
_UNDO_OVER = (ev.UndoSucceeded, ev.UndoSkipped)


def check_undone(history: History, verdict: Verdict) -> None:
    """C4, from the events alone: exactly the done and unknown steps with an undo, in reverse order of scheduling."""
    state = history.state
    completed = state.phase in (ev.Status.COMPLETED, ev.Status.CONTINUED_AS_NEW)
    after: dict[int, int] = {}
    ended: dict[int, int] = {}
    undoable: set[int] = set()
    pivot: set[int] = set()
    happened: dict[int, str] = {}
    begun: dict[int, int] = {}
    due: dict[int, int] = {}
    """What is undone also where the saga goes on: from where in the history."""
    undone: dict[int, int] = {}
    outcomes, resetting = 0, False
    set_back: set[int] = set()
    compensating_from = len(history.events)
    for place, event in enumerate(history.events):
        if isinstance(event, ev.StepScheduled):
            after[event.sequence] = event.after
            if event.undo_command is not None:
                undoable.add(event.sequence)
            if event.pivot:
                pivot.add(event.sequence)
        elif isinstance(event, ev.StepInherited):
            after[event.sequence], ended[event.sequence] = event.after, event.ended
            outcomes += event.resolved > 0
            if event.undo_command is not None and event.status is StepStatus.DONE:
                undoable.add(event.sequence)
            if event.status is StepStatus.DONE:
                happened[event.sequence] = "StepSucceeded"
            if event.pivot:
                pivot.add(event.sequence)
        elif isinstance(event, _WAITS_OVER):
            outcomes += 1
        elif isinstance(event, _STEP_OVER):
            by_code = isinstance(event, ev.StepEndedUnknown) and event.cause is ev.UnknownCause.CANCELED
            outcomes += not by_code
            ended[event.sequence] = event.after if isinstance(event, ev.StepEndedUnknown) and by_code else outcomes
            happened[event.sequence] = type(event).__name__
            if isinstance(event, ev.StepEndedUnknown):
                due[event.sequence] = place
        elif isinstance(event, ev.CallRefused):
            due.pop(event.sequence, None)
        elif isinstance(event, ev.StepAbandoned):
            due[event.sequence] = place
        elif isinstance(event, ev.UndoScheduled):
            begun[event.sequence] = place
            if resetting:
                set_back.add(event.sequence)
        elif isinstance(event, _UNDO_OVER):
            undone[event.sequence] = place
        elif isinstance(event, ev.CompensationStarted):
            compensating_from = place
            resetting = event.cause is ev.Cause.RESET
    past_pivot = not state.forced and any(happened.get(sequence) == "StepSucceeded" for sequence in pivot)
    now = undoable & due.keys()
    done = {s for s in undoable if happened.get(s) == "StepSucceeded" and s >= state.keep}
    expected = (now if completed or past_pivot else now | done) | set_back  # also where a cancel came meanwhile
    if set(undone) != expected:
        verdict.blame("C4", f"{history.saga_id} {state.phase}: undone {sorted(undone)}, expected {sorted(expected)}")
    for sequence, place in begun.items():
        for later, later_after in after.items():
            waits = later > sequence and (place >= compensating_from or due.get(later, place) < place)
            if waits and later in undone and later_after >= ended[sequence] and undone[later] > place:
                verdict.blame(
                    "C4", f"{history.saga_id}: step {sequence} undone before step {later}, scheduled after it"
                )
