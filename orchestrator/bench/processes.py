"""The processes of a measurement, and what each has cost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.errors import SagaError

STOP_WITHIN_S = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_ms(pid: int) -> float:
    """User and system time of a process and of its ended children; nan where the system does not tell it so."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return sum(int(field) for field in fields[11:15]) * 1000 / _TICKS


def resident_mb(pid: int) -> int | None:
    """Resident memory of a process in MB (10^6 bytes); None where the system does not tell it so."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


class Process:
    """`python -m <arguments>`, with its output in `<folder>/<name>.log`. It is told to end by the end of its stdin."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raises `SagaError` if it has ended."""
        if self._process.poll() is not None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise SagaError(f"{self.name} ended with code {self._process.returncode}:\n{tail}")

    def tell(self, line: str) -> None:
        """One line on its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """Closes its stdin and waits; by force after a while."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def when_abandoned(end: threading.Event) -> None:
    """In such a process: sets `end` when stdin ends."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        end.set()

    threading.Thread(target=watch, name="stdin", daemon=True).start()
