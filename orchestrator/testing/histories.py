"""Histories as files, and whether today's code still replays them.

end = SagaTest(OrderFulfilment).service(inventory, payments, shipping).run(order)
end.save("tests/histories/paid.json")

def test_running_sagas_survive_this_code() -> None:
    check_histories("tests/histories", OrderFulfilment)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import DefinitionError
from orchestrator.model.definition import Definition
from orchestrator.model.events import Decision, Event, SagaStarted, UpdateAccepted, UpdateEnded
from orchestrator.model.evolve import BrokenHistory, evolve
from orchestrator.model.replay import difference
from orchestrator.model.state import SagaState
from orchestrator.model.versions import SameVersion, by_type, of_run
from orchestrator.saga import Saga
from orchestrator.wire.history import UnreadableHistory, read_history, write_history

History = str | Path | Sequence[Decision]
"""A file, or the decisions themselves, such as `end.decisions`."""


def save(decisions: Sequence[Decision], path: str | Path) -> Path:
    """Writes a history into a file, whose folder is made."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(write_history(decisions), encoding="utf-8")
    return file


def replay(saga: type[Saga[Any, Any]], history: History) -> None:
    """Replays a history with the saga's code. Raises `AssertionError` with the difference.

    The rule is production's: the code has to ask for the same commands, signals and pauses in the same order. What it
    asks them with may have changed. Code of a newer version with a `migrate` hook takes over a run that has not ended.
    """
    name = str(history) if isinstance(history, str | Path) else "the history"
    problem = _difference(_by_type([saga]), _decisions(history))
    if problem is not None:
        raise AssertionError(f"{name}: {problem}")


def check_histories(folder: str | Path, *sagas: type[Saga[Any, Any]]) -> int:
    """Replays every history (`*.json`) in a folder, its folders too, with the saga of its type; returns how many.

    Of a type several versions may be given: each run goes on with the one that a worker with these would choose. Raises
    `AssertionError` that names each that does not replay, or if there is none.
    """
    files = sorted(Path(folder).rglob("*.json"))
    newest = _by_type(sagas)
    problems = []
    for file in files:
        try:
            decisions = _decisions(file)
        except AssertionError as unreadable:
            problems.append(str(unreadable))
            continue
        problem = _difference(newest, decisions)
        if problem is not None:
            problems.append(f"{file}: {problem}")
    if not files:
        raise AssertionError(f"there is no history in {folder}")
    if problems:
        raise AssertionError("\n\n".join([f"{len(problems)} of {len(files)} histories do not replay", *problems]))
    return len(files)


def runs_of(decisions: Sequence[Decision]) -> list[tuple[SagaState, list[Event]]]:
    """The state that each run was left in, and its events; the last is the current one."""
    state = SagaState(decisions[0].saga_id, decisions[0].run)
    runs: list[tuple[SagaState, list[Event]]] = [(state, [])]
    for decision in decisions:
        if decision.run != state.run:
            forgotten = state.forgotten
            state = SagaState(state.saga_id, decision.run) if forgotten else state.successor(decision.run)
            runs.append((state, []))
        for event in decision.events:
            evolve(state, event, decision.at_ms)
            runs[-1][1].append(event)
    return runs


def update_ended(decisions: Sequence[Decision], update_id: str) -> UpdateEnded | None:
    """What came of an update, in whichever run; None as long as it is under way."""
    place: tuple[str, int] | None = None
    for run, event in ((decision.run, event) for decision in decisions for event in decision.events):
        if isinstance(event, UpdateAccepted) and event.update_id == update_id:
            place = run, event.sequence
        elif isinstance(event, UpdateEnded) and place == (run, event.sequence):
            return event
    return None


def state_of(decisions: Sequence[Decision]) -> SagaState:
    """The state that these decisions lead to."""
    return runs_of(decisions)[-1][0]


def _decisions(history: History) -> Sequence[Decision]:
    if not isinstance(history, str | Path):
        return history
    try:
        return read_history(Path(history).read_text(encoding="utf-8"))
    except UnreadableHistory as unreadable:
        raise AssertionError(f"{history}: {unreadable}") from None


def _by_type(sagas: Sequence[type[Saga[Any, Any]]]) -> dict[str, Definition]:
    try:
        return by_type([saga.definition for saga in sagas])
    except SameVersion as same:
        raise DefinitionError(f"two of the given sagas are {same}: give one of them another version") from None


def _difference(newest: Mapping[str, Definition], decisions: Sequence[Decision]) -> str | None:
    """What today's code does otherwise, None if nothing."""
    started = decisions[0].events[0] if decisions and decisions[0].events else None
    if not isinstance(started, SagaStarted):
        return "the history does not begin with SagaStarted"
    saga_type = started.saga_type
    if saga_type not in newest:
        return f"it is of a {saga_type}; given are {', '.join(newest) or 'no sagas'}"
    try:
        runs = runs_of(decisions)
    except BrokenHistory as broken:
        return f"it is no history of this software: {broken}"
    for state, _ in runs:
        problem = _of_run(newest[saga_type], state)
        if problem is not None:
            return problem if len(runs) == 1 else f"run {state.run}: {problem}"
    return None


def _of_run(newest: Definition, state: SagaState) -> str | None:
    """Likewise of one run, with the version that it goes on with."""
    definition = of_run(newest, state)
    if definition is None:
        given = ", ".join(str(each.version) for each in (newest, *newest.older))
        stays = "is pinned to" if state.pinned else "came to"
        return f"the run {stays} version {state.version}; given of {newest.name} is version {given}: give that one too"
    found = difference(definition, state)
    return None if found is None else found.message
