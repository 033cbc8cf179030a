"""The broker that a project folder has running: written down beside its data, believed only after a look."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.broker.probe import HOST, answers_kafka
from orchestrator.broker.process import pid_exists, read_command_line

_FILE = "broker.json"
_LOCK = "broker.lock"
_ANSWER_S = 15.0  # a broker that is there but busy, or still starting, is waited for this long
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Running:
    """A broker's Java process, the port of its plain listener on loopback, and its directory."""

    pid: int
    port: int
    directory: str


def find_running(home: Path) -> Running | None:
    """The broker of this project folder if it runs: its pid is alive and is that broker, its port answers Kafka."""
    try:
        found = Running(**json.loads((home / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    deadline = time.monotonic() + _ANSWER_S
    while is_ours(found):
        if answers_kafka(HOST, found.port):
            return found
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    return None


def is_ours(running: Running) -> bool:
    """Does the pid belong to the broker of that directory, not to another program that got the number since?"""
    mark = f"-Dsaga.broker.directory={running.directory} "
    return pid_exists(running.pid) and mark in read_command_line(running.pid)


def write_running(home: Path, running: Running) -> None:
    draft = home / f"{_FILE}.{os.getpid()}"
    draft.write_text(json.dumps(asdict(running)) + "\n", encoding="utf-8")
    draft.replace(home / _FILE)


def forget_running(home: Path, pid: int) -> None:
    """Delete the note, if it is still about this pid."""
    try:
        noted = json.loads((home / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(noted, dict) and noted.get("pid") == pid:
        (home / _FILE).unlink(missing_ok=True)


@contextmanager
def lock(home: Path) -> Iterator[None]:
    """Held while looking for a running broker and starting one, so that of two commands at once one starts it."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
