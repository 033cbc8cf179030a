"""The engine and the participant broken on purpose, one rule at a time: each must be caught by the simulation.

A mutant is a set of replacements for attributes of the real classes, in force while its seeds run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.checker import check  # noqa: F401 - loaded before anything is replaced
from orchestrator.model import attempts, calls, children, inheritance, locks, messages, turn, upkeep
from orchestrator.model import events as ev
from orchestrator.model.effects import LocalCall
from orchestrator.model.messages import Outcome
from orchestrator.model.rule import Rule
from orchestrator.model.state import SagaState, StepStatus
from orchestrator.participant import engine as participant
from orchestrator.participant import ledger, rules, tenure
from orchestrator.runtime import (
    claim_watch,
    intake,
    journal_writer,
    local_steps,
    materialize,
    partition,
    resuming,
    takeover,
    timers,
)
from orchestrator.simulation import processes
from orchestrator.store import keys
from orchestrator.wire import commands, journal
from orchestrator.wire.ledger import Execution, read_record

Replacement = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mutant:
    """A broken rule by name, and what breaks it. `first`: the seed to begin at, where those before it are in vain."""

    name: str
    replacements: tuple[Replacement, ...]
    first: int = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in self.replacements]
        try:
            for owner, name, value in self.replacements:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)


def _claimed_without_reading(self: Any, what: Any, delivery: Any, mono_ms: int) -> None:
    if what == self.nonce and not self.closed and delivery.failure is None and delivery.offset is not None:
        if delivery.offset >= self.replica.next_offset:
            claim = journal.claim_record(self.nonce, self._owner.claim)
            self.replica.feed(delivery.offset, delivery.timestamp_ms, claim)
        self.replica.flush()
        self.done = True
    else:
        _delivered(self, what, delivery, mono_ms)


_delivered = takeover.Takeover.delivered


def _confirm_any(self: Any, pending: Any, delivery: Any) -> Any:
    if delivery.failure is not None:
        raise journal_writer.EpochLost("failed")
    self._sent.remove(pending)
    self.pending_bytes -= len(pending.value)
    return pending


def _confirm_last_plus_one(self: Any, pending: Any, delivery: Any) -> Any:
    last = getattr(self, "last", None)
    if last is None:
        last = pending.offset - 1 - pending.envelope.seq
    self._sent.remove(pending)
    self.pending_bytes -= len(pending.value)
    if delivery.failure is not None:
        # It expired here and is taken as never sent.
        object.__setattr__(self, "last", last)
        pending.rest = partition._Rest(None, [], None)
        raise _Skipped
    if delivery.offset != last + 1:
        raise journal_writer.EpochLost("not the next offset")
    self.last = delivery.offset
    return pending


class _Skipped(Exception):
    pass


_partition_delivered = partition.Partition.delivered


def _deliver_skipping(self: Any, what: Any, delivery: Any, mono_ms: int) -> None:
    with suppress(_Skipped):
        _partition_delivered(self, what, delivery, mono_ms)


_accept = Rule.accept


def _settle_unchecked(self: Any) -> None:
    """Confirms without asking rule R whether the record counts."""
    settled, self._settling = self._settling, []
    for pending in settled:
        mine = pending.envelope
        rule = self.progress.rule
        _accept(rule, mine.kind, mine.nonce, rule.expected_seq, rule.chain, pending.offset, pending.value)
        self.progress.step(pending.offset, pending.timestamp_ms, pending.value, mine, pending.rest.decision)
        self._changes.confirmed(pending.offset)
    for pending in settled:
        self._release(pending.offset, pending.rest)


_submit = partition.Partition._submit


def _store_at_once(self: Any, decision: Any, execution: Any) -> None:
    _submit(self, decision, execution)
    self._changes.cut(self.writer.next_offset - 1)
    self._changes.confirmed(self.writer.next_offset - 1)


def _send_at_once(self: Any, decision: Any, execution: Any) -> None:
    _submit(self, decision, execution)
    pending = self.writer._queued[-1]
    for index, effect in pending.rest.effects:
        if not isinstance(effect, LocalCall):
            self.sender.send(pending.offset, index, effect, self._now_ms)
    pending.rest.effects[:] = [(at, effect) for at, effect in pending.rest.effects if isinstance(effect, LocalCall)]


def _call_at_once(self: Any, decision: Any, execution: Any) -> None:
    _submit(self, decision, execution)
    pending = self.writer._queued[-1]
    for _, effect in pending.rest.effects:
        if isinstance(effect, LocalCall):
            self.local.add(effect)
    pending.rest.effects[:] = [(at, effect) for at, effect in pending.rest.effects if not isinstance(effect, LocalCall)]


def _add_beside(self: Any, owner: Any, call: Any) -> None:
    """A step's next call does not wait for the one before."""
    before = self._under_way.pop(call.unit, None)
    self._waiting.append((owner, call))
    if before is not None:
        poll = self._runner.poll
        self._runner.poll = lambda: [each for each in poll() if each.call.unit in self._under_way]


