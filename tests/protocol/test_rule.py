"""The search's small rule R and the project's own agree on every sequence of records."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.rule import Kind, Rule
from tests.protocol.rule import CLAIM, DECISION, RULE

RECORDS = st.lists(st.tuples(st.sampled_from([CLAIM, DECISION]), st.integers(1, 3), st.integers(0, 3)), max_size=40)


@given(RECORDS)
def test_both_accept_the_same_records(records: list[tuple[str, int, int]]) -> None:
    ours = Rule()
    ours.accept(Kind.GENESIS, b"", -1, b"", 0, b"genesis")
    state = RULE.start
    for offset, (kind, nonce, seq) in enumerate(records, 1):
        state, expected = RULE.accept(state, kind, nonce, seq)
        number = Kind.CLAIM if kind == CLAIM else Kind.DECISION
        name = nonce.to_bytes(16, "big")
        assert ours.accept(number, name, seq, ours.chain, offset, f"{offset}".encode()) is expected
