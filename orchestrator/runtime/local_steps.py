"""Local steps: functions of sagas that the owner calls itself, off its thread, and only once their decision stands.

Nothing is sent and nothing acknowledged, so nothing holds the mark of sent effects back. A call is at least once: what
an owner had under way when it died is called again by the next one, which finds it in the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Event, Thread
from typing import Protocol

from orchestrator.model.definition import Definition, Functions
from orchestrator.model.effects import LocalCall, local_call, reply_of
from orchestrator.model.frozen import frozen
from orchestrator.model.messages import Outcome, Reply
from orchestrator.runtime.runs import Runs

MAX_RUNNING = 64
"""Calls of one worker under way at a time: plain functions have a thread each, async ones share one."""


@frozen
class Ended:
    """A call's outcome; None: it was cancelled, and has none."""

    call: LocalCall
    reply: Reply | None


class Runner(Protocol):
    """Makes calls. Neither method blocks; each started call comes out of `poll` exactly once."""

    def start(self, call: LocalCall, functions: Functions) -> None: ...

    def cancel(self, call: LocalCall) -> None:
        """Its outcome is no longer wanted. It may go on to its end all the same."""

    def poll(self) -> Sequence[Ended]: ...


class LocalSteps:
    """The calls of one worker. Calls of one step follow each other: an attempt, the next one, the undo."""

    def __init__(self, runner: Runner, most: int = MAX_RUNNING) -> None:
        self._runner = runner
        self._most = most
        self._waiting: deque[tuple[LocalCalls, LocalCall]] = deque()
        self._under_way: dict[tuple[str, str, int], tuple[LocalCalls, LocalCall]] = {}
        self._behind: dict[tuple[str, str, int], tuple[LocalCalls, LocalCall]] = {}
        """The call that waits until its step's former one has ended; a later one takes its place."""

    @property
    def waiting(self) -> int:
        """Calls that have not begun."""
        return len(self._waiting) + len(self._behind)

    @property
    def running(self) -> int:
        return len(self._under_way)

    def runs_for(self, owner: LocalCalls) -> bool:
        """Whether a call for it is under way."""
        return any(caller is owner for caller, _ in self._under_way.values())

    def add(self, owner: LocalCalls, call: LocalCall) -> None:
        """Takes a call whose decision is confirmed."""
        before = self._under_way.get(call.unit)
        if before is None:
            self._waiting.append((owner, call))
        else:
            self._behind[call.unit] = (owner, call)
            self._runner.cancel(before[1])

    def forget(self, owner: LocalCalls) -> None:
        """What is under way for it is no longer wanted."""
        for caller, call in self._under_way.values():
            if caller is owner:
                self._runner.cancel(call)

    @property
    def ready(self) -> bool:
        """Whether something may start now."""
        return bool(self._waiting) and len(self._under_way) < self._most

    def step(self, guarded: Callable[[int, Callable[[], None]], None]) -> bool:
        """Hands over what has ended and starts what may start; whether there was anything.

        `guarded` runs something for the partition of a number: what goes wrong there is that partition's.
        """
        ended = self._runner.poll()
        for each in ended:
            owner, _ = self._under_way.pop(each.call.unit)
            if each.reply is not None and not owner.closed:
                owner.replies.append(each.reply)
            behind = self._behind.pop(each.call.unit, None)
            if behind is not None:
                self._waiting.append(behind)
        busy = bool(ended)
        while self.ready:
            busy = True
            self._start(*self._waiting.popleft(), guarded)
        return busy

    def _start(self, owner: LocalCalls, call: LocalCall, guarded: Callable[[int, Callable[[], None]], None]) -> None:
        if call.unit in self._under_way:
            self.add(owner, call)
            return

        def start() -> None:
            functions = owner.functions_for(call)
            if functions is not None:
                self._under_way[call.unit] = (owner, call)
                self._runner.start(call, functions)

        guarded(owner.number, start)


