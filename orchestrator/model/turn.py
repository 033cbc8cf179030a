"""One decision in the making: events are applied as they are emitted, and the saga goes as far as it can.

`decide` records what the input says; `Turn.advance` then lets the code run, schedules what it asks for, undoes and
ends. A decision has a budget of effects and bytes; what does not fit follows in a decision of its own (`ContinueDue`).
"""

from __future__ import annotations

import traceback
from collections import Counter

from orchestrator.errors import Abort, Canceled, ContinueAsNew, StepFailed
from orchestrator.model import children, handlers, pauses
from orchestrator.model import events as ev
from orchestrator.model.definition import ChildRequest, Definition, RecordRequest, StepRequest, WaitRequest
from orchestrator.model.divergence import Divergence, name_of
from orchestrator.model.driver import Driver
from orchestrator.model.evolve import evolve
from orchestrator.model.execution import SIGNAL_TTL_MS as SIGNAL_TTL_MS
from orchestrator.model.execution import Execution as Execution
from orchestrator.model.execution import Moment as Moment
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Input
from orchestrator.model.state import OPEN, Step, StepStatus

MAX_EFFECTS = 200
MAX_EVENTS = 2_000
MAX_BYTES = 256 * 1024
"""The budget of one decision: effects, events, bytes of payloads.

The first payload of a decision is taken whatever the budget, a reply together with the undo made of it, each of at most
`MAX_BYTES`: 512 KiB, and about 50 KiB for the events themselves. So one journal record stays under Kafka's default
limit of 1 MiB.
"""