def _owner_with_one_nonce(claim: Any, nonce: Any, genesis: Any) -> takeover.Owner:
    """Every claim of a worker under the same nonce."""
    drawn = nonce()
    return takeover.Owner(claim, lambda: drawn, genesis)


def _forward(self: SagaState) -> list[int]:
    if self.undo_stack is None:
        self.undo_stack = sorted((s for s, step in self.steps.items() if self.must_undo(step)), reverse=True)
    return self.undo_stack


def _take_out_anywhere(stack: list[int], sequence: int) -> None:
    if sequence in stack:
        stack.remove(sequence)


def _must_undo_done_only(self: SagaState, step: Any) -> bool:
    return step.undo_command is not None and step.status is StepStatus.DONE and not self.pivot_done


def _key_without_run(saga_id: str, run: str, sequence: int, direction: str) -> str:
    return f"{saga_id}/{sequence}/{direction}"


_finish = participant.Engine._finish


def _reply_before_ledger(self: Any, work: Any, reply: Any, ran: bool) -> None:
    owner = work.partition
    held, owner.tenure = owner.tenure, owner.tenure if reply is None else None
    try:
        _finish(self, work, reply, ran)
    finally:
        owner.tenure = held


_apply = ledger.LedgerView.apply


def _apply_without_claims(self: Any, entry: Any) -> None:
    body = read_record(entry.value)
    if isinstance(body, Execution):
        self.memory.note(
            (body.saga_id, body.run, body.sequence), body.undo, body.attempt, body.reply, entry.timestamp_ms
        )
        self.position = entry.offset + 1
    else:
        _apply(self, entry)


def _confirm_without_claims(self: Any, expected: Any, delivery: Any) -> None:
    if not self._sent or self.phase is not tenure.Phase.HOLDING or delivery.failure is not None:
        return
    offset, work = self._sent.popleft()
    self._make_room(offset)
    command = work.command
    self.view.memory.note(command.unit, command.direction == "undo", command.attempt, work.reply, delivery.timestamp_ms)
    self.desk.accepted(work)


_do_reply = attempts._do_reply


def _lower_failure_counts(turn: Any, step: Any, given: Any) -> None:
    if given.outcome is Outcome.FAILURE and step.status in (StepStatus.RUNNING, StepStatus.BACKING_OFF):
        turn.emit(ev.StepRefused(step.sequence, step.attempt, given.error_type, given.error_message))
    else:
        _do_reply(turn, step, given)


_judge = rules.decide


def _failure_answers_all(command: Any, entry: Any, **rest: Any) -> Any:
    known = None if entry is None else entry.undo if command.direction == "undo" else entry.do
    if known is not None and not rest.get("busy") and known.reply.outcome is Outcome.FAILURE:
        return rules.Answer(known.reply)
    return _judge(command, entry, **rest)


async def _taken_by_all(self: locks.Lock, hold: str, saga: str, at_once: bool) -> None:
    self.asked, self.holder = True, saga
    self.holds.append(hold)


_mark = partition.Partition._mark


def _answer_at_once(self: Any, rest: Any) -> None:
    """Answers do not wait until a record shows who the owner is."""
    for index, answer in rest.effects:
        self.sender.send(self.progress.at.offset, index, answer, self._now_ms)
    rest.effects[:] = []
    _mark(self, rest)


_heir = inheritance.heir


def _owned_heir(step: Any, run: str, seed: str, *, owned: bool, **given: Any) -> Any:
    return _heir(step, run, seed, owned=True, **given)


def _memory_without_updates(given: Any) -> str:
    return given.message_id if isinstance(given, messages.EXTERNAL) else ""


_end = turn.Turn.end


def _end_for_all(self: Any, event: Any, follows: Any = None, **more: Any) -> None:
    """Nobody asks whether a parent may want it undone."""
    if follows is None:
        event = replace(event, forget_at_ms=self.moment.now_ms + self.moment.ended_keep_ms)
    _end(self, event, follows, **more)


def _undo_nothing(turn: Any, input: Any) -> None:
    """What is not known is taken for what never began."""
    parent = input.parent
    who = parent.saga_id, parent.run, parent.sequence
    turn.send(messages.ChildEnded(*who, True, "", "FAILED", "none", b"", "", ""))


_read = intake.Intake._read


def _passing_over(wanted: Callable[[str, Any], bool]) -> Callable[..., Any]:
    """An owner that goes on behind such inputs, by their topic and what they say, as if it had decided them."""

    def read(self: Any, role: str, record: Any) -> Any:
        taken = _read(self, role, record)
        if taken is None or taken.input is None or not wanted(role, taken.input):
            return taken
        self.done(taken)
        return None

    return read


