"""The effect channel holds in every reachable state, and each rule that is left out is missed."""

from __future__ import annotations

from dataclasses import fields

import pytest

from .catalogue import CHANNEL, CHANNEL_BROKEN, Case
from .effect_model import ALL
from .effect_rules import Rules

pytestmark = pytest.mark.timeout(300)  # an exhaustive search on a busy machine

FORMS = {"inbox", "zombies", "superseded"}  # what may be chosen, as against rules


def _name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", [case for case in CHANNEL if not case.large], ids=_name)
def test_the_channel_has_no_fault_in_any_state(case: Case) -> None:
    outcome = case.search()
    assert outcome.fault is None, str(outcome)


@pytest.mark.parametrize("case", CHANNEL_BROKEN, ids=_name)
def test_a_broken_rule_is_found_out(case: Case) -> None:
    outcome = case.search()
    assert outcome.fault == case.fault, str(outcome)


def test_every_rule_is_broken_once_and_alone() -> None:
    rules = {field.name: field.default for field in fields(Rules) if isinstance(field.default, bool)}
    broken: list[str] = []
    for case in CHANNEL_BROKEN:
        turned = {name for name in rules.keys() - FORMS if getattr(case.model, name) != rules[name]}
        assert len(turned) == 1, case.name
        broken += turned
    assert set(broken) == rules.keys() - FORMS


def test_every_fault_is_found_by_some_broken_rule() -> None:
    assert {case.fault for case in CHANNEL_BROKEN} == ALL


def test_a_fault_is_told_as_a_story() -> None:
    case = next(case for case in CHANNEL_BROKEN if case.name == "commit before reply")
    assert str(case.search()).splitlines() == [
        f"fault after 5 steps: {case.fault}",
        "  1. the owner sends do@1: it lands",
        "  2. the participant starts do@1",
        "  3. the participant ends do@1 with success and an effect",
        "  4. the participant records success of do@1",
        "  5. the participant dies or is revoked; a new one starts, 1 of the commands is committed",
    ]
