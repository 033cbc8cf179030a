"""What a client must know of the topics before it begins."""

from __future__ import annotations

from orchestrator.errors import ConfigurationError
from orchestrator.log.base import AdminFailed, Failure, Log
from orchestrator.topics import TopicNames


def partitions_of(log: Log, servers: str, topics: TopicNames, timeout_s: float) -> tuple[int, int]:
    """How many partitions the inbox and the answers have."""
    names = (topics.inbox, topics.answers)
    admin = log.admin()
    try:
        found = admin.describe(names, timeout_s)
    except AdminFailed as error:
        if error.failure is Failure.UNKNOWN_OUTCOME:
            raise ConfigurationError(
                f"nobody answers at {servers} ({error.detail}): is Kafka running, and reachable from here? "
                "`saga doctor` checks"
            ) from error
        what = "grant Describe and DescribeConfigs on them" if error.failure is Failure.UNAUTHORIZED else "check both"
        raise ConfigurationError(
            f"the bootstrap servers did not describe {' and '.join(names)} ({error}): {what}"
        ) from error
    finally:
        admin.close()
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigurationError(
            f"there is no topic {' and no topic '.join(missing)}: run `saga topics apply`, or give the prefix in use"
        )
    return found[names[0]].partitions, found[names[1]].partitions
