"""Starts one program and sees to it that it ends with the process that wanted it.

Run as a script (`python -I -S supervise.py watch PARENT_PID DIRECTORY_OR_EMPTY -- COMMAND...`), not imported: it stands
between the caller and the Java process because nothing else holds in every case. A pipe is inherited by whatever the
caller forks; Linux's death signal fires when the *thread* that forked ends; `atexit` does not run on kill -9.

`watch` prints the program's pid and then waits: the caller gone → the program is stopped and DIRECTORY removed. It
exits with the program's code. `detach` starts the program in a session of its own, prints its pid and is done.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys

POLL_S = 0.5  # how long the program may outlive a caller that was killed; costs two wake-ups a second
GRACE_S = 10.0  # from SIGTERM to SIGKILL when the caller is gone; a broker needs about one second

_PR_SET_PDEATHSIG = 1


def _die_with_supervisor() -> None:
    # Runs between fork and exec of a process with one thread, where the death signal does mean the process.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _tell(pid: int) -> None:
    sys.stdout.write(f"{pid}\n")
    sys.stdout.close()


def _detach(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
    _tell(child.pid)
    os._exit(0)  # without waiting: the program is meant to go on


def _watch(parent: int, directory: str, command: list[str]) -> int:
    # A pipe filled by signals makes the wait end at once when the program exits or a signal comes.
    awake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=_die_with_supervisor)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: child.terminate())
    _tell(child.pid)

    while child.poll() is None:
        if os.getppid() != parent:
            child.terminate()
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if directory:
                shutil.rmtree(directory, ignore_errors=True)
            break
        if select.select([awake], [], [], POLL_S)[0]:
            os.read(awake, 4096)
    code = child.returncode
    return code if code >= 0 else 128 - code


def main(arguments: list[str]) -> int:
    split = arguments.index("--")
    command = arguments[split + 1 :]
    if arguments[0] == "detach":
        return _detach(command)
    return _watch(int(arguments[1]), arguments[2], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
