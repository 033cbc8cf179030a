"""Ends what a run of chaos has started where the run itself is killed: `python -m orchestrator.chaos.guard`.

It reads pids of process groups, one a line, from a pipe whose other end the run holds. When that closes without a last
word, it kills those groups that are still there, frozen ones too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress

from orchestrator.broker.process import read_command_line
from orchestrator.demo.processes import Process

END = "end"
OURS = "orchestrator.cli"


class Guard:
    """The guardian's other end. `close` is the last word: then nothing is killed."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "orchestrator.chaos.guard"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def note(self, pid: int) -> None:
        """A group that has been started."""
        self._tell(str(pid))

    def close(self) -> None:
        self._tell(END)
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process.stdin is not None:
            with suppress(OSError):  # somebody has ended it
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()


class Guarded(Process):
    """A process that the guardian knows of."""

    guard: Guard | None = None

    def start(self) -> None:
        """Starts it, or starts it again."""
        super().start()
        if self.guard is not None:
            self.guard.note(self.pid)


def watch(lines: Iterable[str]) -> int:
    """Reads to the end, then kills. Returns how many groups it killed."""
    pids: list[int] = []
    for line in lines:
        if line.strip() == END:
            return 0
        pids.append(int(line))
    killed = 0
    for pid in pids:
        if OURS in read_command_line(pid):  # and no other program that got the number since
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
                killed += 1
    return killed


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch(sys.stdin)
