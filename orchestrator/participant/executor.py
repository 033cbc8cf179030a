"""Handlers on threads: plain functions in a pool, async ones on an event loop of their own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Event, Thread

from orchestrator.participant.handlers import Participant, reply_to
from orchestrator.participant.work import Finished, Work
from orchestrator.wire.commands import ReplyMessage

CANCEL_SHARE = 0.9
"""An async handler is cancelled at this share of its limit; what is left of it is for its cleaning up."""


class ThreadedExecutor:
    """The threads are daemons: a handler that hangs keeps nobody from ending the process.

    `now_ms` is the engine's clock. `wake` is set when a handler has ended.
    """

    def __init__(
        self, participant: Participant, threads: int, handler_limit_ms: int, now_ms: Callable[[], int], wake: Event
    ) -> None:
        self._participant = participant
        self._threads = threads
        self._limit_s = handler_limit_ms * CANCEL_SHARE / 1000
        self._now_ms = now_ms
        self._wake = wake
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._finished: deque[Finished] = deque()
        self._pool: list[Thread] = []
        self._busy = 0
        """Works that were given to the pool and have not come back; only the engine's thread counts."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Work) -> None:
        if self._participant.is_async(work):
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop_thread = Thread(target=self._run_loop, args=(self._loop,), name="handlers", daemon=True)
                self._loop_thread.start()
            self._loop.call_soon_threadsafe(self._begin, self._loop, work)
            return
        self._busy += 1
        if self._busy > len(self._pool) and len(self._pool) < self._threads:
            thread = Thread(target=self._work, name=f"handler-{len(self._pool)}", daemon=True)
            self._pool.append(thread)
            thread.start()
        self._queue.put(work)

    def poll(self) -> Sequence[Finished]:
        ended: list[Finished] = []
        while self._finished:
            finished = self._finished.popleft()
            ended.append(finished)
            if not self._participant.is_async(finished.work):
                self._busy -= 1
        return ended

    def close(self) -> None:
        """Ends the threads that are idle. Tasks that are left on the loop are cancelled."""
        for _ in self._pool:
            self._queue.put(None)
        if self._loop is not None and self._loop_thread is not None:
            self._loop.call_soon_threadsafe(self._stop_loop)
            self._loop_thread.join(1.0)

    def _too_late(self, work: Work) -> bool:
        """Whether the lease ended between the engine's decision and this thread's turn."""
        return work.start_by_ms is not None and self._now_ms() >= work.start_by_ms

    def _end(self, finished: Finished) -> None:
        self._finished.append(finished)
        self._wake.set()

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            if self._too_late(work):
                self._end(Finished(work, None))
            else:
                self._end(self._perform(work))

    def _perform(self, work: Work) -> Finished:
        participant, inbox = self._participant, self._participant.inbox
        if inbox is None:
            return Finished(work, participant.perform(work))
        try:
            reply, ran = inbox.process(
                work.command,
                work.appended_ms,
                lambda connection, unsure: participant.perform(work, connection, unsure),
            )
        except BaseException as error:  # an inbox does not raise; if one does, its command is not lost for that
            return Finished(work, reply_to(error))
        return Finished(work, reply, ran)

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

    def _begin(self, loop: asyncio.AbstractEventLoop, work: Work) -> None:
        task = loop.create_task(self._perform_async(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _perform_async(self, work: Work) -> None:
        reply: ReplyMessage | None = None
        if not self._too_late(work):
            reply = await self._participant.perform_async(work, self._limit_s)
        self._end(Finished(work, reply))
