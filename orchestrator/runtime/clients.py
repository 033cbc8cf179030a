"""The clients that a worker's engine works with."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.log.base import Reader, RunAppender


@dataclass(slots=True)
class Clients:
    """The four clients of a worker: group member for the inputs, reader of journals, one appender each way."""

    inputs: Reader
    journals: Reader
    journal: RunAppender
    outward: RunAppender
