"""A take-over stands exactly at its claim, whatever the journal holds behind it when the claim's report comes."""

from typing import Any

from orchestrator.log.base import Delivery, Ends, Failure, Record
from orchestrator.log.memory import MemoryLog
from orchestrator.model.rule import Kind
from orchestrator.provisioning import apply, plan
from orchestrator.runtime.replica import Replica
from orchestrator.runtime.takeover import CLAIM_AGAIN_MS, Owner, Places, Takeover
from orchestrator.store.memory import MemoryStores
from orchestrator.topics import TopicNames
from orchestrator.wire.journal import Claim, Envelope, Genesis, claim_record, genesis_record, write_envelope

TOPICS = TopicNames()
OTHER = b"o" * 16


class Attempt:
    """A take-over of partition 0 on a log in memory; what its reader and appender say is handed on by the test."""

    def __init__(self) -> None:
        self.log = MemoryLog(lambda: 1_000)
        apply(self.log.admin(), plan(TOPICS, partitions=1, replication=1, services=()))
        self.foreign = self.log.appender()
        self.write(genesis_record(Genesis(1, 1, {}, 0)))
        self.reader, self.appender = self.log.reader(), self.log.appender()
        self.nonces = iter(bytes([number]) * 16 for number in range(1, 9))
        owner = Owner(Claim("w", "", (), "1"), lambda: next(self.nonces), lambda: Genesis(1, 1, {}, 0))
        places = Places(TOPICS.journal, TOPICS.inbox, self.reader, self.log.reader("g", [TOPICS.inbox]), self.appender)
        self.takeover = Takeover(0, Replica(MemoryStores().open(0)), owner, places)
        self.takeover.witnessed(Ends(None, {}), 0)
        self.hear()

    def write(self, value: bytes) -> None:
        self.foreign.append(TOPICS.journal, 0, value, token=None)

    def hear(self) -> None:
        """What the reader has."""
        for happening in self.reader.poll():
            if isinstance(happening, Record):
                self.takeover.record(happening.offset, happening.timestamp_ms, happening.value, 0)
            elif isinstance(happening, Ends):
                self.takeover.ends("end", happening.offsets, 0)

    def report(self) -> Delivery:
        """What the appender has to say of the claim, not told yet."""
        (delivery,) = self.appender.poll()
        return delivery

    def told(self, delivery: Delivery, mono_ms: int = 0) -> None:
        what: Any = delivery.token[1]
        self.takeover.delivered(what, delivery, mono_ms)


def stale() -> bytes:
    return write_envelope(Envelope(Kind.DECISION, OTHER, 0, bytes(32)))


def test_what_follows_the_claim_may_be_read_before_the_claim_s_report() -> None:
    for behind in (stale(), claim_record(OTHER, Claim("x", "", (), "1"))):
        attempt = Attempt()
        attempt.write(behind)
        attempt.write(stale())
        attempt.hear()
        assert not attempt.takeover.done
        attempt.told(attempt.report())
        assert attempt.takeover.done
        assert attempt.takeover.replica.progress.at.offset == 1
        assert attempt.takeover.replica.progress.rule.nonce == attempt.takeover.nonce


def test_after_a_claim_of_unknown_fate_nothing_is_passed_over() -> None:
    attempt = Attempt()
    attempt.write(claim_record(OTHER, Claim("x", "", (), "1")))
    attempt.hear()
    lost = attempt.report()._replace(offset=None, failure=Failure.UNKNOWN_OUTCOME)
    attempt.told(lost, mono_ms=0)
    attempt.takeover.tick(CLAIM_AGAIN_MS)
    attempt.hear()
    attempt.told(attempt.report())
    assert attempt.takeover.done
    assert attempt.takeover.replica.progress.at.offset == 3
    assert OTHER in attempt.takeover.replica.progress.rule.nonces
