"""Rule R, by which every reader of the journal tells accepted records from dropped ones.

The journal model takes the rule from here and from nowhere else: `accept(state, kind, nonce, seq)` gives the state
after the record and whether it is accepted. The state is opaque to the model, it only has to be hashable.
"""

from __future__ import annotations

CLAIM, DECISION = "claim", "decision"

# The current nonce, the next expected seq, all nonces seen.
RuleState = tuple[int, int, frozenset[int]]

START: RuleState = (0, 0, frozenset())


def accept(state: RuleState, kind: str, nonce: int, seq: int) -> tuple[RuleState, bool]:
    """A claim with a new nonce becomes current; a decision needs the current nonce and the expected seq."""
    current, expected, seen = state
    if kind == CLAIM:
        if nonce in seen:
            return state, False
        return (nonce, 0, seen | {nonce}), True
    if nonce == current and seq == expected:
        return (current, expected + 1, seen), True
    return state, False
