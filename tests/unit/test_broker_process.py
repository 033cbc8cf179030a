"""A process that never outlives the one that wanted it, with real processes in the broker's place."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.broker import state
from orchestrator.broker.process import Process, launch, pid_exists, read_command_line
from tests.waiting import eventually

SLEEPER = [sys.executable, "-I", "-S", "-c", "import time; print('up', flush=True); time.sleep(600)"]
DEAF = [
    *SLEEPER[:-1],
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Launches a program, waits until it says that it is up, and leaves none behind."""
    processes: list[Process] = []

    def start(command: list[str], **options: object) -> Process:
        console = tmp_path / f"console-{len(processes)}"
        process = launch(command, console, **options)  # type: ignore[arg-type]
        processes.append(process)
        assert eventually(lambda: "up" in console.read_text())
        return process

    yield start
    for process in processes:
        process.kill()


def test_it_is_stopped_by_its_pid(started: Callable[..., Process]) -> None:
    process = started(SLEEPER)
    assert process.is_alive()
    assert process.pid not in (os.getpid(), os.getpgid(0))
    assert os.getsid(process.pid) != os.getsid(0)  # Ctrl-C in our terminal is not for it
    process.stop(grace_s=10)
    assert not process.is_alive()
    assert not pid_exists(process.pid)
    process.stop(grace_s=10)
    process.kill()


def test_one_that_does_not_listen_is_killed(started: Callable[..., Process]) -> None:
    process = started(DEAF)
    process.stop(grace_s=0.1)
    assert not pid_exists(process.pid)


def test_a_frozen_one_can_be_killed(started: Callable[..., Process]) -> None:
    process = started(SLEEPER)
    process.pause()
    assert process.is_alive()
    process.resume()
    process.pause()
    process.kill()
    assert not pid_exists(process.pid)


def test_one_that_was_paused_still_stops_in_order(started: Callable[..., Process]) -> None:
    process = started(SLEEPER)
    process.pause()
    process.stop(grace_s=60)
    assert not pid_exists(process.pid)


def test_a_fork_does_not_stop_what_its_parent_started() -> None:
    code = """
import os, sys
from orchestrator.broker.process import call_at_exit
call_at_exit(lambda: print("stopped by", "parent" if os.getpid() == parent else "fork", flush=True))
take_back = call_at_exit(lambda: print("never", flush=True))
take_back()
parent = os.getpid()
pid = os.fork()
if pid == 0:
    sys.exit(0)
os.waitpid(pid, 0)
print("fork ended", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "fork ended\nstopped by parent\n"


def test_what_cannot_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="did not start"):
        launch([str(tmp_path / "missing")], tmp_path / "console")
    assert "FileNotFoundError" in (tmp_path / "console").read_text()


def run_caller(tmp_path: Path, ending: str, *, detach: bool = False) -> tuple[subprocess.Popen[str], int]:
    """Another Python that launches a sleeper and then does `ending`. Returns it and the sleeper's pid."""
    code = f"""
import sys, threading, time
from pathlib import Path
from orchestrator.broker.process import launch
started = []
def start():
    started.append(launch({SLEEPER!r}, Path({str(tmp_path / "console")!r}), detach={detach}, remove=None if {detach}
        else Path({str(tmp_path / "data")!r})))
thread = threading.Thread(target=start)  # ends long before the process does
thread.start()
thread.join()
print(started[0].pid, flush=True)
{ending}
"""
    caller = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    return caller, int(caller.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_caller_and_its_data_too(tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "segment").touch()
    caller, pid = run_caller(tmp_path, "sys.stdin.read()")
    assert pid_exists(pid)
    caller.send_signal(number)
    caller.communicate()
    assert eventually(lambda: not pid_exists(pid))
    assert eventually(lambda: not data.exists())


def test_it_does_not_end_with_the_thread_that_started_it(tmp_path: Path) -> None:
    # Two looks of the supervisor long it must not end.
    caller, pid = run_caller(tmp_path, "print(started[0]._wait(1.2))")
    said, _ = caller.communicate()
    assert said == "False\n"
    assert eventually(lambda: not pid_exists(pid))


def test_a_detached_one_goes_on(tmp_path: Path) -> None:
    caller, pid = run_caller(tmp_path, "", detach=True)
    caller.communicate()
    assert caller.returncode == 0
    process = Process(pid)
    assert process.is_alive()
    assert os.getsid(pid) == pid
    process.stop(grace_s=10)
    assert not process.is_alive()


def test_a_killed_supervisor_takes_the_program_along(started: Callable[..., Process]) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent died")
    process = started(SLEEPER)
    supervisor = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    assert eventually(lambda: not pid_exists(process.pid))


def test_command_lines_are_read(started: Callable[..., Process]) -> None:
    assert "time.sleep(600)" in read_command_line(started(SLEEPER).pid)
    assert read_command_line(2**22 + 1) == ""


def test_a_pid_that_now_is_something_else_is_not_our_broker(tmp_path: Path, started: Callable[..., Process]) -> None:
    process = started(SLEEPER)
    state.write_running(tmp_path, state.Running(process.pid, 1, str(tmp_path / "kafka")))
    assert state.find_running(tmp_path) is None
    state.forget_running(tmp_path, process.pid + 1)
    assert (tmp_path / "broker.json").exists()
    state.forget_running(tmp_path, process.pid)
    assert not (tmp_path / "broker.json").exists()


def test_the_mark_in_the_command_line_names_the_whole_directory(
    tmp_path: Path, started: Callable[..., Process]
) -> None:
    marked = started([*SLEEPER, f"-Dsaga.broker.directory={tmp_path}/kafka", "end"])
    assert state.is_ours(state.Running(marked.pid, 1, f"{tmp_path}/kafka"))
    assert not state.is_ours(state.Running(marked.pid, 1, f"{tmp_path}/kaf"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "port": 2, "directory": "d", "more": 3}'])
def test_a_note_that_cannot_be_read_is_no_broker(tmp_path: Path, text: str) -> None:
    assert state.find_running(tmp_path) is None
    (tmp_path / "broker.json").write_text(text)
    assert state.find_running(tmp_path) is None
    state.forget_running(tmp_path, 1)
