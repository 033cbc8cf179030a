"""Worker processes under a supervisor: one that dies is started again at once.

Children are spawned as new interpreters, never forked: librdkafka's threads do not survive a fork. Each holds the end
of a pipe whose other end is here, so that it leaves gracefully when the supervisor is gone, however that went.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

STOP_WITHIN_S = 15.0
SHORT_LIFE_S = 2.0
"""A child that lived shorter than this is started again only after as long a pause: a typo must not spin."""


def child_arguments(arguments: Sequence[str]) -> list[str]:
    """Of a verb and its arguments, what each child gets: `--child`, and all but `--processes` with its number."""
    verb, *rest = arguments
    kept, words = [], iter(rest)
    for word in words:
        if word == "--processes":
            next(words, None)
        elif not word.startswith("--processes="):
            kept.append(word)
    return [verb, "--child", *kept]


def supervise(arguments: Sequence[str], count: int) -> int:
    """Runs `count` children with these arguments until SIGTERM or SIGINT. Returns the exit code."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    children = [_start(arguments) for _ in range(count)]
    started = [time.monotonic()] * count
    while not stopping.wait(0.05):
        for index, child in enumerate(children):
            if child.poll() is not None:
                lived = time.monotonic() - started[index]
                log.warning(
                    "process %d ended with code %s after %.1f s: starting another", child.pid, child.returncode, lived
                )
                if lived < SHORT_LIFE_S and stopping.wait(SHORT_LIFE_S):
                    break
                _close(child)
                children[index], started[index] = _start(arguments), time.monotonic()
    return _stop(children)


def _start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "orchestrator.cli", *arguments], stdin=subprocess.PIPE)


def _close(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        child.stdin.close()


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> int:
    for child in children:
        _close(child)
    deadline = time.monotonic() + STOP_WITHIN_S
    code = 0
    for child in children:
        try:
            code = child.wait(max(0.1, deadline - time.monotonic())) or code
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
    return code


def stop_with_parent(stop: Callable[[], None]) -> None:
    """In a child: calls `stop` when the supervisor closes the pipe or is gone."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        stop()

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
