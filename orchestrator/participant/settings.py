"""What can be set of a participant. Durations in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import ConfigurationError

DAY_MS = 86_400_000
DRIFT_PERCENT = 5
"""By how much the clocks of two participants may differ in speed; a new owner waits that much longer."""


@dataclass(frozen=True, slots=True)
class ParticipantSettings:
    """Limits of one participant process.

    From `lease_ms` (L) after the group last confirmed the member, no handler of a ledger participant is started; one
    that runs longer than `handler_limit_ms` (H) ends the process. Both are written with each claim, so they may differ
    between participants. A crash is followed by L + H of waiting: short handlers, short waits. `retention_ms` is how
    long the ledger is kept; it must cover the longest time from a step to its undo.
    """

    concurrency: int = 32
    """Handlers that run at once."""
    window: int = 1_000
    """Commands of one partition that are taken and not yet answered; at 4 KiB each, 4 MiB a partition."""
    commit_interval_ms: int = 100
    lease_ms: int = 5_000
    handler_limit_ms: int = 30_000
    retention_ms: int = 30 * DAY_MS
    max_reply_bytes: int = 256 * 1024
    retry_interval_ms: int = 1_000
    """Between two tries of what Kafka refused, such as a topic that is not there."""
    reply_tries: int = 10
    """After so many refusals of a reply its command becomes a dead letter."""
    dead_letter_partitions: int = 1

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ConfigurationError(f"participant: {name} must be at least 1, not {getattr(self, name)}")

    @property
    def renew_interval_ms(self) -> int:
        """Three tries to renew a lease fit into it."""
        return self.lease_ms // 3 or 1
