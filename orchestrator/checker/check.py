"""The verdict over all evidence: invariants C1 to C6 and C8 to C13."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from orchestrator.checker.calls import check_calls
from orchestrator.checker.evidence import Evidence, Verdict
from orchestrator.checker.journal import Accepted, History, check_histories, read_journal
from orchestrator.checker.lateness import check_lateness
from orchestrator.checker.locks import check_locks
from orchestrator.checker.reads import check_reads
from orchestrator.model import events as ev
from orchestrator.model.messages import ChildEnded
from orchestrator.model.state import StepStatus
from orchestrator.wire import headers as h


def check(evidence: Evidence) -> Verdict:
    """Everything that can be told from the evidence."""
    return examine(evidence)[0]


def examine(evidence: Evidence) -> tuple[Verdict, Accepted]:
    """The verdict, and the accepted histories it was told from."""
    verdict = Verdict()
    accepted = read_journal(evidence, verdict)
    check_lateness(evidence, accepted, verdict)
    check_histories(evidence, accepted, verdict)
    _check_told(evidence, accepted, verdict)
    _check_commands(evidence, accepted, verdict)
    _check_effects(evidence, accepted, verdict)
    _check_children(evidence, accepted, verdict)
    check_calls(accepted, verdict, settled=evidence.settled)
    check_locks(accepted, verdict, settled=evidence.settled)
    check_reads(evidence, accepted, verdict)
    return verdict, accepted


def _check_told(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    """C1: an accepted start has exactly one saga, a failed one none. C2: what was told is what the journal says.

    Where a saga was forgotten, a start that is sent again begins another.
    """
    firsts: Counter[tuple[str, int]] = Counter()
    begun: Counter[str] = Counter()
    ended: dict[str, set[str]] = {}
    for history in accepted.histories.values():
        if history.state.phase is not ev.Status.NOT_STARTED:
            firsts[history.saga_id, history.life] += not history.state.previous_run
            begun[history.saga_id] += not history.state.previous_run
    for history, event in accepted.of_runs(ev.SagaEnded):
        ended.setdefault(history.saga_id, set()).add(str(event.status))  # one that is reset or undone ends again
    for (saga_id, _), count in firsts.items():
        if count > 1:
            verdict.blame("C1", f"{saga_id} has {count} first runs")
    _check_chains(evidence, accepted, verdict)
    for told in evidence.told:
        count = begun[told.saga_id]
        if told.accepted is True and evidence.settled and not count:
            verdict.blame("C1", f"{told.saga_id} was accepted and has {count} first runs")
        if told.accepted is False and count:
            verdict.blame("C1", f"{told.saga_id} was refused and has {count} first runs")
        if told.status is not None and told.status not in ended.get(told.saga_id, ()):
            verdict.blame("C2", f"{told.saga_id}: told {told.status}, journal says {ended.get(told.saga_id)}")


def _check_chains(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    """C1: every further run follows one that ended and asked for it, which has no other successor."""
    followed: Counter[tuple[str, str]] = Counter()
    for history in accepted.histories.values():
        previous = history.state.previous_run
        if not previous:
            continue
        followed[history.saga_id, previous] += 1
        before = accepted.histories.get((history.saga_id, previous))
        if before is None or not before.state.ended or before.state.follows is None:
            verdict.blame("C1", f"{history.saga_id}: run {history.run} follows {previous}, which did not ask for it")
    for key, history in accepted.histories.items():
        wanted = history.state.follows is not None
        if followed[key] > 1 or (evidence.settled and followed[key] != wanted):
            verdict.blame("C1", f"{history.saga_id}: run {history.run} is followed by {followed[key]} runs")


def _key(history: History, sequence: int, direction: str) -> str:
    """The key as the documents promise it, on purpose not by the engine's code."""
    step = history.state.steps.get(sequence)
    run = history.run if step is None or not step.run else step.run  # one that it inherited
    return "/".join((history.saga_id, run, str(sequence), direction))


