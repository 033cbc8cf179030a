"""One decision in the making: events are applied as they are emitted, and the saga goes as far as it can.

`decide` records what the input says; `Turn.advance` then lets the code run, schedules what it asks for, undoes and
ends. A decision has a budget of effects and bytes; what does not fit follows in a decision of its own (`ContinueDue`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace

from orchestrator.errors import BUGS, Abort, Canceled, ContinueAsNew, Failure, Pending, RetryLater, StepFailed
from orchestrator.model import calls, children, handlers, keys, locks, migrations, pauses, requests, undoing
from orchestrator.model import events as ev
from orchestrator.model.budget import MAX_BYTES, MAX_EFFECTS, MAX_EVENTS
from orchestrator.model.definition import Definition
from orchestrator.model.divergence import Divergence
from orchestrator.model.driver import Driver, passed
from orchestrator.model.evolve import evolve
from orchestrator.model.execution import ENDED_KEEP_MS as ENDED_KEEP_MS
from orchestrator.model.execution import SIGNAL_TTL_MS as SIGNAL_TTL_MS
from orchestrator.model.execution import Execution as Execution
from orchestrator.model.execution import Moment as Moment
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Called, Input
from orchestrator.model.state import Step

_WITH_PAYLOAD = (
    ev.SagaStarted,
    ev.RunFollows,
    ev.StepScheduled,
    ev.StepInherited,
    ev.StepSucceeded,
    ev.SagaEnded,
    ev.SignalReceived,
    ev.SignalBuffered,
    ev.PromiseSettled,
    ev.UpdateAccepted,
    ev.UpdateEnded,
    ev.Recorded,
)
_SENT_ALONG = ("payload", "baggage", "traceparent", "note")
_TEXT_CHARACTERS = 4_000
_TYPE_CHARACTERS = 256
_HANDLERS = "(a service's handler raises this; a saga that is to end, and be undone, raises Abort)"


class Turn:
    """Events of one decision, applied to the state as they come."""

    def __init__(self, execution: Execution, definition: Definition | None, moment: Moment) -> None:
        self.execution = execution
        self.state = execution.state
        self.definition = definition
        self.newest = definition
        """Of the versions that this owner has; `definition` is the run's own."""
        self.moment = moment
        self.events: list[ev.Event] = []
        self.past_parked = False
        """Parked steps do not hold the code: it is about to let go of them, or this goes on where it ran already."""
        self._passed = passed(self.state)
        self._effects = 0
        self._bytes = 0
        self._sent: dict[int, int] = {}

    def emit(self, event: ev.Event, *, effects: int = 0) -> None:
        """Adds an event, and the effects that it has of the decision's budget."""
        self._effects += effects
        evolve(self.state, event, self.moment.now_ms)
        self.events.append(event)
        if isinstance(event, _WITH_PAYLOAD):
            self._bytes += len(event.payload) + len(getattr(event, "undo_payload", None) or b"")

    def send(self, input: Input) -> None:
        """An input for another saga, by the way on which nothing is lost, repeated or overtaken."""
        target = partition_of(input.saga_id, self.moment.partitions)
        self._sent[target] = sent = self._sent.get(target, 0) + 1
        self._bytes += sum(len(getattr(input, name, None) or b"") for name in _SENT_ALONG)
        counter = self.moment.sent.get(str(target), 0) + sent
        self.emit(ev.InputSent(target, counter, input), effects=1)

    def end(self, event: ev.SagaEnded, follows: ev.RunFollows | None = None, *, hands_on: bool = False) -> None:
        """The run is over; another one of the saga may follow. `hands_on`: that gets the updates that are under way."""
        self.execution.detach()
        if not hands_on:
            self.end_updates(f"the saga is {event.status}")
        calls.refuse_held(self, f"the saga is {event.status}")
        locks.give_all(self, follows)
        if follows is None and not self.state.has_parent:
            event = replace(event, forget_at_ms=self.moment.now_ms + self.moment.ended_keep_ms)
        heard = [(each.sequence, each.error_type != "") for each in self.state.mailbox if isinstance(each, Called)]
        heard += [(sequence, True) for sequence in self.state.parked if calls.is_refused_late(self.state, sequence)]
        self.emit(event)
        children.ended(self)
        if follows is not None:
            self.emit(follows)
        if self.state.ended:
            for sequence, refused in heard:
                undoing.called_after_end(self, sequence, refused=refused)
            self.leave_all()

    def leave_all(self) -> None:
        """The saga has ended: its children and the keepers of its keys hear of it, as far as the budget goes."""
        children.leave_all(self)
        keys.leave_all(self)
        if self.state.follows is not None:
            children.release(self)

    def following(
        self, cause: ev.Following, payload: bytes, *, by: str = "", reason: str = "", until: int = 0
    ) -> ev.RunFollows:
        """What says that another run of the saga comes next, with an input of its own.

        One that has not begun keeps the time at which it does.
        """
        state = self.state
        given = payload, state.started_by, None, state.traceparent
        late = state.not_begun_ms is None or state.not_begun_ms <= self.moment.now_ms
        begin_ms = None if late else state.not_begun_ms
        return ev.RunFollows(cause, *given, begin_ms=begin_ms, baggage=state.baggage, by=by, reason=reason, until=until)

    def terminate(self, reason: str, by: str, follows: ev.RunFollows | None = None) -> None:
        """Ends the run at once; nothing is undone."""
        state = self.state
        undone = ev.Undone.PARTIAL if state.undos_done or state.undo_open else ev.Undone.NONE
        self.end(ev.SagaEnded(ev.Status.TERMINATED, undone, b"", "Terminated", reason, by), follows)

    def cancel(self, cause: ev.Cause, reason: str, by: str) -> None:
        """Asks the run to stop: through its code, or without it where there is none to be had. It is paused no longer.

        One that is being set back has nothing to go on with any more: all that it did is undone.
        """
        state = self.state
        if state.paused is not None:
            self.emit(ev.SagaResumed(by, "canceled"))
            if state.phase is ev.Status.WAITING_FOR_CODE and self.definition is not None:
                self.find_code()
        self.emit(ev.CancelRequested(cause, reason, by))
        if state.begin_ms is not None or state.phase is ev.Status.COMPENSATING:
            self.compensate(cause, "Canceled", reason)
        elif state.phase is ev.Status.WAITING_FOR_CODE or (0 in state.parked and cause is ev.Cause.CANCELED):
            self.stop_without_code(cause, reason)

    def find_code(self) -> None:
        """There is code again; signals that it could never take are dropped."""
        assert self.definition is not None
        self.emit(ev.CodeFound())
        self.drop_signals(self.definition.check_signal)

    def drop_signals(self, problem_of: Callable[[str, bytes], str | None]) -> None:
        """Drops those of the kept signals that have a problem."""
        place = 0
        while place < len(self.state.signals):
            name, payload = self.state.signals[place]
            if (problem := problem_of(name, payload)) is None:
                place += 1
            else:
                self.emit(ev.SignalDropped(place, name, problem))

    def fits(self, *, effects: int = 0, size: int = 0) -> bool:
        """Whether the budget bears one more event; if not, the rest follows in a decision of its own."""
        if (
            self._effects + effects <= MAX_EFFECTS
            and len(self.events) < MAX_EVENTS
            and (not self._bytes or self._bytes + size <= MAX_BYTES)
        ):
            return True
        if not self.state.continue_due:
            self.emit(ev.ContinueDue())
        return False

    def absorb(self, input: Input, reason: str, sequence: int = 0, attempt: int = 0) -> None:
        """Records an input that changes nothing."""
        self.emit(ev.InputAbsorbed(type(input).__name__, reason, sequence, attempt))

    def park(self, reason: str, detail: str = "") -> None:
        """Sets the saga itself aside. Its code is let go of; a person's retry replays it."""
        self.execution.detach()
        self.emit(ev.SagaParked(reason, _recordable(detail[-_TEXT_CHARACTERS:])))

    def park_for_bug(self, error: BaseException, who: str = "the code") -> None:
        """Sets the saga aside for an error that user code must not raise."""
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        if isinstance(error, Failure | RetryLater | Pending):
            text = f"{text.rstrip()} {_HANDLERS}\n"
        self.park(f"{who} raised {type(error).__name__}", text)

    def held(self) -> bool:
        """Whether the saga is paused, or is from here on."""
        if self.state.paused is None:
            self._pause_by(self.rule())
        return self.state.paused is not None

    def rule(self) -> str:
        """The rule over sagas that holds this one, empty if none does. None holds what a person or its parent stops."""
        state = self.state
        asked = state.cancel is ev.Cause.CANCELED or state.forced or state.undo_asked or state.ended
        return "" if asked or not self.moment.paused else pauses.over_saga(self.moment.paused, state.saga_type)

    def holds_back(self, service: str, command: str) -> bool:
        """Whether this command may not be sent now; then the saga is paused."""
        state = self.state
        if self.moment.paused:
            self._pause_by(pauses.over_command(self.moment.paused, state.saga_type, service, command))
        return state.paused is not None

    def _pause_by(self, rule: str) -> None:
        if rule:
            self.emit(ev.SagaPaused("", "", rule))

    def undo_payload(self, step: Step, reply: bytes) -> bytes | None:
        """What a succeeded step's undo sends, where that depends on the reply; None leaves what was recorded.

        Without live code (the saga is parked) it stays the one for an unknown outcome, which the undo must bear anyway.
        Raises what the saga's own function raises.
        """
        if step.undo_command is None or self.execution.driver is None:
            return None
        request = self.execution.driver.request_of(step.sequence)
        if request is None or not callable(request.undo_payload):
            return None
        return request.undo_payload(reply)

    def warm(self) -> Driver | None:
        """The live code, brought to where it was; None where there is none or it cannot be had."""
        state = self.state
        if state.phase is not ev.Status.RUNNING or 0 in state.parked or self.definition is None:
            return None
        if self.execution.driver is None:
            if self.definition.version != state.version:
                migrates = migrations.migrates(self.definition, state)
                self.emit(ev.VersionChanged(self.definition.version, self.definition.pinned, migrates=migrates))
            if state.migrates_from:
                return None
            self.execution.driver = Driver(self.definition, state, self.moment.sign, self._passed)
            try:
                self.execution.driver.catch_up()
            except Divergence as difference:
                self.park("the code diverges from the history", str(difference))
        return self.execution.driver

    def advance(self) -> None:
        """Goes on until the saga waits for something, has ended, is parked, or the budget is used up."""
        state = self.state
        if state.begin_ms is not None or self.held():
            return
        if state.phase is ev.Status.RUNNING:
            if 0 in state.parked and state.cancel is ev.Cause.CANCELED and not state.cancel_resolved:
                self.stop_without_code(state.cancel, state.error_message)
            else:
                self._run_code()
        if state.phase is ev.Status.COMPENSATING and not state.continue_due and state.paused is None:
            undoing.compensate(self)

    def compensate(
        self, cause: ev.Cause, error_type: str, error_message: str, forced_by: str = "", keep: int = 0
    ) -> None:
        """Turns to undoing; the code has had its last word."""
        self.execution.detach()
        self.end_updates("the saga is stopping")
        error_type = _recordable(error_type[:_TYPE_CHARACTERS])
        message = _recordable(error_message[:_TEXT_CHARACTERS])
        self.emit(ev.CompensationStarted(cause, error_type, message, forced_by, keep))

    def stop_without_code(self, cause: ev.Cause, reason: str) -> None:
        """A cancellation where there is no code to be had: waits for a pivot's outcome, then turns to undoing."""
        if not self._awaits_pivot():
            self.compensate(cause, "Canceled", reason)

    def _awaits_pivot(self) -> bool:
        return any(self.state.steps[sequence].pivot for sequence in self.state.open)

    def _run_code(self) -> None:
        state = self.state
        if self.definition is None:
            self.emit(ev.CodeMissing())
            return
        if state.cancel is not None and not state.cancel_resolved:
            self._raise_cancel(state.cancel)
        if state.parked and not self.past_parked:
            return
        driver = self.warm()
        if driver is None and state.migrates_from and migrations.take_over(self):
            driver = self.warm()
        if driver is None:
            return
        while True:
            try:
                driver.catch_up()
            except Divergence as difference:
                self.park("the code diverges from the history", str(difference))
                return
            error = driver.error
            if driver.finished and isinstance(error, BUGS) and not isinstance(error, StepFailed | Abort):
                self.park_for_bug(error)
                return
            if not requests.take(self, driver) or not handlers.take_answers(self, driver):
                return
            if not requests.let_go(self, driver):
                return
            if driver.finished:
                break
            given = bool(state.signals or state.promises) and requests.hand_out(self)
            if not given and driver.delivered == len(state.outcomes):
                break
        if driver.finished:
            self._finish(driver)
        else:
            undoing.undo(self, state.undo_now)

    def _raise_cancel(self, cause: ev.Cause) -> None:
        """Brings a requested cancellation to the code, unless a pivot's outcome must be known first.

        A saga that is parked for a person is not ended by a clock, but a person's cancel reaches it.
        """
        state = self.state
        if 0 in state.parked or (state.parked and cause is ev.Cause.TIMED_OUT):
            return
        if not self._awaits_pivot():
            self.past_parked = True
            self.emit(ev.CancelRaised())

    def end_updates(self, reason: str) -> None:
        """Nobody handles updates any more: who waits for one is told."""
        handlers.end_all(self, reason)

    def _finish(self, driver: Driver) -> None:
        state, error = self.state, driver.error
        unheard = driver.delivered < state.cancel_resolved
        if state.cancel_resolved and state.cancel is not None and not (unheard and error is None and state.pivot_done):
            self.compensate(state.cancel, "Canceled", state.error_message)
        elif error is None:
            self._complete(driver)
        elif isinstance(error, StepFailed | Abort):
            if state.pivot_done:
                self.park("the saga failed after its pivot step, from where only forward is possible", str(error))
            else:
                self.compensate(ev.Cause.FAILED, str(error.error_type), str(error.message))
        elif isinstance(error, ContinueAsNew):
            self._continue_as_new(error)
        elif isinstance(error, Canceled):
            self.compensate(ev.Cause.FAILED, "Canceled", "the code raised Canceled by itself")
        else:
            self.park_for_bug(error)

    def _complete(self, driver: Driver) -> None:
        """The code has returned; also where a cancellation came while its last step, the pivot, was under way."""
        state = self.state
        undoing.undo(self, state.undo_now)
        if state.undo_open or state.undo_now:
            return
        size = len(driver.result)
        if size > MAX_BYTES:
            self.park("the saga's result is too large", f"{size} bytes, at most {MAX_BYTES}; pass a reference")
        elif self.fits(size=size):
            self.end(ev.SagaEnded(ev.Status.COMPLETED, ev.Undone.NONE, driver.result))

    def _continue_as_new(self, asked: ContinueAsNew) -> None:
        """The run ends as one that completed, and the next one of the same id follows."""
        state, payload = self.state, asked.payload
        undoing.undo(self, state.undo_now)
        if state.undo_open or state.undo_now:
            return
        if not state.outcomes:
            self.park("the saga continues as new without having waited for anything", "it would do so for ever")
        elif len(payload) > MAX_BYTES:
            size = len(payload)
            self.park("the next run's input is too large", f"{size} bytes, at most {MAX_BYTES}; pass a reference")
        elif self.fits(size=len(payload)):
            follows = self.following(ev.Following.CONTINUED, payload)
            ended = ev.SagaEnded(ev.Status.CONTINUED_AS_NEW, ev.Undone.NONE)
            self.end(ended, follows, hands_on=asked.hands_on)


def _recordable(text: str) -> str:
    """Text as UTF-8 can hold it: an exception's may contain anything."""
    return text.encode(errors="replace").decode()
