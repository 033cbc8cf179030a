"""The verdict over all evidence: invariants C1 to C6 and C8 to C10."""

from __future__ import annotations

from collections import Counter

from orchestrator.checker.evidence import Evidence, Verdict
from orchestrator.checker.journal import Accepted, History, check_histories, read_journal
from orchestrator.model import events as ev
from orchestrator.wire.commands import read_command
from orchestrator.wire.headers import MalformedMessage


def check(evidence: Evidence) -> Verdict:
    """Everything that can be told from the evidence."""
    return examine(evidence)[0]


def examine(evidence: Evidence) -> tuple[Verdict, Accepted]:
    """The verdict, and the accepted histories it was told from."""
    verdict = Verdict()
    accepted = read_journal(evidence, verdict)
    check_histories(evidence, accepted, verdict)
    _check_told(evidence, accepted, verdict)
    _check_commands(evidence, accepted, verdict)
    _check_effects(evidence, accepted, verdict)
    return verdict, accepted


def _check_told(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    """C1: an accepted start has exactly one saga, a failed one none. C2: what was told is what the journal says."""
    runs: Counter[str] = Counter(saga_id for saga_id, _ in accepted.histories)
    ended: dict[str, str] = {
        history.saga_id: str(history.state.phase) for history in accepted.histories.values() if history.state.ended
    }
    for told in evidence.told:
        count = runs[told.saga_id]
        if told.accepted is True and evidence.settled and count != 1:
            verdict.blame("C1", f"{told.saga_id} was accepted and has {count} runs")
        if told.accepted is False and count:
            verdict.blame("C1", f"{told.saga_id} was refused and has {count} runs")
        if count > 1:
            verdict.blame("C1", f"{told.saga_id} has {count} runs")
        if told.status is not None and ended.get(told.saga_id) != told.status:
            verdict.blame("C2", f"{told.saga_id}: told {told.status}, journal says {ended.get(told.saga_id)}")


def _key(history: History, sequence: int, direction: str) -> str:
    """The key as the documents promise it, on purpose not by the engine's code."""
    return "/".join((history.saga_id, history.run, str(sequence), direction))


def _check_commands(evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
    """C9: every command on a service's topic was asked for by an accepted event. C8: and none of them is missing."""
    issued: set[tuple[str, int]] = set()
    scheduled: set[str] = set()
    for history in accepted.histories.values():
        for _, _, event in history.events:
            if isinstance(event, ev.StepScheduled | ev.StepAttempted):
                key = _key(history, event.sequence, "do")
            elif isinstance(event, ev.UndoScheduled | ev.UndoAttempted):
                key = _key(history, event.sequence, "undo")
            elif isinstance(event, ev.StepSucceeded | ev.StepRefused) and not getattr(event, "by", ""):
                scheduled.add(_key(history, event.sequence, "do"))
                continue
            elif isinstance(event, ev.UndoSucceeded) and not event.by:
                scheduled.add(_key(history, event.sequence, "undo"))
                continue
            else:
                continue
            issued.add((key, getattr(event, "attempt", 1)))
    seen: set[str] = set()
    for service, partitions in evidence.commands.items():
        for records in partitions.values():
            for record in records:
                try:
                    command = read_command(record.headers, record.value)
                except MalformedMessage:
                    continue
                seen.add(command.idempotency_key)
                if (command.idempotency_key, command.attempt) not in issued:
                    verdict.blame("C9", f"{service}: {command.idempotency_key} #{command.attempt} was never decided")
    for key in scheduled - seen:
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
    for (saga_id, run), history in accepted.histories.items():
        if not history.state.ended:
            continue
        for _, _, event in history.events:
            unit = (saga_id, run, getattr(event, "sequence", 0))
            if isinstance(event, ev.StepRefused) and unit in done_at and unit not in undone_at:
                verdict.blame("C4", f"{saga_id}: step {event.sequence} was refused and has an effect")
            if isinstance(event, ev.StepSucceeded) and not event.by and evidence.effects and unit not in done_at:
                verdict.blame("C9", f"{saga_id}: step {event.sequence} succeeded without an effect")
            if isinstance(event, ev.UndoSucceeded) and not event.by and evidence.effects and unit not in undone_at:
                verdict.blame(
                    "C4", f"{saga_id}: step {event.sequence} is recorded as undone, the service knows nothing"
                )
