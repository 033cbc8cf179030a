"""The processes of the demonstration: started as a user would, each in a process group of its own, ended for sure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

STOP_WITHIN_S = 20.0


class Process:
    """One `saga ...` command. Its output goes to `<folder>/<name>.log`; it dies with this process."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.arguments = list(arguments)
        self.log = folder / f"{name}.log"
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, or starts it again."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli", *self.arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the process and of its group. Raises `RuntimeError` before the first start."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9 of the whole group: a supervisor and all its children."""
        if self._process is not None:
            _signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._close_input()

    def freeze(self) -> None:
        """SIGSTOP of the whole group: connections stay open, nothing moves until `thaw`."""
        if self._process is not None:
            _signal_group(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT after `freeze`; no effect otherwise."""
        if self._process is not None:
            _signal_group(self._process.pid, signal.SIGCONT)

    def children(self) -> list[int]:
        """The pids of the processes that this one has started and that are there: a supervisor's workers."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except OSError:
            return []

    def kill_children(self) -> None:
        """kill -9 of what it has started, and not of itself."""
        for pid in self.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> int:
        """A graceful stop, by force after a while. Returns the exit code."""
        if self._process is None:
            return 0
        _signal_group(self._process.pid, signal.SIGTERM)
        try:
            return self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL
        finally:
            self._close_input()

    def tail(self, lines: int = 15) -> str:
        """The end of its output, for an error report."""
        return "\n".join(self.told().splitlines()[-lines:])

    def told(self) -> str:
        """All of its output, that of earlier starts in the same folder first."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
