"""The whole system from seeds: none violates an invariant, and each broken rule is found."""

import pytest

from orchestrator.simulation.run import run_seed
from tests.sim.mutants import MUTANTS, Mutant

GATE_SEEDS = 60
CAUGHT_WITHIN = 500


@pytest.mark.timeout(300)
def test_no_seed_violates_an_invariant() -> None:
    found = {seed: result.violations for seed in range(GATE_SEEDS) if (result := run_seed(seed)).violations}
    assert not found


def test_a_seed_gives_the_same_result_again() -> None:
    assert run_seed(7) == run_seed(7)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_rule_is_caught(mutant: Mutant) -> None:
    with mutant.applied():
        caught = next((seed for seed in range(CAUGHT_WITHIN) if run_seed(seed).violations), None)
    assert caught is not None, f"{CAUGHT_WITHIN} seeds without a violation"
