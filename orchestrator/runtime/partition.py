"""One owned partition in one epoch: inputs in, decisions to the journal, confirmed ones to the store and outside.

No loop, no clock, no thread: the engine hands in records and reports, and calls `step` with the monotonic time. Losing
the epoch drops this object with all it had pending; the next one begins from the journal.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from orchestrator.log.base import Appender, Delivery, Record
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.decide import InputRejected, decide
from orchestrator.model.definition import Definition
from orchestrator.model.effects import Command, Effect, effects
from orchestrator.model.ids import epoch_number
from orchestrator.model.turn import Execution, Moment, Turn
from orchestrator.runtime.effect_sender import EffectSender, Outgoing
from orchestrator.runtime.intake import DeadLetter, Intake, Taken
from orchestrator.runtime.journal_writer import EpochLost, JournalWriter, Pending
from orchestrator.runtime.materialize import changes_of, load_state
from orchestrator.runtime.replica import Replica
from orchestrator.runtime.tally import UNKNOWN_TYPE, Tally
from orchestrator.store import keys
from orchestrator.store.base import Change
from orchestrator.topics import TopicNames
from orchestrator.wire.inputs import INTERNAL, OPERATIONS, REPLIES
from orchestrator.wire.journal import write_decision
from orchestrator.wire.tokens import TokenKeys

BATCH = 400
"""Inputs decided in one step: what arrives meanwhile waits at most a few tens of milliseconds."""
MARK_AFTER_MS = 1_000
"""Idle time after which positions and marks that no decision carried are journaled."""
MAX_PENDING = 4_000
"""Unconfirmed decisions or unacknowledged effects beyond which no start is taken: some 4 MiB a partition."""


@dataclass(frozen=True, slots=True)
class PartitionConfig:
    """What every partition of a worker is told. `partitions` is N; `warm` how many runs stay in memory."""

    topics: TopicNames
    partitions: int
    keys: TokenKeys
    definitions: Mapping[str, Definition]
    warm: int = 10_000


@dataclass(frozen=True, slots=True)
class _Rest:
    """What the confirmation of a decision does, encoded when it was decided."""

    decision: ev.Decision | None
    changes: list[Change]
    effects: list[tuple[int, Effect]]
    execution: Execution | None


class Partition:
    """One epoch of one partition. Made by the take-over once its claim is read; `poison` counts inputs that failed.

    `counters` and `tally` go on from epoch to epoch and may be shared by all partitions of a worker.
    """

    def __init__(
        self,
        number: int,
        config: PartitionConfig,
        replica: Replica,
        nonce: bytes,
        journal: Appender,
        outward: Appender,
        mono_ms: int,
        poison: Counter[tuple[str, int]],
        counters: Counter[str] | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.number = number
        self.config = config
        self.store = replica.store
        self.progress = replica.progress
        at = self.progress.at
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.tally = tally or Tally()
        self.executions = replica.executions
        self.writer = JournalWriter(
            journal, config.topics.journal, number, nonce, at.offset, self.progress.rule.chain, self
        )
        epoch = epoch_number(at.incarnation, at.offset)
        self.sender = EffectSender(
            outward,
            config.topics,
            number,
            epoch,
            config.keys,
            self,
            self._command_refused,
            self._still_open,
            self.counters,
        )
        self.intake = Intake(number, config, at.input_positions, at.internal_taken, self, outward, self.counters)
        self._poison = poison
        self._internal_sent = dict(at.internal_sent)
        self._pins: Counter[str] = Counter()
        self._fresh_messages: set[tuple[str, str]] = set()
        self._refusals: deque[msg.SendFailed] = deque()
        self._settling: list[Pending] = []
        self._clock = (at.clock_ms, mono_ms)
        self._now_ms = at.clock_ms
        self._last_input_mono = mono_ms
        self._journaled: tuple[dict[str, int], int] = (dict(at.input_positions), at.effects_sent)
        self._timers: list[tuple[int, str, int]] = [keys.read_timer(key) for key, _ in self.store.scan(keys.TIMERS)]
        self._timers.sort()
        self._barrier: tuple[int, dict[str, int] | None] | None = None
        self.closed = False
        self.asks_ends = False
        """Set when the engine should ask for the end offsets of replies, internal and operations."""
        self._resume(replica)

    def now_ms(self, mono_ms: int) -> int:
        """The partition's clock: the last acknowledged append's time and what passed since, never backwards."""
        at_ms, at_mono = self._clock
        self._now_ms = max(self._now_ms, at_ms + mono_ms - at_mono)
        return self._now_ms

    @property
    def congested(self) -> bool:
        """Whether starts should wait: it depends only on work that drains without them."""
        return (
            self.writer.pending > MAX_PENDING or self.sender.pending > MAX_PENDING or self.intake.waiting > MAX_PENDING
        )

    @property
    def quiet(self) -> bool:
        """Nothing is unconfirmed, unacknowledged or waiting."""
        return not (self.writer.pending or self.sender.pending or self.intake.waiting or self._refusals)

    def step(self, mono_ms: int) -> None:
        """Decides what has come, fires what is due, sends. Raises `EpochLost`."""
        now_ms = self.now_ms(mono_ms)
        self._settle()
        for _ in range(BATCH):
            taken = self.intake.next()
            if taken is None:
                break
            self._last_input_mono = mono_ms
            self._take(taken)
        while self._refusals:
            self._decide(self._refusals.popleft(), None)
        self._fire(now_ms)
        if mono_ms - self._last_input_mono >= MARK_AFTER_MS:
            self.mark()
        self.writer.flush()
        self.sender.tick(now_ms)

    def delivered(self, what: Any, delivery: Delivery, mono_ms: int) -> None:
        """A report of the journal's, the effects' or the dead letters' appender. Raises `EpochLost`."""
        if self.closed:
            return
        if isinstance(what, Pending):
            self._settling.append(self.writer.delivered(what, delivery))
            self._clock = (max(self._clock[0], delivery.timestamp_ms), mono_ms)
        elif isinstance(what, Outgoing):
            self.sender.delivered(what, delivery, self.now_ms(mono_ms))
        elif isinstance(what, DeadLetter):
            passage = self.intake.dead_letter_delivered(what, delivery)
            if passage is not None:
                self._submit(ev.Decision("", "", self._now_ms, (), "", INTERNAL, what.record.offset, *passage), None)

    def ends(self, offsets: Mapping[str, int]) -> None:
        """End offsets by role, read after `asks_ends` was set: timers wait until these are consumed."""
        if self._barrier is not None:
            self._barrier = (self._barrier[0], dict(offsets))

    def ends_failed(self) -> None:
        """The broker did not answer; the next step asks again."""
        self._barrier = None

    def mark(self) -> None:
        """Journals positions and marks if no decision carried them."""
        self._settle()
        positions = dict(self.intake.positions)
        sent, is_open = self.sender.mark(self.progress.at.offset)
        if self.writer.pending == 0 and (positions != self._journaled[0] or self._mark_moved(sent)):
            self._journaled = (positions, self.progress.at.offset + 1)
            self.writer.submit(b"", positions, sent, is_open, _Rest(None, [], [], None))

    def _mark_moved(self, sent: int) -> bool:
        """A mark record has no effects itself: the one that only says so needs no record of its own."""
        return sent > self._journaled[1]

    def close(self) -> None:
        """Lets go of live code; nothing pending is kept, reports that still come are ignored."""
        self.closed = True
        for execution in self.executions.values():
            execution.detach()

    # -- inputs

    def _take(self, taken: Taken) -> None:
        record = taken.record
        if taken.target is not None:
            self._forward(taken)
            return
        given = taken.input
        assert given is not None
        if isinstance(given, msg.External) and self._is_repeat(given.saga_id, given.message_id):
            self.counters["duplicates"] += 1
            self._pass(taken)
            return
        if isinstance(given, msg.Reply) and not self._is_genuine(given, taken.token):
            self.intake.reject(taken, "the reply token is missing or forged", "ForgedReply")
            return
        point = (taken.role, record.offset)
        try:
            if self._poison[point] >= 2:
                self._park_poison(given, taken)
            else:
                self._poison[point] += 1
                self._decide(given, taken)
            del self._poison[point]
        except InputRejected as rejected:
            del self._poison[point]
            self.intake.reject(taken, str(rejected), "InputRejected")

    def _pass(self, taken: Taken) -> None:
        """An input that causes nothing: its position goes along with the next record."""
        self.intake.done(taken)
        if taken.passage is not None:
            passage = (taken.passage.source, taken.passage.counter)
            self._submit(ev.Decision("", "", self._now_ms, (), "", INTERNAL, taken.record.offset, *passage), None)

    def _forward(self, taken: Taken) -> None:
        target = taken.target
        assert target is not None
        counter = self._internal_sent.get(str(target), 0) + 1
        self._internal_sent[str(target)] = counter
        record = taken.record
        event = ev.InputForwarded(target, counter, taken.role, record.value or b"", taken.forwarded_headers)
        self.intake.done(taken)
        self.counters["forwarded"] += 1
        saga_id = taken.saga_id
        self._submit(ev.Decision(saga_id, "", self._now_ms, (event,), "", taken.role, record.offset), None)

    def _is_repeat(self, saga_id: str, message_id: str) -> bool:
        if (saga_id, message_id) in self._fresh_messages:
            return True
        return self.store.get(keys.message(saga_id, message_id)) is not None

    def _is_genuine(self, reply: msg.Reply, token: str) -> bool:
        execution = self._execution(reply.saga_id)
        step = execution.state.steps.get(reply.sequence) if execution is not None else None
        if step is None or step.is_sleep:
            return True  # decide says what is wrong with it
        direction = "undo" if reply.undo else "do"
        return self.config.keys.verify(token, reply.saga_id, reply.run, reply.sequence, direction, step.service)  # type: ignore[arg-type]

    def _execution(self, saga_id: str) -> Execution | None:
        execution = self.executions.get(saga_id)
        if execution is None:
            state = load_state(self.store, saga_id)
            if state is None:
                return None
            execution = self.executions[saga_id] = Execution(state)
            self._evict()
        return execution

    def _evict(self) -> None:
        """Lets go of the runs that were loaded or started first and have nothing unconfirmed."""
        if len(self.executions) <= self.config.warm:
            return
        for saga_id in list(self.executions)[: self.config.warm // 10 + 1]:
            if not self._pins[saga_id]:
                self.executions.pop(saga_id).detach()

    # -- deciding

    def _moment(self) -> Moment:
        at = self.progress.at
        return Moment(self._now_ms, at.incarnation, self.writer.next_offset, self.config.partitions)

    def _decide(self, given: msg.Input, taken: Taken | None) -> None:
        execution = self._execution(given.saga_id)
        definition = self._definition(given, execution)
        execution, events, run = decide(execution, definition, given, self._moment())
        if taken is not None:
            self.intake.done(taken)
        message_id = given.message_id if isinstance(given, msg.External) else ""
        if events or message_id or (taken is not None and taken.passage is not None):
            self._submit(self._decision(given.saga_id, run, events, message_id, taken), execution)
        while execution is not None and execution.state.continue_due:
            state = execution.state
            _, events, run = decide(execution, definition, msg.Continue(state.saga_id, state.run), self._moment())
            self._submit(self._decision(state.saga_id, run, events, "", None), execution)

    def _definition(self, given: msg.Input, execution: Execution | None) -> Definition | None:
        if execution is not None:
            return self.config.definitions.get(execution.state.saga_type)
        return self.config.definitions.get(given.saga_type) if isinstance(given, msg.Start) else None

    def _decision(
        self, saga_id: str, run: str, events: tuple[ev.Event, ...], message_id: str, taken: Taken | None
    ) -> ev.Decision:
        if taken is None:
            return ev.Decision(saga_id, run, self._now_ms, events, message_id)
        passage = taken.passage
        return ev.Decision(
            saga_id,
            run,
            self._now_ms,
            events,
            message_id,
            taken.role,
            taken.record.offset,
            passage.source if passage is not None else -1,
            passage.counter if passage is not None else -1,
        )

    def _park_poison(self, given: msg.Input, taken: Taken) -> None:
        """An input at which the engine failed twice: its saga is set aside without running any code."""
        execution = self._execution(given.saga_id)
        if execution is None:
            raise InputRejected("deciding it failed twice")
        turn = Turn(execution, None, self._moment())
        turn.park("deciding an input failed twice", f"{taken.role} {taken.record.offset}")
        self.intake.done(taken)
        events = tuple(turn.events)
        self._submit(self._decision(given.saga_id, execution.state.run, events, "", taken), execution)

    def _submit(self, decision: ev.Decision, execution: Execution | None) -> None:
        changes: list[Change] = []
        outward: list[tuple[int, Effect]] = []
        if execution is not None:
            state = execution.state
            self.executions[state.saga_id] = execution
            self._pins[state.saga_id] += 1
            changes, timers = changes_of(state)
            for timer in timers:
                heappush(self._timers, timer)
        for index, event in enumerate(decision.events):
            for effect in effects(event, decision.saga_id, execution.state if execution is not None else None):
                outward.append((index, effect))
        if decision.message_id:
            key = keys.message(decision.saga_id, decision.message_id)
            changes.append((key, keys.number(self.writer.next_offset)))
            self._fresh_messages.add((decision.saga_id, decision.message_id))
        self.counters["decisions"] += 1
        positions = dict(self.intake.positions)
        sent, is_open = self.sender.mark(self.progress.at.offset)
        self._journaled = (positions, sent)
        rest = _Rest(decision, changes, outward, execution)
        self.writer.submit(write_decision(decision), positions, sent, is_open, rest)

    # -- confirmed

    def _settle(self) -> None:
        """Confirmed decisions reach the store in one write, and only then the outside."""
        if not self._settling:
            return
        settled, self._settling = self._settling, []
        changes: list[Change] = []
        for pending in settled:
            rest: _Rest = pending.rest
            envelope = pending.envelope
            rule = self.progress.rule
            if not rule.accept(
                envelope.kind, envelope.nonce, envelope.seq, envelope.prev_hash, pending.offset, pending.value
            ):
                raise EpochLost(f"the decision at {pending.offset} does not count under rule R")
            self.progress.step(pending.offset, self._clock[0], pending.value, envelope, rest.decision)
            changes.extend(rest.changes)
        changes.extend(self.progress.changes())
        self.store.write(changes)
        for pending in settled:
            self._release(pending.offset, pending.rest)

    def _release(self, offset: int, rest: _Rest) -> None:
        for index, effect in rest.effects:
            self.sender.send(offset, index, effect, self._now_ms)
        if rest.execution is not None:
            saga_id = rest.execution.state.saga_id
            self._pins[saga_id] -= 1
            if rest.decision is not None:
                state = rest.execution.state
                known = state.saga_type in self.config.definitions
                self.tally.confirmed(rest.decision, state, state.saga_type if known else UNKNOWN_TYPE)
            if not self._pins[saga_id]:
                del self._pins[saga_id]
        if rest.decision is not None and rest.decision.message_id:
            self._fresh_messages.discard((rest.decision.saga_id, rest.decision.message_id))
        self.counters["confirmed"] += 1

    def _command_refused(self, command: Command, why: str) -> None:
        undo = command.direction == "undo"
        self._refusals.append(
            msg.SendFailed(command.saga_id, command.run, command.sequence, undo, command.attempt, why)
        )

    def _still_open(self, effect: Effect) -> bool:
        if not isinstance(effect, Command):
            return True
        execution = self._execution(effect.saga_id)
        if execution is None or execution.state.run != effect.run or execution.state.ended:
            return False
        step = execution.state.steps[effect.sequence]
        if effect.direction == "undo":
            return step.sequence in execution.state.undo_open
        return step.sequence in execution.state.open

    # -- time

    def _fire(self, now_ms: int) -> None:
        """Fires due timers once every reply, internal message and operation that was there before is consumed."""
        if self._barrier is None:
            while self._timers and self._timers[0][0] <= now_ms and not self._is_set(self._timers[0]):
                heappop(self._timers)
            if not self._timers or self._timers[0][0] > now_ms:
                return
            self._barrier = (now_ms, None)
            self.asks_ends = True
            return
        until_ms, ends = self._barrier
        if ends is None or any(self.intake.consumed(role) < ends.get(role, 0) for role in _BEFORE_TIMERS):
            return
        self._barrier = None
        fired = 0
        while self._timers and self._timers[0][0] <= until_ms and fired < BATCH:
            timer = heappop(self._timers)
            if self._is_set(timer):
                fired += 1
                due_ms, saga_id, sequence = timer
                run = self.executions[saga_id].state.run
                self._decide(msg.TimerDue(saga_id, run, sequence, due_ms), None)

    def _is_set(self, timer: tuple[int, str, int]) -> bool:
        """Whether a timer was neither moved nor cleared since."""
        due_ms, saga_id, sequence = timer
        execution = self._execution(saga_id)
        return execution is not None and execution.state.due_of(sequence) == due_ms

    def next_due_ms(self) -> int | None:
        """When the earliest timer is due by the partition's clock; it may be stale."""
        return self._timers[0][0] if self._timers else None

    # -- beginning

    def _resume(self, replica: Replica) -> None:
        """Re-sends what is open, in journal order and before anything new; goes on with what waits for this owner."""
        exceptions = set(self.progress.at.effects_open)
        for offset, index, saga_id, event in replica.open_effects:
            execution = self._execution(saga_id)
            for effect in effects(event, saga_id, execution.state if execution is not None else None):
                self.sender.send(offset, index, effect, self._now_ms, below_mark=(offset, index) in exceptions)
                self.counters["resent"] += 1
        replica.open_effects.clear()
        while self._timers and self._timers[0][0] == 0:
            _, saga_id, _ = heappop(self._timers)
            execution = self._execution(saga_id)
            if execution is not None and execution.state.continue_due:
                self._decide(msg.Continue(saga_id, execution.state.run), None)
        for key, _ in list(self.store.scan(keys.WAITING)):
            execution = self._execution(key[1:].decode())
            if execution is not None and execution.state.saga_type in self.config.definitions:
                state = execution.state
                self._decide(msg.CodeArrived(state.saga_id, state.run), None)

    def take(self, role: str, record: Record) -> None:
        """Hands in one record of an input topic."""
        self.intake.put(role, record)


_BEFORE_TIMERS = (REPLIES, INTERNAL, OPERATIONS)
