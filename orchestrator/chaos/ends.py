"""How processes ended, told by their logs: by what was done to them, by giving up, or because they failed."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from datetime import datetime

_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
_ENDED = re.compile(r"process \d+ ended with code (-?\d+)")
_DONE_TO_IT = (0, -signal.SIGKILL, -signal.SIGTERM)
"""It was stopped or killed."""
_GAVE_UP = 1
_REASON = "saga: "
"""How the line begins in which a process says why it gives up: the cluster does not answer when it starts, say, or

Kafka's library has given its producer up.
"""
_OUTERMOST = 'File "<frozen runpy>"'


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in a process by itself; when, as far as the log says, in milliseconds since 1970."""

    words: str
    at_ms: int | None


def failures_in(log: str) -> list[Failure]:
    """Lines of a process's log that say that something failed in a way in which nobody broke it: each kind once."""
    found: dict[str, Failure] = {}
    uncaught = reasoned = False
    at_ms: int | None = None
    for line in log.splitlines():
        if (stamp := _STAMP.match(line)) is not None:
            at_ms = round(1000 * datetime.fromisoformat(stamp[0]).timestamp())
        if (ended := _ENDED.search(line)) is not None:
            code = int(ended[1])
            if code not in _DONE_TO_IT and not (code == _GAVE_UP and reasoned):
                found.setdefault(ended[1], Failure(line, at_ms))
            reasoned = False
        elif line.startswith(_REASON):
            reasoned = True
        elif _OUTERMOST in line:
            uncaught = True  # what is only logged does not come so far
        elif uncaught and line and not line.startswith(" "):
            found.setdefault(line.partition(":")[0], Failure(f"nobody caught {line}", at_ms))
            uncaught = False
    return list(found.values())
