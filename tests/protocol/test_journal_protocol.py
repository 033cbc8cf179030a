"""The journal protocol holds in every reachable state, and each rule that is left out is missed."""

from __future__ import annotations

import pytest

from .catalogue import JOURNAL, JOURNAL_BROKEN, Case
from .rule import CLAIM, DECISION, RULE

pytestmark = pytest.mark.timeout(300)  # an exhaustive search on a busy machine


def _name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", [case for case in JOURNAL if not case.large], ids=_name)
def test_the_protocol_has_no_fault_in_any_state(case: Case) -> None:
    outcome = case.search()
    assert outcome.fault is None, str(outcome)


@pytest.mark.parametrize("case", JOURNAL_BROKEN, ids=_name)
def test_a_broken_rule_is_found_out(case: Case) -> None:
    outcome = case.search()
    assert outcome.fault == case.fault, str(outcome)


def test_a_fault_is_told_as_a_story() -> None:
    case = next(case for case in JOURNAL_BROKEN if case.name.startswith("contiguity"))
    assert str(case.search()).splitlines() == [
        f"fault after 6 steps: {case.fault}",
        "  1. writer 1 reads to the end and hands over a claim",
        "  2. a claim of writer 1 lands: epoch 1",
        "  3. writer 1 decides r0 and hands it over",
        "  4. writer 1 decides r1 and hands it over",
        "  5. r1 of writer 1, epoch 1, lands: dropped by rule R",
        "  6. writer 1 hears that r1 landed, with an offset, and confirms it",
    ]


def test_rule_r_accepts_the_current_nonce_in_order_of_seq_and_nothing_else() -> None:
    log = [
        (DECISION, 1, 0, False),  # before any claim
        (CLAIM, 1, 0, True),
        (DECISION, 1, 1, False),  # r0 is missing
        (DECISION, 1, 0, True),
        (DECISION, 1, 0, False),  # again
        (DECISION, 1, 1, True),
        (CLAIM, 2, 0, True),
        (DECISION, 1, 2, False),  # a stale owner
        (CLAIM, 1, 0, False),  # a nonce seen before
        (DECISION, 1, 2, False),
        (DECISION, 2, 0, True),
    ]
    state = RULE.start
    verdicts = []
    for kind, nonce, seq, _ in log:
        state, accepted = RULE.accept(state, kind, nonce, seq)
        verdicts.append(accepted)
    assert verdicts == [accepted for *_, accepted in log]