def passing_over(name: str, wanted: Callable[[str, Any], bool]) -> Mutant:
    """A mutant by that name."""
    return _mutant(name, (intake.Intake, "_read", _passing_over(wanted)))


LATE_MS = 10_000
_due, _next_due_ms = timers.Timers.due, timers.Timers.next_due_ms


def _due_late(self: Any, now_ms: int, consumed: Any, limit: int) -> Any:
    return _due(self, now_ms - LATE_MS, consumed, limit)


def _next_due_late_ms(self: Any) -> int | None:
    due_ms = _next_due_ms(self)
    return None if due_ms is None else due_ms + LATE_MS


def _mutant(name: str, *replacements: Replacement, first: int = 0) -> Mutant:
    return Mutant(name, replacements, first)


_BROKEN: Callable[..., Any] = lambda self, saga_id, message_id: False  # noqa: E731

MUTANTS = (
    _mutant("no read to the claim", (takeover.Takeover, "delivered", _claimed_without_reading), first=80),
    _mutant(
        "confirm on any ack",
        (journal_writer.JournalWriter, "delivered", _confirm_any),
        (partition.Partition, "_settle", _settle_unchecked),
    ),
    _mutant(
        "contiguity as last + 1",
        (journal_writer.JournalWriter, "delivered", _confirm_last_plus_one),
        (partition.Partition, "delivered", _deliver_skipping),
        (partition.Partition, "_settle", _settle_unchecked),
    ),
    _mutant("an idle owner never looks at its journal", (claim_watch.ClaimWatch, "tick", lambda self, mono_ms: None)),
    _mutant("store before ack", (partition.Partition, "_submit", _store_at_once)),
    _mutant("effects before ack", (partition.Partition, "_submit", _send_at_once)),
    _mutant("local steps before ack", (partition.Partition, "_submit", _call_at_once), first=235),
    _mutant("local steps beside each other", (local_steps.LocalSteps, "add", _add_beside)),
    _mutant("local steps forgotten at a take-over", (resuming, "local_calls", lambda state: [])),
    _mutant("nonce reused", (processes, "Owner", _owner_with_one_nonce)),
    _mutant("undo in forward order", (SagaState, "to_undo", _forward), (upkeep, "take_out", _take_out_anywhere)),
    _mutant("an abandoned step stays", (upkeep, "UNDO_NOW", frozenset({StepStatus.UNKNOWN}))),
    _mutant("unknown outcome not undone", (SagaState, "must_undo", _must_undo_done_only)),
    _mutant("key without the run", (commands, "idempotency_key", _key_without_run)),
    _mutant("input dedupe off", (materialize.Materializer, "knows", _BROKEN)),
    _mutant("a timer that is not stored yet is passed over", (materialize.Materializer, "timers", lambda self: ())),
    _mutant(
        "timers are late",
        (timers.Timers, "due", _due_late),
        (timers.Timers, "next_due_ms", _next_due_late_ms),
    ),
    passing_over("an input is passed over", lambda role, given: isinstance(given, messages.Signal)),
    _mutant("ledger after the reply", (participant.Engine, "_finish", _reply_before_ledger)),
    _mutant(
        "ledger without a claim",
        (ledger.LedgerView, "apply", _apply_without_claims),
        (tenure.Tenure, "_confirm", _confirm_without_claims),
        first=40,
    ),
    _mutant("a lower attempt's failure refuses the step", (attempts, "_do_reply", _lower_failure_counts)),
    _mutant("keys are kept beyond the end", (locks, "give_all", lambda turn, follows: None)),
    _mutant("a lock for everybody", (locks.Lock, "take", _taken_by_all)),
    _mutant("a call is undone unheard", (calls, "awaits_answer", lambda step: False)),
    _mutant("what partitions send each other is taken again", (intake.Intake, "_is_next", lambda self, passage: True)),
    _mutant("questions are answered without a mark", (partition.Partition, "_mark", _answer_at_once), first=65),
    _mutant("a fork undoes what it was given", (inheritance, "heir", _owned_heir), first=110),
    _mutant("an update is forgotten with its run", (messages, "memory_of", _memory_without_updates)),
    _mutant("a recorded failure answers a later attempt", (rules, "decide", _failure_answers_all)),
    _mutant("what is forgotten is still read", (materialize.Materializer, "forgot", lambda self, saga_id: False)),
    _mutant("inputs of a forgotten saga stay", (keys, "messages", lambda saga_id: b"nothing begins so")),
    _mutant(
        "a child that is forgotten counts as undone",
        (turn.Turn, "end", _end_for_all),
        (children, "undo_unknown", _undo_nothing),
    ),
)
