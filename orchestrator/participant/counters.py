"""What a participant has done, as numbers to be read by whoever publishes metrics."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Only ever added to, by the engine's thread."""

    commands: int = 0
    """Commands read, repeats included."""
    outcomes: dict[str, int] = field(default_factory=lambda: {"success": 0, "failure": 0, "retry": 0, "pending": 0})
    """What handlers that ran ended with."""
    duplicates: int = 0
    """Commands answered from memory."""
    refused: dict[str, int] = field(default_factory=dict)
    """Commands refused, by error type."""
    dead_letters: int = 0
    handler_ms: int = 0
    """Time spent in handlers, all of them together."""
    overdue: int = 0
    """Handlers that ran longer than they may."""
    epochs_lost: int = 0
    """Claims that had to be made again."""
    resent: int = 0
    """Replies and dead letters that Kafka did not take at first."""
    repositioned: int = 0
    """Times that a committed position was outside the log."""
