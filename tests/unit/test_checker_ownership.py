"""Who owned a partition when, told by the journal."""

from __future__ import annotations

from orchestrator.checker.ownership import Again, owned_by, taken_over, tenures
from orchestrator.log.base import Record
from orchestrator.model.rule import Rule
from orchestrator.wire.journal import Claim, Envelope, Genesis, claim_record, genesis_record, write_envelope


def journal(*steps: tuple[str, int]) -> list[Record]:
    """A partition's records from (owner, time), which is a claim, or ("", time), a decision under the last claim."""
    value = genesis_record(Genesis(1, 1, {}, 0))
    rule, records = Rule(), [Record("journal", 0, 0, 0, None, value, ())]
    assert rule.accept(0, b"", -1, b"", 0, value)
    nonce, seq = b"", 0
    for offset, (owner, at_ms) in enumerate(steps, 1):
        if owner:
            nonce, seq = offset.to_bytes(16, "big"), 0
            value, kind = claim_record(nonce, Claim(owner, "", (), "")), 1
        else:
            value, kind = write_envelope(Envelope(2, nonce, seq, rule.chain)), 2
            seq += 1
        assert rule.accept(kind, nonce, seq - 1, rule.chain, offset, value)
        records.append(Record("journal", 0, offset, at_ms, None, value, ()))
    return records


RAW = {
    0: journal(("host-7", 10), ("", 20), ("host-8", 100), ("host-9", 110), ("", 130), ("", 140)),
    1: journal(("host-8", 10), ("", 20)),
    2: journal(("host-7", 10)),
    3: [],
}


def test_every_claim_begins_a_tenure() -> None:
    held = tenures(RAW)
    first, second, third = held[0]
    assert (first.owner, first.claim_ms, first.first_ms, first.last_ms) == ("host-7", 10, 20, 20)
    assert (second.first_ms, second.last_ms) == (None, 100)
    assert (third.claim_ms, third.first_ms, third.last_ms) == (110, 130, 140)
    assert held[3] == []


def test_the_last_claim_before_a_time_says_whose_a_partition_is() -> None:
    held = tenures(RAW)
    assert owned_by(held, 7, 50) == {0, 2}
    assert owned_by(held, 7, 105) == {2}
    assert owned_by(held, 7, 5) == set()


def test_a_partition_goes_on_with_the_first_decision_of_whoever_comes_next() -> None:
    held = tenures(RAW)
    assert taken_over(held, 7, 50) == {0: Again(100, 130)}
    assert taken_over(held, 9, 200) == {}
