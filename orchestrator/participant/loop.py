"""The loop around an engine that is stepped: a participant's, or a source's."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import Protocol

from orchestrator.errors import ConfigurationError

SWITCH_INTERVAL_S = 0.0005
"""With busy handlers the engine's thread waits up to this long for the interpreter, not Python's 5 ms."""
MAX_WAIT_S = 0.2

_STEADY_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_ms() -> int:
    """Milliseconds that never go back and go on while the machine sleeps, for a lease does not sleep either."""
    return time.clock_gettime_ns(_STEADY_CLOCK) // 1_000_000


class Stepped(Protocol):
    """An engine without threads, waits or a clock of its own."""

    def step(self) -> bool: ...
    def stop(self) -> None: ...
    @property
    def stopping(self) -> bool: ...
    @property
    def stopped(self) -> bool: ...
    @property
    def due_ms(self) -> int: ...


class Loop:
    """Steps an engine until it is told to stop. `wake` is set by whatever the engine has something new of."""

    def __init__(self) -> None:
        self.wake = Event()
        self._stop = Event()

    def stop(self) -> None:
        """Begins a graceful stop; from any thread or a signal handler."""
        self._stop.set()
        self.wake.set()

    def run(
        self,
        engine: Stepped,
        grace_ms: int,
        *,
        signals: bool = False,
        every_turn: Callable[[], None] | None = None,
        stall_s: Callable[[], float | None] = lambda: None,
    ) -> bool:
        """Works until `stop`, then until the engine has stopped; False where that took longer than `grace_ms`.

        With `signals` SIGTERM and SIGINT stop it, a second one at once. `every_turn` is called at each turn, several
        times a second also when idle; `stall_s` says for how long at most to wait.
        """
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            with self._signals() if signals else _nothing():
                return self._turn(engine, grace_ms, every_turn, stall_s)
        finally:
            sys.setswitchinterval(interval)

    def _turn(
        self,
        engine: Stepped,
        grace_ms: int,
        every_turn: Callable[[], None] | None,
        stall_s: Callable[[], float | None],
    ) -> bool:
        give_up_ms = 0
        while not engine.stopped:
            self.wake.clear()
            if every_turn is not None:
                every_turn()
            if self._stop.is_set() and not engine.stopping:
                engine.stop()
                give_up_ms = steady_ms() + grace_ms
            if engine.step():
                continue
            if engine.stopping and steady_ms() >= give_up_ms:
                return False
            wait_s = min(MAX_WAIT_S, max(0, engine.due_ms - steady_ms()) / 1000)
            most_s = stall_s()
            self.wake.wait(wait_s if most_s is None else min(wait_s, most_s))
        return True

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            raise ConfigurationError("signals can only be handled in the main thread")

        def handle(number: int, frame: FrameType | None) -> None:
            if self._stop.is_set():
                os._exit(128 + number)
            self.stop()

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
