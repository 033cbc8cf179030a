"""Whether a world has come to rest: everything that came is consumed, and every saga ended or waits for somebody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.log.base import Record
from orchestrator.model.calls import awaits_answer
from orchestrator.model.events import Status, StepKind
from orchestrator.model.state import SagaState
from orchestrator.model.turn import ENDED_KEEP_MS
from orchestrator.runtime.materialize import load_state
from orchestrator.runtime.partition import Partition
from orchestrator.runtime.tenure import Phase
from orchestrator.simulation.processes import TOPICS
from orchestrator.simulation.sagas import OWN
from orchestrator.simulation.tally import TALLY
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStores

if TYPE_CHECKING:
    from orchestrator.simulation.world import World

_INPUTS = {
    "inbox": TOPICS.inbox,
    "replies": TOPICS.replies,
    "internal": TOPICS.internal,
    "operations": TOPICS.operations,
}


_OTHERS = (StepKind.CHILD, StepKind.CALL, StepKind.LOCK, StepKind.SIGNAL)
"""What only another saga, or a client, brings to its end."""
_LASTING = (TALLY, *OWN)
"""Sagas that wait for being told something."""


class Rest:
    """Asked often and mostly in vain, so it begins with what it waited for last time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._restless: tuple[int, str] | None = None

    def reached(self) -> bool:
        world = self._world
        owned: dict[int, tuple[Partition, MemoryStores]] = {}
        halted = False
        for worker in world.workers:
            if worker.engine is None or worker.frozen:
                return False
            for number, tenure in worker.engine.tenures.items():
                if tenure.phase is Phase.HALTED:
                    halted = True
                elif tenure.phase is not Phase.OWNING or tenure.partition is None or not tenure.partition.quiet:
                    return False
                else:
                    owned[number] = (tenure.partition, worker.stores)
        if self._restless is not None:
            number, saga_id = self._restless
            if number in owned and not self._is_at_rest(*owned[number], saga_id):
                return False
        if len(owned) < world.partitions and not halted:
            return False
        for number, (partition, _) in owned.items():
            for role, topic in _INPUTS.items():
                if partition.intake.consumed(role) < world.log.partitions[topic, number].end:
                    return False
        return all(self._all_at_rest(*place) for place in owned.values()) and all(
            _is_current(partition, world.log.records(TOPICS.journal, number))
            for number, (partition, _) in owned.items()
        )

    def _all_at_rest(self, partition: Partition, stores: MemoryStores) -> bool:
        """Of the runs in hand, and of those that are in the store only."""
        stored = [key[1:].decode() for key, _ in stores.peek(partition.number).scan(keys.RUNS)]
        for saga_id in dict.fromkeys([*partition.runs.live, *stored]):
            if not self._is_at_rest(partition, stores, saga_id):
                self._restless = (partition.number, saga_id)
                return False
        return True

    def _is_at_rest(self, partition: Partition, stores: MemoryStores, saga_id: str) -> bool:
        """A saga that is to be forgotten soon is waited for."""
        execution = partition.runs.live.get(saga_id)
        state = load_state(stores.peek(partition.number), saga_id) if execution is None else execution.state
        if state is None or (state.ended and self._world.ended_keep_ms == ENDED_KEEP_MS):
            return True
        return state.due_of(0) is None if state.ended else _waits(state)


def _is_current(partition: Partition, journal: Sequence[Record]) -> bool:
    """Whether nobody has written since: an owner that has nothing to write learns late that it was followed."""
    return len(journal) == partition.writer.next_offset


def _waits(state: SagaState) -> bool:
    """Whether it waits for a person, for code or for a child, and nothing that was sent is unanswered."""
    if state.phase is Status.WAITING_FOR_CODE:
        return True
    if state.phase is Status.NOT_STARTED:
        return not state.signals
    if state.paused is not None:
        return False  # who paused it resumes it
    still = (*state.open, *state.undo_open)
    family = {
        sequence for sequence in still if state.steps[sequence].kind in _OTHERS and state.due_of(sequence) is None
    }
    if any(map(awaits_answer, state.steps.values())):
        return all(
            sequence in state.parked or sequence in family for sequence in still
        )  # the one it asked is looked at
    waits = state.parked or family or (state.saga_type in _LASTING and not state.continue_due)
    return bool(waits) and all(sequence in state.parked or sequence in family for sequence in still)
