"""One Java process: started in a session of its own, never outliving its caller unless told to, stopped by pid only."""

import atexit
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

_SUPERVISOR = Path(__file__).with_name("supervise.py")
_POLL_S = 0.02
_KILL_WAIT_S = 10.0  # SIGKILL takes effect at once; the wait is for a machine that is short of everything


class Process:
    """A running program known by its pid: one we started, or (`Process(pid)`) one found by its pid."""

    def __init__(self, pid: int, supervisor: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._supervisor = supervisor

    def is_alive(self) -> bool:
        if self._supervisor is not None:
            return self._supervisor.poll() is None
        return pid_exists(self.pid)

    def stop(self, grace_s: float) -> None:
        """SIGTERM, wait up to `grace_s` seconds, then SIGKILL. Returns when it is gone; twice does no harm."""
        if self.is_alive():
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # one that was paused hears it only now
            if not self._wait(grace_s):
                self.kill()

    def kill(self) -> None:
        """SIGKILL, as a crash would end it. Returns when it is gone."""
        if self.is_alive():
            self._signal(signal.SIGKILL)
            self._wait(_KILL_WAIT_S)

    def pause(self) -> None:
        """SIGSTOP: it stays, with its connections, and answers nothing, like a frozen machine."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self._signal(signal.SIGCONT)

    def fill_disk(self, within_s: float) -> bool:
        """From now on nothing that it writes into a file arrives; whether it ended of that in time."""
        with suppress(ProcessLookupError):
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        return self._wait(within_s)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return  # ended by itself meanwhile

    def _wait(self, timeout_s: float) -> bool:
        """True once it has ended within `timeout_s`."""
        if self._supervisor is not None:
            try:
                self._supervisor.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return False
            return True
        deadline = time.monotonic() + timeout_s
        while pid_exists(self.pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


def launch(command: Sequence[str], console: Path, *, detach: bool = False, remove: Path | None = None) -> Process:
    """Start `command`, its output going into the file `console`.

    Unless `detach`, it ends when the calling process ends, however that happens, and then the directory `remove` is
    deleted too. Raises OSError if it cannot be started.
    """
    mode = ["detach"] if detach else ["watch", str(os.getpid()), str(remove or "")]
    with console.open("ab") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SUPERVISOR), *mode, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    assert supervisor.stdout is not None
    with supervisor.stdout as told:
        first_line = told.readline()
    if not first_line.strip():
        supervisor.wait()
        raise OSError(f"{command[0]} did not start, see {console}")
    pid = int(first_line)
    if detach:
        supervisor.wait()
        return Process(pid)
    return Process(pid, supervisor)


def call_at_exit(stop: Callable[[], None]) -> Callable[[], object]:
    """Have `stop` called when this process exits, but not when a fork of it does. Returns what takes that back."""
    owner = os.getpid()

    def stop_if_owner() -> None:
        if os.getpid() == owner:
            stop()

    atexit.register(stop_if_owner)
    return partial(atexit.unregister, stop_if_owner)


def pid_exists(pid: int) -> bool:
    """Is there a process of this number, other than one that has ended and only waits to be collected?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True


def read_command_line(pid: int) -> str:
    """The command line of a process, its arguments separated by blanks; empty if it cannot be seen."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        pass
    try:
        found = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
    except OSError:
        return ""
    return found.stdout.decode(errors="replace")
