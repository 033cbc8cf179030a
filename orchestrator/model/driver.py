"""A saga's code as a live coroutine, driven by `send()` without an event loop.

The code only ever waits for requests (steps, signals, time), for conditions, and for groups of branches. Each request
gets the next sequence number in the order of asking. The outcomes recorded in the state are delivered one by one in
their recorded order; after each, every branch runs until it waits again. So the same outcomes in the same order always
ask the same requests, and a replay is nothing but a delivery from the first outcome on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from orchestrator.errors import BUGS, Abort, Canceled, ContinueAsNew, StepFailed
from orchestrator.model.asked import Asked as Asked
from orchestrator.model.asked import Until as Until
from orchestrator.model.closing import close, close_all, forget_frames
from orchestrator.model.definition import (
    ChildRequest,
    Definition,
    RecordRequest,
    Request,
    Sign,
    SignalRequest,
    StepRequest,
    WaitRequest,
    unsigned,
)
from orchestrator.model.divergence import NOTHING, Divergence, name_in_history, name_of, side_by_side
from orchestrator.model.events import Status, StepKind
from orchestrator.model.foreign import ForeignAwait, no_branch, refusal, refused_by_itself
from orchestrator.model.groups import Branch, Join, Together
from orchestrator.model.messages import ChildCancellation, Leaving
from orchestrator.model.state import SagaState, Step, StepStatus

DEPRECATED = b"deprecated"
"""The value of a patch's marker that code may pass over."""

_FAILED = frozenset({StepStatus.REFUSED, StepStatus.WAIT_FAILED})


def passed(state: SagaState) -> int:
    """So many outcomes the run's code has gone through for certain; -1: not even its beginning.

    Where the run stands still, in the middle of what it asked for maybe, that is what came before its last request.
    """
    if state.phase in (None, Status.NOT_STARTED) or state.begin_ms is not None:
        return -1
    stands = state.paused is not None or state.continue_due or state.phase is Status.WAITING_FOR_CODE
    if not stands and not state.parked and not state.migrates_from:
        return len(state.outcomes)
    last = state.steps.get(state.sequence)
    return -1 if last is None else last.after - 1


