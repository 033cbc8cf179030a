"""Handlers on threads: plain functions in a pool, async ones on an event loop of their own.

A hop between threads costs more than a handler that only looks something up. So plain handlers that were quick share
one thread, which tells of all it did at once; it is helped by another as soon as one of them keeps it. A handler that
was slow, or never ran, gets a thread to itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Event, Lock, Thread

from orchestrator.participant.handlers import Inbox, Participant
from orchestrator.participant.work import Finished, Work
from orchestrator.wire.commands import Ending
from orchestrator.wire.endings import reply_to

LOGGER = logging.getLogger("orchestrator.participant")
CANCEL_SHARE = 0.9
"""An async handler is cancelled at this share of its limit; what is left of it is for its cleaning up."""
QUICK_S = 0.001
"""A handler that took less is quick; so long is also the longest that its end is not told."""
STALL_S = 0.002
"""Works that nobody has taken for so long get another thread."""
COMPLETE_AGAIN_S = 1.0
"""Between two tries to record a completion: nobody else will send it again."""


class ThreadedExecutor:
    """The threads are daemons: a handler that hangs keeps nobody from ending the process.

    `now_ms` is the engine's clock. `wake` is set when handlers have ended.
    """

    def __init__(
        self, participant: Participant, threads: int, handler_limit_ms: int, now_ms: Callable[[], int], wake: Event
    ) -> None:
        self._participant = participant
        self._threads = threads
        self._limit_s = handler_limit_ms * CANCEL_SHARE / 1000
        self._now_ms = now_ms
        self._wake = wake
        self._finished: deque[Finished] = deque()
        # Plain handlers. The lock covers who takes what is waiting, and who goes to sleep instead.
        self._lock = Lock()
        self._waiting: deque[Work] = deque()
        self._awake = 0
        self._taken_s = 0.0
        """When a work was last taken, or a thread woken."""
        self._quick: set[str] = set()
        """Command types whose handler was quick the last time."""
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._pool: list[Thread] = []
        # Async handlers.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: Thread | None = None
        self._entering: deque[Work] = deque()
        self._called = False
        """Whether the loop was told of those that are entering."""
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Work) -> None:
        if self._participant.is_async(work):
            self._entering.append(work)
            if not self._called:
                self._called = True
                self._running_loop().call_soon_threadsafe(self._enter)
            return
        with self._lock:
            self._waiting.append(work)
            if not self._awake or work.command.command_type not in self._quick:
                self._rouse()

    def poll(self) -> Sequence[Finished]:
        if self._waiting and time.monotonic() - self._taken_s > STALL_S:
            with self._lock:
                self._rouse()
        finished = self._finished
        return [finished.popleft() for _ in range(len(finished))] if finished else ()

    @property
    def due_s(self) -> float | None:
        """In how many seconds `poll` should be called if `wake` is not set before."""
        return STALL_S if self._waiting or self._finished else None

    def _rouse(self) -> None:
        """Wakes one more thread, if there is one."""
        if self._awake >= self._threads:
            return
        self._awake += 1
        self._taken_s = time.monotonic()
        if self._awake > len(self._pool):
            thread = Thread(target=self._work, name=f"handler-{len(self._pool)}", daemon=True)
            self._pool.append(thread)
            thread.start()
        self._bell.put(True)

    def close(self) -> None:
        """Ends the threads that are idle. Tasks that are left on the loop are cancelled."""
        for _ in self._pool:
            self._bell.put(False)
        if self._loop is not None and self._loop_thread is not None:
            self._loop.call_soon_threadsafe(self._stop_loop)
            self._loop_thread.join(1.0)

    def _too_late(self, work: Work) -> bool:
        """Whether the lease ended between the engine's decision and this thread's turn."""
        return work.start_by_ms is not None and self._now_ms() >= work.start_by_ms

    def _work(self) -> None:
        while self._bell.get():
            began_s = told_s = time.monotonic()
            while (work := self._take(began_s)) is not None:
                self._finished.append(Finished(work, None) if self._too_late(work) else self._perform(work))
                now_s = time.monotonic()
                if now_s - began_s < QUICK_S:
                    self._quick.add(work.command.command_type)
                else:
                    self._quick.discard(work.command.command_type)
                if now_s - told_s >= QUICK_S:
                    self._wake.set()
                    told_s = now_s
                began_s = now_s

    def _take(self, now_s: float) -> Work | None:
        """The next work; without one the thread counts as asleep, and what it did is told."""
        with self._lock:
            if self._waiting:
                self._taken_s = now_s
                return self._waiting.popleft()
            self._awake -= 1
        self._wake.set()
        return None

    def _perform(self, work: Work) -> Finished:
        participant, inbox = self._participant, self._participant.inbox
        if inbox is None:
            return Finished(work, participant.perform(work))
        if work.command.completion is not None:
            return self._complete(inbox, work)
        try:
            reply, ran = inbox.process(
                work.command,
                work.appended_ms,
                lambda connection, unsure: participant.perform(work, connection, unsure),
            )
        except BaseException as error:  # an inbox does not raise; if one does, its command is not lost for that
            return Finished(work, reply_to(error))
        return Finished(work, reply, ran)

    def _complete(self, inbox: Inbox, work: Work) -> Finished:
        try:
            return Finished(work, inbox.complete(work.command), ran=False)
        except Exception as error:
            LOGGER.warning("%s: its completion is tried again: %s", work.command.idempotency_key, error)
            time.sleep(COMPLETE_AGAIN_S)
            return Finished(work, None)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop_thread = Thread(target=self._run_loop, args=(self._loop,), name="handlers", daemon=True)
            self._loop_thread.start()
        return self._loop

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                loop.run_until_complete(asyncio.wait(self._tasks, timeout=0.5))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _stop_loop(self) -> None:
        assert self._loop is not None
        self._loop.stop()

    def _enter(self) -> None:
        """Begins all that is entering; what comes from now on is announced again."""
        self._called = False
        loop = asyncio.get_running_loop()
        while self._entering:
            task = loop.create_task(self._perform_async(self._entering.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _perform_async(self, work: Work) -> None:
        reply: Ending | None = None
        if not self._too_late(work):
            reply = await self._participant.perform_async(work, self._limit_s)
        self._finished.append(Finished(work, reply))
        if not self._wake.is_set():
            self._wake.set()
