"""Rule R, by which every reader of the journal tells accepted records from dropped ones, and R with rules left out.

The model takes the project's rule as `RULE`, from here and nowhere else. Its shape: `accept(state, kind, nonce, seq)`
gives the state after the record and whether it is accepted. To the model the state is opaque, it has to be hashable;
a nonce is an integer above 0. The broken rules stand on their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

CLAIM, DECISION = "claim", "decision"

# The current nonce, the next expected seq, all nonces seen.
RuleState = tuple[int, int, frozenset[int]]
START: RuleState = (0, 0, frozenset())


class Rule(NamedTuple):
    """A state to start with, and what a record does to it."""

    start: Any
    accept: Callable[[Any, str, int, int], tuple[Any, bool]]


def accept(state: RuleState, kind: str, nonce: int, seq: int) -> tuple[RuleState, bool]:
    """A claim with a new nonce becomes current; a decision needs the current nonce and the expected seq."""
    current, expected, seen = state
    if kind == CLAIM:
        return (state, False) if nonce in seen else ((nonce, 0, seen | {nonce}), True)
    if nonce == current and seq == expected:
        return (current, expected + 1, seen), True
    return state, False


def _without_seq(state: RuleState, kind: str, nonce: int, seq: int) -> tuple[RuleState, bool]:
    """Whatever bears the current nonce is accepted."""
    return accept(state, kind, nonce, seq if kind == CLAIM else state[1])


def _without_claims(state: RuleState, kind: str, nonce: int, seq: int) -> tuple[RuleState, bool]:
    """The first decision of a new nonce takes over."""
    if seq == 0:
        state, _ = accept(state, CLAIM, nonce, 0)
    return accept(state, kind, nonce, seq)


def _without_memory(state: RuleState, kind: str, nonce: int, seq: int) -> tuple[RuleState, bool]:
    """A nonce that was seen may become current again."""
    return accept((state[0], state[1], frozenset()), kind, nonce, seq)


RULE = Rule(START, accept)
WITHOUT_SEQ = Rule(START, _without_seq)
WITHOUT_CLAIMS = Rule(START, _without_claims)
WITHOUT_MEMORY = Rule(START, _without_memory)
