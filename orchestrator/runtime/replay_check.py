"""New code against the runs of a live journal, before it is deployed. Nothing is written but a store of its own.

Each partition is read under rule R, as a take-over reads it; then every run is replayed with the new code, outcome by
outcome, which is what a worker with that code would do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.model.definition import Definition
from orchestrator.model.events import Status
from orchestrator.model.replay import Difference, difference
from orchestrator.model.state import SagaState
from orchestrator.model.versions import name_needed, of_run
from orchestrator.runtime.materialize import load_state
from orchestrator.runtime.replica import Replica
from orchestrator.store import keys
from orchestrator.store.base import Store, Stores

WITH_CODE = frozenset({Status.RUNNING, Status.WAITING_FOR_CODE})
"""Phases in which a run will need its code again; one that compensates will not."""


@dataclass(frozen=True, slots=True)
class Diverging:
    """One run that the new code does not replay. `parked`: it is parked already."""

    saga_id: str
    run: str
    saga_type: str
    parked: bool
    difference: Difference


@dataclass(slots=True)
class Report:
    """`checked` runs by type, `unknown` those of types that the new code does not have."""

    checked: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    diverging: list[Diverging] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.checked.values())

    def groups(self) -> dict[tuple[str, str], list[Diverging]]:
        """By (saga type, where it diverges), the largest first."""
        found: dict[tuple[str, str], list[Diverging]] = {}
        for each in self.diverging:
            found.setdefault((each.saga_type, each.difference.at), []).append(each)
        return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


class ReplayCheck:
    """Feed it the journal, every partition in its order, then ask for the report.

    `ended`: check runs that have ended too. `only`: these runs, as (saga id, run id), and no others.
    """

    def __init__(
        self,
        definitions: Mapping[str, Definition],
        stores: Stores,
        *,
        ended: bool = False,
        only: Collection[tuple[str, str]] | None = None,
    ) -> None:
        self._definitions = definitions
        self._stores = stores
        self._ended = ended
        self._only = only
        self._replicas: dict[int, Replica] = {}

    def feed(self, partition: int, offset: int, timestamp_ms: int, value: bytes | None) -> None:
        """Takes the next record of a partition. Raises `JournalHalted`, `UnreadableRecord`."""
        replica = self._replicas.get(partition)
        if replica is None:
            replica = self._replicas[partition] = Replica(self._stores.open(partition))
        replica.feed(offset, timestamp_ms, value)

    def report(self) -> Report:
        """Replays the runs as they stand now."""
        report = Report()
        for partition in sorted(self._replicas):
            replica = self._replicas[partition]
            replica.flush()
            replica.executions.clear()
            for state in _runs(replica.store):
                wanted = state.phase in WITH_CODE or (self._ended and state.ended)
                if wanted and (self._only is None or (state.saga_id, state.run) in self._only):
                    self._check(state, report)
        return report

    def close(self) -> None:
        """Closes the stores."""
        for replica in self._replicas.values():
            replica.store.close()

    def _check(self, state: SagaState, report: Report) -> None:
        definition = of_run(self._definitions.get(state.saga_type), state)
        if definition is None:
            needed = name_needed(state)
            report.unknown[needed] = report.unknown.get(needed, 0) + 1
            return
        report.checked[state.saga_type] = report.checked.get(state.saga_type, 0) + 1
        found = difference(definition, state)
        if found is not None:
            parked = 0 in state.parked
            report.diverging.append(Diverging(state.saga_id, state.run, state.saga_type, parked, found))


def _runs(store: Store) -> Iterator[SagaState]:
    for key, _ in store.scan(keys.RUNS):
        state = load_state(store, key[len(keys.RUNS) :].decode())
        if state is not None:
            yield state