class LocalCalls:
    """The calls of one partition in one epoch. `replies` are for it to decide."""

    def __init__(self, number: int, steps: LocalSteps, runs: Runs, definitions: Mapping[str, Definition]) -> None:
        self.number = number
        self.replies: deque[Reply] = deque()
        self.closed = False
        self.leaving = False
        """None begins any more: the next owner makes it."""
        self._steps = steps
        self._runs = runs
        self._definitions = definitions

    @property
    def waiting(self) -> int:
        """Calls of the whole worker that have not begun."""
        return self._steps.waiting

    @property
    def under_way(self) -> bool:
        """Whether a call has begun whose outcome is not decided."""
        return bool(self.replies) or self._steps.runs_for(self)

    def add(self, call: LocalCall) -> None:
        """Takes a call whose decision is confirmed."""
        self._steps.add(self, call)

    def close(self) -> None:
        """The epoch is over: what is under way has no outcome any more."""
        self.closed = True
        self._steps.forget(self)

    def functions_for(self, call: LocalCall) -> Functions | None:
        """By what to make a call whose turn it is, None if it is not wanted any more. Raises `StoreBroken`."""
        if self.closed or self.leaving:
            return None
        execution = self._runs.find(call.saga_id)
        state = None if execution is None else execution.state
        step = None if state is None else state.steps.get(call.sequence)
        if state is None or step is None or call.sequence not in state.local:
            return None
        now = local_call(state, step)
        if (now.run, now.direction, now.attempt) != (call.run, call.direction, call.attempt):
            return None
        definition = self._definitions.get(call.saga_type)
        return _MISSING if definition is None or definition.functions is None else definition.functions


class _Missing:
    """In place of the functions of a saga whose code this worker lacks."""

    def is_async(self, name: str) -> bool:
        return False

    def perform(self, call: LocalCall) -> Reply:
        message = f"this worker lacks the code of {call.saga_type}"
        return reply_of(call, Outcome.RETRY, error_type="CodeMissing", error_message=message)

    async def perform_async(self, call: LocalCall) -> Reply:
        return self.perform(call)


_MISSING = _Missing()


class InlineRunner:
    """Makes each call at once, inside `start`: for tests, where time stands still meanwhile."""

    def __init__(self) -> None:
        self._ended: list[Ended] = []

    def start(self, call: LocalCall, functions: Functions) -> None:
        if functions.is_async(call.function):
            reply = asyncio.run(functions.perform_async(call))
        else:
            reply = functions.perform(call)
        self._ended.append(Ended(call, reply))

    def cancel(self, call: LocalCall) -> None:
        """There is never anything under way."""

    def poll(self) -> Sequence[Ended]:
        ended, self._ended = self._ended, []
        return ended


class ThreadedRunner:
    """Plain functions in threads, as many as there are at once, async ones on an event loop of their own.

    The threads are daemons: a function that hangs keeps nobody from ending the process. `wake` is set when a call ends.
    """

    def __init__(self, wake: Event) -> None:
        self._wake = wake
        self._ended: deque[Ended] = deque()
        self._work: SimpleQueue[tuple[LocalCall, Functions]] = SimpleQueue()
        self._threads = 0
        self._plain: set[LocalCall] = set()
        """Calls of plain functions that are not told as ended: each has a thread."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[LocalCall, asyncio.Task[Reply]] = {}

    def start(self, call: LocalCall, functions: Functions) -> None:
        if functions.is_async(call.function):
            self._running_loop().call_soon_threadsafe(self._begin, call, functions)
            return
        self._plain.add(call)
        if len(self._plain) > self._threads:
            self._threads += 1
            Thread(target=self._perform, name=f"local-{self._threads}", daemon=True).start()
        self._work.put((call, functions))

    def cancel(self, call: LocalCall) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop, call)

    def poll(self) -> Sequence[Ended]:
        ended = [self._ended.popleft() for _ in range(len(self._ended))]
        for each in ended:
            self._plain.discard(each.call)
        return ended

    def _perform(self) -> None:
        while True:
            call, functions = self._work.get()
            self._ended.append(Ended(call, functions.perform(call)))
            self._wake.set()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            Thread(target=self._loop.run_forever, name="local-async", daemon=True).start()
        return self._loop

    def _begin(self, call: LocalCall, functions: Functions) -> None:
        task = asyncio.get_running_loop().create_task(functions.perform_async(call))
        self._tasks[call] = task
        task.add_done_callback(lambda done: self._end(call, done))

    def _stop(self, call: LocalCall) -> None:
        task = self._tasks.get(call)
        if task is not None:
            task.cancel()

    def _end(self, call: LocalCall, task: asyncio.Task[Reply]) -> None:
        del self._tasks[call]
        self._ended.append(Ended(call, None if task.cancelled() else task.result()))
        self._wake.set()
