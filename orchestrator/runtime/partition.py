"""One owned partition in one epoch: inputs in, decisions to the journal, confirmed ones to the store and outside.

No loop, no clock, no thread: the engine hands in records and reports, and calls `step` with the monotonic time. Losing
the epoch drops this object with all it had pending; the next one begins from the journal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from orchestrator.errors import BUGS
from orchestrator.log.base import Appender, Delivery, Passed, Record
from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.attempts import sign_of
from orchestrator.model.decide import InputRejected, decide
from orchestrator.model.definition import Definition
from orchestrator.model.effects import Command, Effect, LocalCall, effects_of
from orchestrator.model.events import Status
from orchestrator.model.frozen import frozen
from orchestrator.model.ids import epoch_number
from orchestrator.model.turn import Execution, Moment
from orchestrator.model.updates import UpdateRejected
from orchestrator.runtime.circuits import Circuits
from orchestrator.runtime.effect_sender import EffectSender, Outgoing
from orchestrator.runtime.forgery import forgery
from orchestrator.runtime.intake import DeadLetter, Given, Intake, Taken, decision_of, forwarding_of
from orchestrator.runtime.journal_writer import EpochLost, JournalWriter, Pending
from orchestrator.runtime.lifecycle import Feed
from orchestrator.runtime.local_steps import InlineRunner, LocalCalls, LocalSteps
from orchestrator.runtime.materialize import Materializer
from orchestrator.runtime.notices import tell_parked
from orchestrator.runtime.partition_config import PartitionConfig
from orchestrator.runtime.pauses import Pauses
from orchestrator.runtime.poison import Failed, Poison, is_told, set_aside
from orchestrator.runtime.questions import Questions
from orchestrator.runtime.replica import Replica
from orchestrator.runtime.resuming import calls_to_make, inputs_to_go_on, resend
from orchestrator.runtime.ringing import Ringer
from orchestrator.runtime.runs import Runs
from orchestrator.runtime.tally import UNKNOWN_TYPE, Tally
from orchestrator.runtime.timers import Timers
from orchestrator.store.base import StoreBroken
from orchestrator.wire.journal import write_decision
from orchestrator.wire.promises import write_token

BATCH = 100
"""Inputs decided in one step and sent together: enough to share a request, and what follows waits some 10 ms."""
MARK_AFTER_MS = 1_000
"""Idle time after which positions and marks that no decision carried are journaled."""
MAX_PENDING = 4_000
"""Unconfirmed decisions or unacknowledged effects beyond which no start is taken: some 4 MiB a partition."""
MAX_WAITING_BYTES = 16 << 20
"""Bytes of inputs that wait, beyond which no start is read: large ones are few, but may come one after the other."""
LOOK_AGAIN_MS = 20
FAR_MS = 3_600_000
STORE_EVERY_MS = 500
STORE_ENTRIES = 2_000
"""How long, and how much, changes are gathered before they go to the store: a next owner reads that much more."""


@frozen
class _Rest:
    """What the confirmation of a decision does, as it was when it was decided."""

    decision: ev.Decision | None
    effects: list[tuple[int, Effect]]
    execution: Execution | None


class Partition:
    """One epoch of one partition. Made by the take-over once its claim is read; `poison` knows inputs that failed.

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
        poison: Poison,
        counters: Counter[str] | None = None,
        tally: Tally | None = None,
        local: LocalSteps | None = None,
    ) -> None:
        self.number = number
        self.config = config
        self.store = replica.store
        self.progress = replica.progress
        at = self.progress.at
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.tally = tally or Tally()
        self._changes = Materializer(self.store, self.progress)
        self.runs = Runs(self.store, replica.executions, config.warm, self._changes)
        self.questions = Questions(self.runs, config.definitions)
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
            self.runs.still_open,
            self.counters,
        )
        self.intake = Intake(number, config, at.input_positions, at.internal_taken, self, outward, self.counters)
        self.local = LocalCalls(number, local or LocalSteps(InlineRunner()), self.runs, config.definitions)
        self._poison = poison
        self._sign = partial(write_token, config.keys)
        self._internal_sent = dict(at.internal_sent)
        self._cut_mono = mono_ms
        self._settling: list[Pending] = []
        self._clock = (at.clock_ms, mono_ms)
        self._now_ms = at.clock_ms
        self._last_input_mono = mono_ms
        self._journaled: tuple[dict[str, int], int] = (dict(at.input_positions), at.effects_sent)
        self.timers = Timers(self.store, self._changes.timers, self.runs.is_set)
        self.circuits = Circuits(
            config.circuit_failures, config.circuit_probe_ms, at.circuits, at.clock_ms, self.runs.is_set
        )
        self._ringer = Ringer(self.timers, self.circuits, self.runs, self._attempt)
        self._pauses = Pauses(self.store, at.paused, self.runs.live)
        self._step_at_mono = 0
        self.closed = False
        self.feed: Feed | None = None
        """Where confirmed decisions go that have something public, if anybody publishes."""

    def now_ms(self, mono_ms: int) -> int:
        """The partition's clock: the last acknowledged append's time and what passed since, never backwards."""
        at_ms, at_mono = self._clock
        self._now_ms = max(self._now_ms, at_ms + mono_ms - at_mono)
        return self._now_ms

    @property
    def congested(self) -> bool:
        """Whether starts should wait: it depends only on work that drains without them."""
        intake = self.intake
        return (
            self.writer.pending > MAX_PENDING
            or self.sender.pending > MAX_PENDING
            or self.local.waiting > MAX_PENDING
            or intake.waiting > MAX_PENDING
            or intake.waiting_bytes > MAX_WAITING_BYTES
        )

    @property
    def quiet(self) -> bool:
        """Nothing is unconfirmed, unacknowledged, being called or waiting."""
        return not (self.writer.pending or self.sender.pending or self.intake.waiting or self.local.under_way)

    @property
    def ready(self) -> bool:
        """Whether there is something to decide without anything new coming."""
        return self.intake.ready or self._pauses.restless

    def rests(self, mono_ms: int) -> bool:
        """Whether a step would find nothing to do."""
        return mono_ms < self._step_at_mono and not self.intake.waiting and not self.local.replies

    def due_in_ms(self, mono_ms: int) -> int:
        """For how long a step would find nothing to do if nothing comes and nothing is reported."""
        return max(0, self._step_at_mono - mono_ms)

    def step(self, mono_ms: int) -> None:
        """Decides what has come, fires what is due, sends. Raises `EpochLost`."""
        now_ms = self.now_ms(mono_ms)
        self._settle()
        self.intake.tick(now_ms)
        for _ in range(BATCH):
            taken = self.intake.next()
            if taken is None:
                break
            self._last_input_mono = mono_ms
            self._take(taken)
        while self.sender.refusals:
            self._refuse(*self.sender.refusals.popleft())
        while self.local.replies:
            with suppress(InputRejected):
                self._attempt(self.local.replies.popleft())
        self._ringer.ring(now_ms, self.intake.consumed, BATCH)
        for saga_id in self._pauses.released(BATCH) if self._pauses.restless else ():
            if (execution := self.runs.find(saga_id)) is not None:
                self._attempt(msg.Released(saga_id, execution.state.run))
        if self.questions.answers:
            self._mark(_Rest(None, self.questions.take(), None))
        if mono_ms - self._last_input_mono >= MARK_AFTER_MS:
            self.mark()
        elif mono_ms - self._cut_mono >= STORE_EVERY_MS or self._changes.gathered >= STORE_ENTRIES:
            self._changes.cut(self.writer.next_offset - 1)
        if not self._changes.behind:
            self._cut_mono = mono_ms
        self.writer.flush()
        self.sender.tick(now_ms)
        self.runs.evict()
        self._step_at_mono = self._find_next_step(mono_ms)

    def _find_next_step(self, mono_ms: int) -> int:
        """When to step again if nothing comes and nothing is reported."""
        if self.ready or self._ringer.is_ready(self.intake.consumed):
            return mono_ms
        at = mono_ms + (1 if self.writer.queued or self.sender.waiting else FAR_MS)
        if self.congested:  # maybe by the calls of others, whose ends are not told here
            at = min(at, mono_ms + LOOK_AGAIN_MS)
        for part in (self.timers, self.circuits, self.sender, self.intake):
            due_ms = part.next_due_ms()
            if due_ms is not None:
                at = min(at, mono_ms + due_ms - self._now_ms)
        if self._changes.behind:
            at = min(at, self._cut_mono + STORE_EVERY_MS)
        if not self.writer.pending:
            sent, _ = self.sender.mark(self.progress.at.offset)
            if self.intake.positions != self._journaled[0] or sent > self._journaled[1]:
                at = min(at, self._last_input_mono + MARK_AFTER_MS)
        return max(mono_ms + 1, at)

    def delivered(self, what: Any, delivery: Delivery, mono_ms: int) -> None:
        """A report of the journal's, the effects' or the dead letters' appender. Raises `EpochLost`."""
        if self.closed:
            return
        if isinstance(what, Outgoing):
            self.sender.delivered(what, delivery, self.now_ms(mono_ms))
            if delivery.failure is None and not self.sender.restless and self.sender.pending != MAX_PENDING:
                # It only moves the mark, which may wait. Beyond so many starts wait, from here on no longer.
                self._step_at_mono = min(self._step_at_mono, self._last_input_mono + MARK_AFTER_MS)
                return
        self._step_at_mono = 0
        if isinstance(what, Pending):
            self._settling.append(self.writer.delivered(what, delivery))
            self._clock = (max(self._clock[0], delivery.timestamp_ms), mono_ms)
        elif isinstance(what, DeadLetter):
            self._dead_letter_delivered(what, delivery)

    def ends(self, offsets: Mapping[str, int] | None) -> None:
        """The end offsets that the timers asked for, by role; None: they could not be had."""
        self._step_at_mono = 0
        self.timers.ends(offsets)

    def _dead_letter_delivered(self, letter: DeadLetter, delivery: Delivery) -> None:
        """What of it has to be journaled: the answer to who waits, the counter of an internal message."""
        if not self.intake.dead_letter_delivered(letter, delivery):
            return
        if letter.poison is not None:
            self._poison.bury(letter.poison, letter.record)
            self._set_aside(letter.poison, letter)
            return
        events = () if letter.refusal is None else (letter.refusal,)
        if events or letter.passage is not None:
            self._submit(decision_of(self._now_ms, letter.saga_id, "", events, "", letter), None)

    def mark(self) -> None:
        """Journals positions and marks if no decision carried them."""
        self._settle()
        sent, _ = self.sender.mark(self.progress.at.offset)
        if self.writer.pending == 0 and (self.intake.positions != self._journaled[0] or sent > self._journaled[1]):
            self._mark(_Rest(None, [], None))
            self._journaled = (self._journaled[0], self.progress.at.offset + 1)
        self._changes.cut(self.writer.next_offset - 1)

    def _mark(self, rest: _Rest) -> None:
        positions = dict(self.intake.positions)
        sent, is_open = self.sender.mark(self.progress.at.offset)
        self._journaled = (positions, sent)
        self.writer.submit(b"", positions, sent, is_open, rest)

    def close(self) -> None:
        """Lets go of live code; nothing pending is kept, reports that still come are ignored."""
        self.closed = True
        self.local.close()
        self.runs.detach()

    # -- inputs

    def _take(self, taken: Taken) -> None:
        if taken.target is not None:
            self._forward(taken)
            return
        given = taken.input
        assert given is not None
        if not isinstance(given, msg.Query):
            if self._changes.knows(given.saga_id, msg.memory_of(given)) and self.questions.is_settled(given):
                self.counters["duplicates"] += 1
                self._pass(taken)
                return
            if not isinstance(given, msg.SetPauseRule):
                forged = forgery(given, taken.token, self.config.keys, self.runs)
                if forged is not None:
                    self.intake.reject(taken, *forged)
                    return
        if self._poison and (failed := self._poison.find(given, taken.record)) is not None:
            self._bury(given, taken, failed)
            return
        if isinstance(given, msg.Query):
            self._try(self._ask, given, taken)
            return
        if isinstance(given, msg.SetPauseRule):
            self._try(self._set_rule, given, taken)
            return
        try:
            self._attempt(given, taken)
        except InputRejected as rejected:
            self.intake.reject(taken, str(rejected), "InputRejected", rejected.refusal)
        except UpdateRejected as rejected:
            if self.questions.refuse(rejected):
                self._pass(taken)
            else:
                self.intake.reject(taken, rejected.reason, "UpdateRejected")

    def _ask(self, given: msg.Query, taken: Taken) -> None:
        self.questions.ask(given)
        self._pass(taken)

    def _set_rule(self, given: msg.SetPauseRule, taken: Taken) -> None:
        self.intake.done(taken)
        events = self._pauses.set(given, self._now_ms, self.config.definitions)
        self._submit(decision_of(self._now_ms, "", "", events, given.message_id, taken), None)

    def _pass(self, taken: Taken | DeadLetter) -> None:
        """An input that causes nothing: its position goes along with the next record."""
        self.intake.done(taken)
        if taken.passage is not None:
            self._submit(decision_of(self._now_ms, "", "", (), "", taken), None)

    def _forward(self, taken: Taken) -> None:
        self.intake.done(taken)
        self.counters["forwarded"] += 1
        self._submit(forwarding_of(self._now_ms, taken, self._internal_sent), None)

    # -- deciding

    def _moment(self) -> Moment:
        config, standing, sent, count = self.config, self._pauses.standing, self._internal_sent, self.config.partitions
        ttl_ms, circuits, sign = config.signal_ttl_ms, self.circuits.open, self._sign
        incarnation, offset = self.progress.at.incarnation, self.writer.next_offset
        keep_ms = config.ended_keep_ms
        return Moment(self._now_ms, incarnation, offset, count, ttl_ms, circuits, standing, sent, sign, keep_ms)

    def _attempt(self, given: msg.Input, taken: Taken | None = None) -> bool:
        """Decides an input of a topic, or one of the engine's own, and what it leaves to be continued.

        False: it is one of the engine's own that failed before, and its saga is set aside.
        """
        if taken is None and self._poison and self._poison.find(given, None) is not None:
            self._set_aside(given, None)
            return False
        self._try(self._decide, given, taken)
        if not isinstance(given, msg.Continue):
            while (execution := self.runs.live.get(given.saga_id)) is not None and execution.state.continue_due:
                if not self._attempt(msg.Continue(given.saga_id, execution.state.run)):
                    break
        return True

    def _try(self, act: Callable[[Any, Any], None], given: Given, taken: Taken | None) -> None:
        self._counted(act, given, taken)
        if self._poison:
            self._poison.forget(given, None if taken is None else taken.record)

    def _counted(self, act: Callable[[Any, Any], None], given: Given, taken: Taken | DeadLetter | None) -> None:
        """Does something with an input; a failure that it is not to blame for ends the epoch and is remembered."""
        try:
            act(given, taken)
        except (InputRejected, UpdateRejected, EpochLost, StoreBroken):
            raise
        except BUGS as error:
            self._poison.note(given, None if taken is None else taken.record, error)
            error.add_note(f"It came while {type(given).__name__} of saga {given.saga_id!r} was decided.")
            raise

    def _decide(self, given: msg.Input, taken: Taken | None) -> None:
        execution = self.runs.find(given.saga_id)
        definition = self._definition(given, execution)
        sign = None if execution is None else sign_of(given, execution.state)
        execution, events, run = decide(execution, definition, given, self._moment())
        if sign is not None:
            events += self.circuits.note(*sign, self._now_ms)
        if taken is not None:
            self.intake.done(taken)
        message_id = self._changes.new_memory(given) if run else ""
        if events or message_id or (taken is not None and taken.passage is not None):
            self._submit(decision_of(self._now_ms, given.saga_id, run, events, message_id, taken), execution)

    def _definition(self, given: Given, execution: Execution | None) -> Definition | None:
        if execution is not None and execution.state.phase is not Status.NOT_STARTED:
            return self.config.definitions.get(execution.state.saga_type)
        return self.config.definitions.get(given.saga_type) if isinstance(given, msg.Start | msg.Update) else None

    def _bury(self, given: Given, taken: Taken, failed: Failed) -> None:
        """An input of a topic at which the engine failed again and again: once it can be found, its saga is parked."""
        if isinstance(given, msg.Query):
            self.questions.fail(given, failed.reason)
            self._pass(taken)
        elif failed.buried or (is_told(given) and not failed.hopeless):
            self.intake.done(taken)
            self._set_aside(given, taken)
        else:
            self.intake.reject(taken, failed.reason, failed.kind, poison=given)

    def _set_aside(self, given: Given, taken: Taken | DeadLetter | None) -> None:
        self._counted(self._park, given, taken)

    def _park(self, given: Given, taken: Taken | DeadLetter | None) -> None:
        failed = self._poison.find(given, None if taken is None else taken.record)
        assert failed is not None
        execution, external = self.runs.find(given.saga_id), taken is not None
        definition = self._definition(given, execution)
        execution, events, run = set_aside(given, execution, definition, self._moment(), failed, external=external)
        if events or (taken is not None and taken.passage is not None):
            self._submit(decision_of(self._now_ms, given.saga_id, run, events, "", taken), execution)
        if isinstance(given, msg.Update):
            self.questions.refuse(UpdateRejected(given, ev.Refusal.REJECTED, failed.reason))

    def _submit(self, decision: ev.Decision, execution: Execution | None) -> None:
        state = None
        if execution is not None:
            state = execution.state
            self.runs.decided(execution, self.writer.next_offset)
            if state.new_due:
                self.timers.add_new(state)
        told = {str(event.target): event.counter for event in decision.events if isinstance(event, ev.InputSent)}
        self._internal_sent.update(told)
        outward = effects_of(decision, state)
        if decision.message_id:
            self._changes.message(decision, self.writer.next_offset)
        self.counters["decisions"] += 1
        positions = dict(self.intake.positions)
        sent, is_open = self.sender.mark(self.progress.at.offset)
        self._journaled = (positions, sent)
        self.writer.submit(write_decision(decision), positions, sent, is_open, _Rest(decision, outward, execution))

    # -- confirmed

    def _settle(self) -> None:
        """What is confirmed may go outside, and into the store once a cut's last decision is among it."""
        settled, self._settling = self._settling, []
        for pending in settled:
            rest: _Rest = pending.rest
            mine = pending.envelope
            if not self.progress.rule.accept(
                mine.kind, mine.nonce, mine.seq, mine.prev_hash, pending.offset, pending.value, pending.chain
            ):
                raise EpochLost(f"the decision at {pending.offset} does not count under rule R")
            self.progress.step(pending.offset, pending.timestamp_ms, pending.value, mine, rest.decision)
            self._changes.confirmed(pending.offset)
        for pending in settled:
            self._release(pending.offset, pending.rest)

    def _release(self, offset: int, rest: _Rest) -> None:
        for index, effect in rest.effects:
            if isinstance(effect, LocalCall):
                self.local.add(effect)
            else:
                self.sender.send(offset, index, effect, self._now_ms)
        execution, decision = rest.execution, rest.decision
        if execution is not None and decision is not None:
            execution.unconfirmed -= 1
            state = execution.state
            known = state.saga_type in self.config.definitions
            self.tally.confirmed(decision, state, state.saga_type if known else UNKNOWN_TYPE)
            if state.parked:
                tell_parked(decision, self.number)
            if self.feed is not None:
                self.feed.offer(offset, decision, state)
        self.counters["confirmed"] += 1

    def _refuse(self, out: Outgoing, why: str) -> None:
        """A command that Kafka does not take is an input to its step."""
        command: Command = out.effect  # type: ignore[assignment]
        undo = command.direction == "undo"
        given = msg.SendFailed(command.saga_id, command.run, command.sequence, undo, command.attempt, why)
        decided = True
        with suppress(InputRejected):
            decided = self._attempt(given)
        (self.sender.settle if decided else self.sender.put_by)(out)

    # -- beginning

    def begin(self, replica: Replica) -> None:
        """Goes on where the last owner stopped, once, before anything else. What it raises ends the epoch."""
        self.counters["resent"] += resend(replica, self.runs, self.sender, self._now_ms)
        for call in calls_to_make(self.store, self.runs):
            self.local.add(call)
        for given in inputs_to_go_on(self.store, self.runs, self.timers, self.config.definitions):
            self._attempt(given)

    def take(self, role: str, record: Record | Passed) -> None:
        """Hands in one record of an input topic, or that offsets of it without any were passed."""
        self.intake.put(role, record)
