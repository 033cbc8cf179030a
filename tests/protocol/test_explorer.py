"""The search itself, on a puzzle whose answers are known."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from .explorer import explore

Jugs = tuple[int, int]


@dataclass(frozen=True)
class Pouring:
    """Two jugs alike of five pints and an order to pour: fill one, empty one, pour one into the other."""

    sizes: Jugs = (3, 5)
    wanted: int = 4
    alike: bool = False

    def initial(self) -> Jugs:
        return (0, 0)

    def key(self, state: Jugs) -> Hashable:
        return tuple(sorted(state)) if self.alike else state

    def fault(self, state: Jugs) -> str | None:
        return "measured" if self.wanted in state else None

    def steps(self, state: Jugs) -> Iterator[tuple[Hashable, Jugs]]:
        for one in (0, 1):
            filled, emptied = [*state], [*state]
            filled[one], emptied[one] = self.sizes[one], 0
            moved = min(state[one], self.sizes[1 - one] - state[1 - one])
            poured = [*state]
            poured[one], poured[1 - one] = state[one] - moved, state[1 - one] + moved
            for verb, after in (("fill", filled), ("empty", emptied), ("pour", poured)):
                yield (verb, one), (after[0], after[1])

    def describe(self, state: Jugs, label: Hashable, after: Jugs) -> str:
        assert isinstance(label, tuple)
        return f"{label[0]} jug {label[1] + 1}: {after}"


def test_the_story_is_a_shortest_one() -> None:
    assert explore(Pouring()).story == (
        "fill jug 2: (0, 5)",
        "pour jug 2: (3, 2)",
        "empty jug 1: (0, 2)",
        "pour jug 2: (2, 0)",
        "fill jug 2: (2, 5)",
        "pour jug 2: (3, 4)",
    )


def test_without_a_fault_all_states_are_visited() -> None:
    outcome = explore(Pouring(wanted=9))
    assert outcome.fault is None
    assert outcome.states == 16  # the rim of the 4 by 6 grid


def test_symmetric_states_are_visited_once_and_the_story_keeps_its_names() -> None:
    same = Pouring(sizes=(5, 5), wanted=9, alike=True)
    assert explore(same).states == 3  # none, one, both full
    outcome = explore(Pouring(sizes=(5, 5), wanted=5, alike=True))
    assert outcome.story == ("fill jug 1: (5, 0)",)
