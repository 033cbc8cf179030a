"""What clients were told and what was broken, as JSON lines in the order in which it happened."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from orchestrator.checker.evidence import Told

NOT_DONE = "not done"
_CAME_TO_NOTHING = re.compile(rf"{NOT_DONE}\b|0 (records|replies|starts|stores|processes)$|it went on$")
"""Notes of faults by which nothing was broken."""


@dataclass(slots=True)
class Struck:
    """A fault as it happened. Times in milliseconds since 1970; `heal_ms` is None while it lasts."""

    number: int
    kind: str
    target: str
    begin_ms: int
    heal_ms: int | None = None
    note: str = ""

    @property
    def done(self) -> bool:
        """Whether anything was broken: no record was written where it says so, no store was there, the disk held."""
        return _CAME_TO_NOTHING.match(self.note) is None

    def during(self, first_ms: int, last_ms: int) -> bool:
        """Whether it was there at some time of this span, both ends included."""
        return self.begin_ms <= last_ms and (self.heal_ms is None or self.heal_ms >= first_ms)


class Histories:
    """Writes the file as it goes, and keeps what was told of each saga. Used from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: dict[str, Told] = {}
        self.faults: list[Struck] = []
        self._lock = Lock()
        self._file = path.open("a", encoding="utf-8", buffering=1 << 16)

    def note(self, what: str, **values: Any) -> None:
        """One line, with the time."""
        line = json.dumps({"at_ms": now_ms(), "what": what, **values})
        with self._lock:
            self._file.write(line + "\n")

    def start(self, saga_id: str, saga_type: str, accepted: bool | None, why: str = "") -> None:
        """What a client was told of a start: it was taken, it was refused, or nobody knows."""
        self.told[saga_id] = Told(saga_id, accepted)
        words = {True: "ok", False: "fail", None: "unknown"}[accepted]
        self.note("start", saga=saga_id, type=saga_type, told=words, **({"why": why} if why else {}))

    def end(self, saga_id: str, status: str | None, why: str = "") -> None:
        """What a client was told of a saga's end; None: nothing in time."""
        before = self.told[saga_id]
        self.told[saga_id] = Told(saga_id, before.accepted, status)
        self.note("result", saga=saga_id, status=status, **({"why": why} if why else {}))

    def begin(self, number: int, kind: str, target: str) -> Struck:
        """A fault begins."""
        struck = Struck(number, kind, target, now_ms())
        self.faults.append(struck)
        self.note("fault", number=number, kind=kind, target=target)
        return struck

    def heal(self, struck: Struck) -> None:
        """It is over."""
        struck.heal_ms = now_ms()
        self.note("healed", number=struck.number, kind=struck.kind, **({"note": struck.note} if struck.note else {}))

    def close(self) -> None:
        with self._lock:
            self._file.close()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a history that was kept."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
