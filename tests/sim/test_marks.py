"""The system from seeds, with somebody's transactions among its inputs: offsets without a record hold nobody up."""

from functools import partial
from random import Random

import pytest

from orchestrator.simulation.drawing import SERVICES
from orchestrator.simulation.processes import TOPICS
from orchestrator.simulation.run import run_seed
from orchestrator.simulation.world import World

SEEDS = 40
UNTIL_MS = 60_000
"""Beyond the last fault, so that many a topic ends with one."""
WRITTEN_TO = (TOPICS.inbox, TOPICS.replies, TOPICS.operations, TOPICS.internal, *map(TOPICS.commands, SERVICES))


def with_marks(seed: int) -> World:
    world, random = World(seed), Random(seed)
    for _ in range(40):
        place = random.choice(WRITTEN_TO), random.randrange(world.partitions)
        world.later(random.randint(0, UNTIL_MS), partial(world.log.mark, *place))
    return world


@pytest.mark.timeout(300)
def test_no_seed_with_marks_violates_an_invariant() -> None:
    violations = {seed: found for seed in range(SEEDS) if (found := run_seed(seed, with_marks).violations)}
    assert violations == {}
