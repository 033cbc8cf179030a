"""Breadth-first search of all states a model can reach, and the shortest way into a fault, told in words.

A model is explicit: states are hashable values, `steps` lists everything that may happen next. Breadth first, so the
first fault met is one of the shortest. States that differ only by a symmetry share one `key`; the search visits one of
them. That is sound because a symmetry maps steps to steps and faults to faults, which each model argues for its own.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Model(Protocol[S]):
    """What can be searched."""

    def initial(self) -> S:
        """The state everything starts in."""

    def steps(self, state: S) -> Iterable[tuple[Hashable, S]]:
        """Everything that may happen in `state`: a label for `describe`, and the state after it."""

    def key(self, state: S) -> Hashable:
        """One value for all states that differ only by a symmetry."""

    def fault(self, state: S) -> str | None:
        """What is wrong in `state`, if anything is."""

    def describe(self, state: S, label: Hashable, after: S) -> str:
        """One step as a sentence."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found: all states and no fault, or a fault and the story of how it comes about.

    `seconds` are the processor's, so that other work on the machine does not show in them.
    """

    states: int
    seconds: float
    fault: str | None
    story: tuple[str, ...]

    def __str__(self) -> str:
        if self.fault is None:
            return f"{self.states} states, exhausted, no fault"
        lines = [f"{number:3}. {sentence}" for number, sentence in enumerate(self.story, 1)]
        return "\n".join([f"fault after {len(lines)} steps: {self.fault}", *lines])


@contextmanager
def _uncollected() -> Iterator[None]:
    """States hold no cycles: looking for some among millions of tuples would take half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def explore(model: Model[S]) -> Outcome:
    """Visit every state, or stop at the first fault.

    Parents are kept by key; the story is walked again from the start, so that names in it do not change on the way
    although the search itself swaps symmetric parts.
    """
    begin = time.process_time()
    with _uncollected():
        states, fault, story = _explore(model)
    return Outcome(states, time.process_time() - begin, fault, story)


def _explore(model: Model[S]) -> tuple[int, str | None, tuple[str, ...]]:
    start = model.initial()
    steps, key_of, fault_of = model.steps, model.key, model.fault
    start_key = key_of(start)
    parents: dict[Hashable, Hashable] = {start_key: start_key}
    level: list[tuple[S, Hashable]] = [(start, start_key)]
    while level:
        following: list[tuple[S, Hashable]] = []
        for state, parent in level:
            for _, after in steps(state):
                key = key_of(after)
                if key in parents:
                    continue
                parents[key] = parent
                fault = fault_of(after)
                if fault is not None:
                    return len(parents), fault, _tell(model, parents, key)
                following.append((after, key))
        level = following
    return len(parents), None, ()


def _tell(model: Model[S], parents: dict[Hashable, Hashable], last: Hashable) -> tuple[str, ...]:
    """The way from the start to `last`, one sentence a step."""
    way = [last]
    while parents[way[-1]] != way[-1]:
        way.append(parents[way[-1]])
    state, story = model.initial(), []
    for key in reversed(way[:-1]):
        label, after = next(step for step in model.steps(state) if model.key(step[1]) == key)
        story.append(model.describe(state, label, after))
        state = after
    return tuple(story)