_WITH_PAYLOAD = (
    ev.SagaStarted,
    ev.RunFollows,
    ev.StepScheduled,
    ev.StepSucceeded,
    ev.SagaEnded,
    ev.SignalReceived,
    ev.SignalBuffered,
    ev.PromiseSettled,
    ev.UpdateAccepted,
    ev.UpdateEnded,
    ev.Recorded,
)
_TEXT_CHARACTERS = 4_000
_TYPE_CHARACTERS = 256


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
        self._effects = 0
        self._bytes = 0
        self._sent: Counter[int] = Counter()

    def emit(self, event: ev.Event) -> None:
        evolve(self.state, event, self.moment.now_ms)
        self.events.append(event)
        if isinstance(event, _WITH_PAYLOAD):
            self._bytes += len(event.payload) + len(getattr(event, "undo_payload", None) or b"")

    def send(self, input: Input) -> None:
        """An input for another saga, by the way on which nothing is lost, repeated or overtaken."""
        target = partition_of(input.saga_id, self.moment.partitions)
        self._sent[target] += 1
        self._effects += 1
        self._bytes += len(getattr(input, "payload", b""))
        self.emit(ev.InputSent(target, self.moment.sent.get(str(target), 0) + self._sent[target], input))

    def end(self, event: ev.SagaEnded) -> None:
        """The run is over."""
        self.execution.detach()
        self.end_updates(f"the saga is {event.status}")
        children.leave_all(self)
        self.emit(event)
        children.ended(self)

    def terminate(self, reason: str, by: str) -> None:
        """Ends the run at once; nothing is undone."""
        state = self.state
        undone = ev.Undone.PARTIAL if state.undos_done or state.undo_open else ev.Undone.NONE
        self.end(ev.SagaEnded(ev.Status.TERMINATED, undone, b"", "Terminated", reason, by))

    def cancel(self, cause: ev.Cause, reason: str, by: str) -> None:
        """Asks the run to stop: through its code, or without it where there is none to be had."""
        state = self.state
        self.emit(ev.CancelRequested(cause, reason, by))
        if state.begin_ms is not None:
            self.compensate(cause, "Canceled", reason)
        elif state.phase is ev.Status.WAITING_FOR_CODE or (0 in state.parked and cause is ev.Cause.CANCELED):
            self.stop_without_code(cause, reason)

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
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        self.park(f"{who} raised {type(error).__name__}", "".join(lines))

    def held(self) -> bool:
        """Whether the saga is paused, or is from here on. Whom a person had stopped is held by no rule over sagas."""
        state = self.state
        asked = state.cancel is ev.Cause.CANCELED or state.forced or state.ended
        if state.paused is None and self.moment.paused and not asked:
            self._pause_by(pauses.over_saga(self.moment.paused, state.saga_type))
        return state.paused is not None

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
                self.emit(ev.VersionChanged(self.definition.version, self.definition.pinned))
            self.execution.driver = Driver(self.definition, state, self.moment.sign)
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
            self._compensate()

    def compensate(self, cause: ev.Cause, error_type: str, error_message: str, forced_by: str = "") -> None:
        """Turns to undoing; the code has had its last word."""
        self.execution.detach()
        self.end_updates("the saga is stopping")
        error_type = _recordable(error_type[:_TYPE_CHARACTERS])
        message = _recordable(error_message[:_TEXT_CHARACTERS])
        self.emit(ev.CompensationStarted(cause, error_type, message, forced_by))

    def stop_without_code(self, cause: ev.Cause, reason: str) -> None:
        """A cancellation where there is no code to be had: waits for a pivot's outcome, then turns to undoing."""
        if not self._awaits_pivot():
            self.compensate(cause, "Canceled", reason)

    def _awaits_pivot(self) -> bool:
        return any(self.state.steps[sequence].pivot for sequence in self.state.open)

    def _run_code(self) -> None:
        state = self.state
        if state.cancel is not None and not state.cancel_resolved:
            self._raise_cancel(state.cancel)
        if state.parked and not self.past_parked:
            return
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
            if driver.finished and isinstance(error, Exception) and not isinstance(error, StepFailed | Abort):
                self.park_for_bug(error)
                return
            if not self._take_requests(driver) or not handlers.take_answers(self, driver) or not self._let_go(driver):
                return
            if driver.finished or not (state.signals or state.promises) or not self._hand_out():
                break
        if driver.finished:
            self._finish(driver)
        else:
            self._undo(state.undo_now)

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

    def _take_requests(self, driver: Driver) -> bool:
        """Turns what the code asked for into events. False: something stopped it."""
        requests = driver.requests
        for taken, (sequence, after, request) in enumerate(requests):
            effects = size = 0
            if isinstance(request, WaitRequest):
                due_ms = self.moment.due_ms(request.until_ms, request.timeout_ms)
                event: ev.Event = ev.WaitScheduled(sequence, after, request.kind, request.name, due_ms)
            elif isinstance(request, RecordRequest):
                event, size = (
                    ev.Recorded(sequence, after, request.kind, request.name, request.payload),
                    len(request.payload),
                )
            elif isinstance(request, StepRequest) and self.holds_back(request.service, request.command):
                del requests[:taken]
                return False
            else:
                try:
                    event = self._scheduled(sequence, after, request)
                except Exception as bug:
                    self.park_for_bug(bug)
                    return False
                effects, size = 1, len(request.payload) + len(event.undo_payload or b"")
            if size > MAX_BYTES:
                self.park(
                    "a step's payload is too large",
                    f"{name_of(request)}: {size} bytes, at most {MAX_BYTES}; pass a reference",
                )
                return False
            if not self.fits(effects=effects, size=size):
                del requests[:taken]
                return False
            self._effects += effects
            self.emit(event)
            if isinstance(event, ev.StepScheduled) and event.service in self.moment.open_circuits:
                self.emit(ev.StepHeld(sequence))
            if isinstance(request, ChildRequest):
                children.start(self, sequence, request)
        requests.clear()
        return True

    def _let_go(self, driver: Driver) -> bool:
        """Ends what the code no longer waits for, gives up what it does not count on. False: the budget is used up."""
        for taken, (sequence, after) in enumerate(driver.released):
            if not self._release(sequence, after):
                del driver.released[:taken]
                return False
        driver.released.clear()
        for taken, sequence in enumerate(driver.to_cancel):
            step = self.state.steps[sequence]
            if step.status is StepStatus.RUNNING and not step.cancel_sent:
                if not self.fits(effects=1):
                    del driver.to_cancel[:taken]
                    return False
                self.emit(ev.ChildCanceled(sequence))
                children.leave(self, step, closed=False)
        driver.to_cancel.clear()
        for taken, sequence in enumerate(driver.abandoned):
            step = self.state.steps[sequence]
            if step.status is StepStatus.DONE and step.needs_undo:
                if not self.fits():
                    del driver.abandoned[:taken]
                    return False
                self.emit(ev.StepAbandoned(sequence))
        driver.abandoned.clear()
        return True

    def end_updates(self, reason: str) -> None:
        """Nobody handles updates any more: who waits for one is told."""
        handlers.end_all(self, reason)

    def _hand_out(self) -> bool:
        """Gives kept signals and settled promises to the waits for their names. Whether there were any."""
        state, given = self.state, False
        kept = {name for name, _ in state.signals}
        for sequence in sorted(state.open):
            step = state.steps[sequence]
            if step.kind is ev.StepKind.SIGNAL and step.command in kept:
                event: ev.Event = ev.SignalTaken(sequence)
            elif step.kind is ev.StepKind.PROMISE and step.command in state.promises:
                _, error_type, _ = state.promises[step.command]
                event = ev.PromiseBroken(sequence) if error_type else ev.PromiseKept(sequence)
            else:
                continue
            if not self.fits():
                return False
            self.emit(event)
            kept, given = {name for name, _ in state.signals}, True
        return given

    def _scheduled(self, sequence: int, after: int, request: StepRequest | ChildRequest) -> ev.StepScheduled:
        if isinstance(request, ChildRequest):
            child_id = children.child_id(self.state, sequence, request.child_id)
            undo_command = "undo" if request.undo else None
            kind = ev.StepKind.CHILD
            return ev.StepScheduled(sequence, after, request.saga_type, child_id, b"", -1, undo_command, kind=kind)
        undo = request.undo_payload
        key = f"{self.state.saga_id}/{sequence}" if request.spread else self.state.saga_id
        return ev.StepScheduled(
            sequence,
            after,
            request.service,
            request.command,
            request.payload,
            -1 if request.kind is ev.StepKind.LOCAL else partition_of(key, self.moment.partitions),
            request.undo_command,
            undo(None) if callable(undo) else undo,
            request.pivot,
            request.start_to_close_ms,
            request.schedule_to_close_ms,
            request.retry,
            request.undo_retry,
            request.kind,
            request.schedule_to_start_ms,
            request.heartbeat_ms,
        )

    def _release(self, sequence: int, after: int) -> bool:
        """Ends one step or wait unless it is over already. False: the budget is used up."""
        step = self.state.steps[sequence]
        if step.status in OPEN:
            if not self.fits():
                return False
            if step.status is StepStatus.WAITING:
                self.emit(ev.WaitCanceled(sequence))
            else:
                if step.kind is ev.StepKind.CHILD and step.undo_command is None:
                    children.leave(self, step, closed=False)
                self.emit(ev.StepEndedUnknown(sequence, ev.UnknownCause.CANCELED, "Canceled", "", after))
        return True

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
            self._continue_as_new(error.payload)
        elif isinstance(error, Canceled):
            self.compensate(ev.Cause.FAILED, "Canceled", "the code raised Canceled by itself")
        else:
            self.park_for_bug(error)

    def _complete(self, driver: Driver) -> None:
        """The code has returned; also where a cancellation came while its last step, the pivot, was under way."""
        state = self.state
        self._undo(state.undo_now)
        if state.undo_open or state.undo_now:
            return
        size = len(driver.result)
        if size > MAX_BYTES:
            self.park("the saga's result is too large", f"{size} bytes, at most {MAX_BYTES}; pass a reference")
        elif self.fits(size=size):
            self.end(ev.SagaEnded(ev.Status.COMPLETED, ev.Undone.NONE, driver.result))

    def _continue_as_new(self, payload: bytes) -> None:
        """The run ends as one that completed, and the next one of the same id follows."""
        state = self.state
        self._undo(state.undo_now)
        if state.undo_open or state.undo_now:
            return
        if not state.outcomes:
            self.park("the saga continues as new without having waited for anything", "it would do so for ever")
        elif len(payload) > MAX_BYTES:
            size = len(payload)
            self.park("the next run's input is too large", f"{size} bytes, at most {MAX_BYTES}; pass a reference")
        elif self.fits(size=len(payload)):
            self.end(ev.SagaEnded(ev.Status.CONTINUED_AS_NEW, ev.Undone.NONE))
            given = payload, state.started_by, None, state.traceparent
            self.emit(ev.RunFollows(ev.Following.CONTINUED, *given, baggage=state.baggage))

    def _schedule_undo(self, sequence: int) -> bool:
        step = self.state.steps[sequence]
        if self.holds_back(step.service, step.undo_command or "") or not self.fits(effects=1):
            return False
        self._effects += 1
        self.emit(ev.UndoScheduled(sequence))
        if step.service in self.moment.open_circuits:
            self.emit(ev.UndoHeld(sequence))
        if step.kind is ev.StepKind.CHILD:
            children.ask_undo(self, step)
        return True

    def _compensate(self) -> None:
        """Lets go of what is open where the code was not asked, and undoes; at last it ends."""
        state = self.state
        for sequence in sorted(state.open):
            if not self._release(sequence, len(state.outcomes)):
                return
        if state.parked:
            return
        self._undo(state.to_undo())
        if not state.undo_open and not state.to_undo():
            self.end(self._ending())

    def _undo(self, stack: list[int]) -> None:
        """Issues every undo of a stack whose turn it is, the latest first, and takes it off by that.

        A step waits for the undo of all that was scheduled after its end.
        """
        if not stack:
            return
        undo_open, steps = self.state.undo_open, self.state.steps
        # `after` never falls from one step to the next: the latest undo under way decides.
        latest = steps[max(undo_open)].after if undo_open else -1
        while stack:
            step = steps[stack[-1]]
            if latest >= step.ended or not self._schedule_undo(step.sequence):
                return
            latest = max(latest, step.after)

    def _ending(self) -> ev.SagaEnded:
        state = self.state
        if state.undos_skipped or (state.pivot_done and state.undos_done):
            undone = ev.Undone.PARTIAL
        else:
            undone = ev.Undone.ALL if state.undos_done else ev.Undone.NONE
        if state.cause is ev.Cause.CANCELED:
            status = ev.Status.CANCELED
        elif state.cause is ev.Cause.TIMED_OUT:
            status = ev.Status.TIMED_OUT
        elif state.cause is ev.Cause.UNDONE:
            status = ev.Status.COMPENSATED
        else:
            status = ev.Status.FAILED if undone is ev.Undone.NONE else ev.Status.COMPENSATED
        return ev.SagaEnded(status, undone, b"", state.error_type, state.error_message)


def _recordable(text: str) -> str:
    """Text as UTF-8 can hold it: an exception's may contain anything."""
    return text.encode(errors="replace").decode()