class Driver:
    """The live code of one run. Implements `definition.Context`.

    `requests` are those asked since the state's last sequence number, `released` the sequence numbers of requests the
    code let go of, `abandoned` those of branches that it does not count on any more, `answers` what updates came to (of
    replayed ones again); all are emptied by whoever turns them into events. `before` are the outcomes that the code has
    gone through in earlier decisions: a patch that was not taken there is not taken now.
    """

    def __init__(
        self, definition: Definition, state: SagaState, sign: Sign = unsigned, before: int | None = None
    ) -> None:
        self.saga_id = state.saga_id
        self.run = state.run
        self.baggage = state.baggage
        self.now_ms = state.began_ms
        self.replaying = state.sequence > state.ballast
        self.requests: list[tuple[int, int, Request]] = []
        self.released: list[tuple[int, int]] = []
        self.abandoned: list[int] = []
        self.subject: Any = None
        self.answers: list[tuple[int, bytes, BaseException | None]] = []
        self._definition = definition
        self._handlers: list[Branch] = []
        self.finished = False
        self.result = b""
        self.error: BaseException | None = None
        self._state = state
        self._sign = sign
        self.delivered = max((state.steps[s].resolved for s in range(1, state.ballast + 1)), default=0)
        self._sequence = state.ballast
        self._waiting: dict[int, Branch] = {}
        self._asked: dict[int, StepRequest | ChildRequest] = {}
        self.to_stop: list[tuple[int, Leaving]] = []
        """Children that are to stop, and whose end the code waits for."""
        self.unlocked: list[int] = []
        """Lock steps whose key the code gives back."""
        self._conditions: list[Branch] = []
        self._patches: dict[str, bool] = {}
        self._before = passed(state) if before is None else before
        self._ready: deque[tuple[Branch, Any, BaseException | None]] = deque()
        self._running = False
        self._root = Branch(definition.body(self, state.payload))
        self._ready.append((self._root, None, None))

    def request_of(self, sequence: int) -> StepRequest | None:
        """The live request of a step that is still waited for."""
        request = self._asked.get(sequence)
        return request if isinstance(request, StepRequest) else None

    def problem_of(self, sequence: int, result: bytes) -> str | None:
        """Why the code could not read this as the result of what it waits for."""
        request = self._asked.get(sequence)
        try:
            return None if request is None or request.problem is None else request.problem(result)
        except BUGS as error:
            return f"{type(error).__name__}: {error}"

    @property
    def outcomes(self) -> int:
        return self.delivered

    @property
    def ended(self) -> bool:
        """Implements `definition.Context.ended`."""
        return self._state.ended

    @property
    def seed(self) -> str:
        """Implements `definition.Context.seed`."""
        step = self._state.steps.get(self._upcoming())
        return self._state.seed if step is None or not step.seed else step.seed

    def begin(self, request: ChildRequest) -> None:
        """Implements `definition.Context.begin`."""
        if not self._running:
            raise ForeignAwait(f"child {request.saga_type} was asked for outside of the saga's run")
        self._sequence = self._upcoming()
        self.requests.append((self._sequence, self.delivered, request))

    def tell(self, request: SignalRequest) -> None:
        """Implements `definition.Context.tell`."""
        self._check_running(StepKind.SENT, request.name)
        self._sequence = self._upcoming()
        self.requests.append((self._sequence, self.delivered, request))

    def unlock(self, hold: int) -> None:
        """Implements `definition.Context.unlock`."""
        self.unlocked.append(hold)

    def stop(self, request: ChildRequest, how: Leaving) -> None:
        """Implements `definition.Context.stop`."""
        self.to_stop += [(sequence, how) for sequence, asked in self._asked.items() if asked is request]

    def beside(self, body: Coroutine[Any, Any, None]) -> None:
        """Implements `definition.Context.beside`."""
        branch = Branch(body)
        self._handlers.append(branch)
        self._ready.append((branch, None, None))

    def sign(self, promise: str) -> str:
        """Implements `definition.Context.sign`."""
        return self._sign(self.saga_id, self.run, promise)

    def record(self, kind: StepKind, name: str, make: Callable[[], bytes]) -> bytes:
        """Implements `definition.Context.record`."""
        self._check_running(kind, name)
        self._sequence = self._upcoming(name if kind is StepKind.PATCH else None)
        step = self._state.steps.get(self._sequence)
        recorded = step is not None and (step.kind, step.command) == (kind, name)
        payload = step.result if step is not None and recorded else make()
        self.requests.append((self._sequence, self.delivered, RecordRequest(kind, name, payload)))
        return payload

    def _check_running(self, kind: StepKind, name: str) -> None:
        if not self._running:
            raise ForeignAwait(f"{kind} {name!r} was asked for outside of the saga's run")

    def patched(self, name: str) -> bool:
        """Implements `definition.Context.patched`."""
        if name not in self._patches:
            self._check_running(StepKind.PATCH, name)
            self._patches[name] = self._takes(name)
            if self._patches[name]:
                self.record(StepKind.PATCH, name, bytes)
        return self._patches[name]

    def deprecate_patch(self, name: str) -> None:
        """Implements `definition.Context.deprecate_patch`."""
        if name not in self._patches:
            self._check_running(StepKind.PATCH, name)
            if self._takes(name):
                self.record(StepKind.PATCH, name, lambda: DEPRECATED)
            self._patches[name] = True

    def _takes(self, patch: str) -> bool:
        """Whether it is recorded here, or the code has never been here."""
        step = self._state.steps.get(self._upcoming(patch))
        if step is None:
            return self.delivered > self._before
        return (step.kind, step.command) == (StepKind.PATCH, patch)

    def catch_up(self) -> None:
        """Delivers every recorded outcome the code has not seen. Raises `Divergence`."""
        state = self._state
        if self._ready:
            self._run()
            self._compare()
        outcomes = state.outcomes
        while self.delivered < len(outcomes) and not self.finished:
            sequence = outcomes[self.delivered]
            self.delivered += 1
            if sequence:
                self._deliver(state.steps[sequence])
            else:
                self.now_ms = state.cancel_at_ms
                self._cancel(self._root)
            self._run()
            self._compare()
        missing = state.steps.get(self._upcoming())
        if missing is not None:
            raise self.difference(missing.sequence, name_in_history(missing), NOTHING)
        if self.finished:
            for sequence in list(self._waiting):
                self._release(sequence)
        self.replaying = False

    def detach(self) -> None:
        """Ends the coroutines without any consequence: what their `finally` blocks ask for is asked of nobody.

        What leads back here is let go of, so that all of it is freed now, not when somebody looks for circles.
        """
        branches = [self._root, *self._handlers]
        while branches:
            branch = branches.pop()
            if isinstance(branch.waiting, Join):
                branches.extend(branch.waiting.open.values())
            close(branch.body)
            branch.waiting = branch.join = branch.condition = None
        self.subject = None
        self._asked.clear()
        self._waiting.clear()
        self._conditions.clear()
        self._ready.clear()
        forget_frames(self.error)

    def check(self, step: Step, request: Request) -> None:
        """Raises `Divergence` where the code asks for another thing than was recorded. A test may compare more."""
        known, wanted = name_in_history(step), name_of(request)
        if wanted != known:
            raise self.difference(step.sequence, known, wanted)

    def difference(self, sequence: int, known: str, wanted: str) -> Divergence:
        """That the history has `known` where the code asks for `wanted`, with the lines around."""
        asked = {number: name_of(request) for number, _, request in self.requests}
        return Divergence(sequence, known, wanted, side_by_side(sequence, self._state, asked, self.delivered))

    def _handle(self, step: Step) -> None:
        """Begins an update's handler, beside the code that waits."""
        if self._sequence != step.sequence - 1:
            missing = self._state.steps[self._sequence + 1]
            raise self.difference(missing.sequence, name_in_history(missing), NOTHING)
        self._sequence = step.sequence
        self.now_ms = step.resolved_at_ms
        handler = Branch(self._definition.update(self.subject, step.command, step.payload))
        handler.update = step.sequence
        self._handlers.append(handler)
        self._ready.append((handler, None, None))

    def _deliver(self, step: Step) -> None:
        if step.kind is StepKind.UPDATE:
            self._handle(step)
            return
        branch = self._waiting.pop(step.sequence, None)
        self._asked.pop(step.sequence, None)
        self.now_ms = step.resolved_at_ms
        if branch is None:
            return
        branch.waiting = None
        self._forget_condition(branch)
        if step.status is StepStatus.EXPIRED:
            self._ready.append((branch, None, None))
            return
        if step.cause is not None:
            error: BaseException | None = _failure(step, unknown=True)
        elif step.resolved and step.status in _FAILED:
            error = _failure(step, unknown=False)
        else:
            error = None
        self._ready.append((branch, step.result, error))

    def _run(self) -> None:
        while self._ready or self._look_at_conditions():
            branch, value, error = self._ready.popleft()
            if branch.cancel:
                branch.cancel = False
                error = Canceled()
            self._running = True
            try:
                asked = branch.body.send(value) if error is None else branch.body.throw(error)
            except StopIteration as stop:
                self._end(branch, stop.value, None)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as raised:
                self._end(branch, None, refused_by_itself(raised) or raised)
            else:
                self._wait(branch, asked)
            finally:
                self._running = False
                error = None  # it may know this frame

    def _look_at_conditions(self) -> bool:
        """Wakes the first branch whose condition holds. Whether there was one."""
        for branch in self._conditions:
            assert branch.condition is not None
            try:
                holds, error = branch.condition(), None
            except BUGS as raised:
                holds, error = True, raised
            if holds:
                self._forget_condition(branch)
                if isinstance(branch.waiting, int):
                    self._release(branch.waiting)
                    branch.waiting = None
                self._ready.append((branch, True, error))
                return True
        return False

    def _forget_condition(self, branch: Branch) -> None:
        if branch.condition is not None:
            branch.condition = None
            self._conditions.remove(branch)

    def _release(self, sequence: int) -> None:
        """The code no longer waits for this."""
        del self._waiting[sequence]
        self._asked.pop(sequence, None)
        self.released.append((sequence, self.delivered))

    def _ask(self, branch: Branch, request: StepRequest | WaitRequest | ChildRequest) -> None:
        """The branch waits for this, under the next number."""
        self._sequence = branch.waiting = self._upcoming()
        self._waiting[self._sequence] = branch
        self.requests.append((self._sequence, self.delivered, request))

    def _upcoming(self, patch: str | None = None) -> int:
        """The next number: markers of deprecated patches are passed over, but for the one that is asked for."""
        sequence = self._sequence + 1
        steps = self._state.steps
        while (step := steps.get(sequence)) is not None and is_deprecated(step) and step.command != patch:
            sequence += 1
        return sequence

    def _wait(self, branch: Branch, asked: object) -> None:
        if isinstance(asked, Asked):
            request = asked.request
            if isinstance(request, StepRequest) and request.pivot and branch is not self._root:
                alone = "nothing else may be open, so not inside gather, an update or an entity's operation"
                error = ForeignAwait(f"a pivot must be awaited alone: {alone}")
                self._ready.append((branch, None, error))
                return
            self._ask(branch, request)
            if branch.join is not None:
                branch.steps.append(self._sequence)
            if isinstance(request, StepRequest | ChildRequest):
                self._asked[self._sequence] = request
        elif isinstance(asked, Until):
            branch.condition = asked.condition
            self._conditions.append(branch)
            if asked.timeout_ms is not None:
                self._ask(branch, WaitRequest(StepKind.SLEEP, "until a condition holds", asked.timeout_ms))
        elif isinstance(asked, Together):
            wrong = [body for body in asked.branches if not hasattr(body, "__await__")]
            if wrong:
                close_all(asked.branches)
                self._ready.append((branch, None, no_branch(wrong[0])))
                return
            branch.waiting = Join(branch, asked)
            self._go_on(branch.waiting)
        else:
            self._ready.append((branch, None, refusal(asked)))

    def _end(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        branch.done = True
        join = branch.join
        if branch.update:
            self._handlers.remove(branch)
            if isinstance(error, ContinueAsNew):
                error = ForeignAwait("an update does not continue the saga as new: let run do it")
            self.answers.append((branch.update, value if error is None else b"", error))
            return
        if join is None:
            if branch is not self._root:
                self._handlers.remove(branch)
                if error is None or self.finished:
                    return
            self.finished, self.error = True, error
            self.result = value if error is None else b""
            return
        del join.open[branch.index]
        was_closed = join.closed
        if not join.note(branch.index, value, error):
            self.abandoned += branch.steps
        elif join.owner.join is not None:
            join.owner.steps += branch.steps
        if join.closed and not was_closed:
            for sibling in list(join.open.values()):
                self._cancel(sibling)
        self._go_on(join)

    def _go_on(self, join: Join) -> None:
        """Begins as many branches as the group may have open; it is over when none is."""
        while not join.closed and len(join.open) < join.concurrency:
            index, body = next(join.rest, (0, None))
            if body is None:
                break
            join.open[index] = Branch(body, join, index)
            self._ready.append((join.open[index], None, None))
        if not join.open:
            failure = join.failure
            if join.canceled and (failure is None or isinstance(failure, StepFailed | Abort)):
                failure = Canceled()
            join.owner.waiting = None
            self._ready.append((join.owner, join.results, failure))

    def _cancel(self, branch: Branch) -> None:
        """Raises `Canceled` at whatever the branch awaits; a group passes it on to its branches and waits for them."""
        if branch.done or branch.canceled:
            return
        branch.canceled = True
        waiting = branch.waiting
        if isinstance(waiting, Join):
            waiting.canceled = waiting.closed = True
            for child in list(waiting.open.values()):
                self._cancel(child)
        elif waiting is not None and _outlives(self._asked.get(waiting)):
            self.to_stop.append((waiting, Leaving.LEFT))
            branch.cancel = True
        elif waiting is not None or branch.condition is not None:
            self._forget_condition(branch)
            if waiting is not None:
                self._release(waiting)
                branch.waiting = None
            self._ready.append((branch, None, Canceled()))
        else:
            branch.cancel = True

    def _compare(self) -> None:
        """Drops requests that the history holds already; the first that differs from it is a divergence."""
        known = self._state.sequence
        if self.requests and self.requests[0][0] <= known:
            for sequence, _, request in self.requests:
                if sequence <= known:
                    self.check(self._state.steps[sequence], request)
            self.requests = [asked for asked in self.requests if asked[0] > known]


def is_deprecated(step: Step) -> bool:
    """Whether it is the marker of a patch whose old way is gone: code without the call replays over it."""
    return step.kind is StepKind.PATCH and step.result == DEPRECATED


def _outlives(request: object) -> bool:
    """Whether a cancellation is heard only when what was asked for is over."""
    return isinstance(request, ChildRequest) and request.cancellation is ChildCancellation.WAIT_CANCELLATION_COMPLETED


def _failure(step: Step, *, unknown: bool) -> StepFailed:
    return StepFailed(name_in_history(step), step.error_type, step.error_message, unknown=unknown)
