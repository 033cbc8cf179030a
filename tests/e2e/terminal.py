"""A user's terminal: every verb of `saga` is a process of its own, in one folder and one environment."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.demo.processes import Process
from tests.processes import running

WITHIN_S = 90.0

T = TypeVar("T")


class Terminal:
    """A user's: one environment and one folder for all that is typed."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment = environment
        self.folder = folder

    def saga(self, *arguments: str, expect: int = 0) -> str:
        """Runs a verb to its end; gives its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *arguments],
            env={**os.environ, **self.environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )
        assert done.returncode == expect, f"saga {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def told(self, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """The same with `--json`: its last line."""
        told: dict[str, Any] = json.loads(self.saga(*arguments, "--json", expect=expect).splitlines()[-1])
        return told

    def running(self, name: str, *arguments: str) -> AbstractContextManager[Process]:
        """A verb that runs until it is stopped; it must end with 0."""
        return running(Process(name, arguments, self.folder, self.environment))

    def until(self, ask: Callable[[], T], good: Callable[[T], bool]) -> T:
        """Asks until the answer is good. Each question is a process of some tenths of a second: no pause is needed."""
        deadline = time.monotonic() + WITHIN_S
        while not good(answer := ask()):
            assert time.monotonic() < deadline, answer
        return answer
