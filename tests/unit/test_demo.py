"""What the demonstration tells from the journal."""

from orchestrator.demo.run import planned_orders, recovery_times
from orchestrator.log.base import Record
from orchestrator.model.rule import Rule
from orchestrator.sagas.order_fulfilment import CARD_LIMIT_CENTS
from orchestrator.wire.journal import Claim, Envelope, Genesis, claim_record, genesis_record, write_envelope

KILLED_MS = 10_000


def journal(*steps: tuple[str, int]) -> dict[int, list[Record]]:
    """A partition's records from ("claim" | "decision", time); every claim has a nonce of its own."""
    records: list[Record] = []
    rule = Rule()
    nonce, seq = b"", 0
    values = [("genesis", 0), *steps]
    for offset, (kind, at_ms) in enumerate(values):
        if kind == "genesis":
            value = genesis_record(Genesis(1, 1, {}, 0))
        elif kind == "claim":
            nonce, seq = offset.to_bytes(16, "big"), 0
            value = claim_record(nonce, Claim("w", "", (), ""))
        else:
            value = write_envelope(Envelope(2, nonce, seq, rule.chain))
            seq += 1
        number = {"genesis": 0, "claim": 1, "decision": 2}[kind]
        assert rule.accept(number, nonce, seq - 1, rule.chain, offset, value)
        records.append(Record("journal", 0, offset, at_ms, None, value, ()))
    return {0: records}


def test_recovery_ends_with_the_next_owners_first_decision() -> None:
    raw = journal(("claim", 1), ("decision", 9_990), ("decision", 10_003), ("claim", 16_000), ("decision", 16_500))
    assert recovery_times(raw, KILLED_MS) == {0: 6.5}


def test_a_partition_that_moves_later_was_not_the_killed_workers() -> None:
    raw = journal(("claim", 1), ("decision", 9_990), ("decision", 15_000), ("claim", 16_000), ("decision", 16_500))
    assert recovery_times(raw, KILLED_MS) == {}


def test_as_many_orders_as_said_and_one_in_ten_declined() -> None:
    orders = planned_orders(1_000)
    declined = [order.cents > CARD_LIMIT_CENTS for order in orders]
    assert len({order.id for order in orders}) == 1_000
    assert (sum(declined), declined[0]) == (100, False)