def _check_commands(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    """C9: every command on a service's topic was asked for by an accepted event. C8: and none of them is missing.

    C4: one run answers for the undo of a step, whoever inherits it.
    """
    issued: set[tuple[str, int]] = set()
    answered: set[str] = set()
    for history, event in accepted.of_commands(ev.StepScheduled, ev.StepAttempted):
        issued.add((_key(history, event.sequence, "do"), getattr(event, "attempt", 1)))
    for history, event in accepted.of_commands(ev.UndoScheduled, ev.UndoAttempted):
        issued.add((_key(history, event.sequence, "undo"), getattr(event, "attempt", 1)))
    for history, event in accepted.of_commands(ev.StepSucceeded, ev.StepRefused):
        if not getattr(event, "by", ""):
            answered.add(_key(history, event.sequence, "do"))
    for history, event in accepted.of_commands(ev.UndoSucceeded):
        if not event.by:
            answered.add(_key(history, event.sequence, "undo"))
    for history, event in accepted.of_runs(ev.StepInherited):
        if not event.run and event.undo_command is not None:
            verdict.blame("C4", f"{history.saga_id}, a fork, would undo step {event.sequence}, which is another saga's")
    undone_by: dict[str, str] = {}
    for history, event in accepted.of_runs(ev.UndoScheduled):
        key = _key(history, event.sequence, "undo")
        if undone_by.setdefault(key, history.run) != history.run:
            verdict.blame("C4", f"{key} is decided by the runs {undone_by[key]} and {history.run}")
    seen: set[str] = set()
    for service, partitions in evidence.commands.items():
        for records in partitions.values():
            for record in records:
                headers = dict(record.headers)
                if h.IDEMPOTENCY_KEY not in headers or h.ATTEMPT not in headers:
                    continue  # no command
                key, attempt = headers[h.IDEMPOTENCY_KEY].decode(), int(headers[h.ATTEMPT])
                seen.add(key)
                if (key, attempt) not in issued:
                    verdict.blame("C9", f"{service}: {key} #{attempt} was never decided")
    for key in answered - seen:
        verdict.blame("C8", f"{key} has an outcome, but its command is on no topic")


def _check_effects(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    """C3: one effect a key where the key is committed with it. C5: no `do` after its `undo`. C4, C9 on the services."""
    counts: Counter[str] = Counter()
    undone_at: dict[tuple[str, str, int], int] = {}
    done_at: dict[tuple[str, str, int], int] = {}
    verdict.effects = len(evidence.effects)
    for effect in sorted(evidence.effects, key=lambda effect: effect.at):
        unit = (effect.saga_id, effect.run, effect.sequence)
        if effect.service in evidence.once:
            counts[effect.key] += 1
            if counts[effect.key] == 2:
                verdict.blame("C3", f"{effect.key} had its effect twice")
        if effect.direction == "undo":
            undone_at[unit] = effect.at
        else:
            done_at[unit] = effect.at
            if unit in undone_at:
                verdict.blame("C5", f"{effect.key}: done after it was undone")
        if (effect.saga_id, effect.run) not in accepted.histories:
            verdict.blame("C9", f"{effect.key} had an effect, but its run is not in the journal")
    for history, event in accepted.of_commands(ev.StepRefused, ev.StepSucceeded, ev.UndoSucceeded):
        if not history.state.ended:
            continue
        saga_id, kind = history.saga_id, type(event)
        unit = (saga_id, history.state.run_of(history.state.steps[event.sequence]), event.sequence)
        if kind is ev.StepRefused:
            if unit in done_at and unit not in undone_at:
                verdict.blame("C4", f"{saga_id}: step {event.sequence} was refused and has an effect")
        elif event.by or not evidence.effects:
            continue
        elif kind is ev.StepSucceeded and unit not in done_at:
            verdict.blame("C9", f"{saga_id}: step {event.sequence} succeeded without an effect")
        elif kind is ev.UndoSucceeded and unit not in undone_at:
            verdict.blame("C4", f"{saga_id}: step {event.sequence} is recorded as undone, the service knows nothing")


def is_on_its_own(history: History, histories: Mapping[tuple[str, str], History]) -> bool:
    """Whether the run is of a child that somebody has run again after its parent had let go of it."""
    before: History | None = history
    while before is not None and before.state.previous_run:
        before = histories.get((before.saga_id, before.state.previous_run))
        if before is not None and before.state.parent_gone:
            return True
    return False


def _check_children(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    """C4 over the border between two sagas: a child that its parent counts as undone has undone what it did."""
    for history in accepted.histories.values():
        state, parent = history.state, history.state.parent
        whose = None if parent is None else accepted.histories.get((parent.saga_id, parent.run))
        if parent is None or is_on_its_own(history, accepted.histories):
            continue
        if whose is None:
            verdict.blame("C1", f"{history.saga_id} is the child of {parent.saga_id}, which is not in the journal")
            continue
        status = whose.state.steps[parent.sequence].status
        held = any(isinstance(given, ChildEnded) and given.sequence == parent.sequence for given in whose.state.mailbox)
        told = status not in (StepStatus.RUNNING, StepStatus.UNDOING) or whose.state.ended or held
        if evidence.settled and state.ended and state.follows is None and not told:
            verdict.blame("C8", f"{history.saga_id} ended {state.phase}, and {parent.saga_id} was not told")
        by_hand = any(
            isinstance(event, ev.UndoSucceeded) and event.by and event.sequence == parent.sequence
            for event in whose.events
        )
        stands = not state.ended or state.phase is ev.Status.COMPLETED
        if status is StepStatus.UNDONE and stands and not by_hand:
            verdict.blame("C4", f"{history.saga_id} is {state.status}, and counts as undone with {parent.saga_id}")
