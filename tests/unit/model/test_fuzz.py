"""What random sagas do to one another, on the pure core: a few hundred seeds. `model.fuzz` tries more of them."""

from __future__ import annotations

import pytest

from model.fuzz import tried

SEEDS = 80
"""Of one test, some hundredths of a second each."""


@pytest.mark.parametrize("oddness", [0.08, 0.3])
@pytest.mark.parametrize("first", range(0, 4 * SEEDS, SEEDS))
def test_random_sagas_end_undone_as_they_should_and_the_same_everywhere(first: int, oddness: float) -> None:
    for seed in range(first, first + SEEDS):
        problem = tried(seed, oddness)
        assert not problem, f"\n{problem}"
