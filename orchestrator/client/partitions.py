"""What a client must know of the topics before it begins."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import ConfigurationError
from orchestrator.log.base import AdminFailed, Failure, Log


def partitions_of(log: Log, servers: str, names: Sequence[str], timeout_s: float) -> list[int]:
    """How many partitions each of these topics of the orchestrator has. Raises `ConfigurationError`."""
    admin = log.admin()
    try:
        found = admin.describe(names, timeout_s)
    except AdminFailed as error:
        if error.failure is Failure.UNKNOWN_OUTCOME:
            raise ConfigurationError(
                f"nobody answers at {servers} ({error.detail}): is Kafka running, and reachable from here? "
                "`saga doctor` checks"
            ) from error
        what = "grant Describe and DescribeConfigs on each" if error.failure is Failure.UNAUTHORIZED else "check each"
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
    return [found[name].partitions for name in names]
