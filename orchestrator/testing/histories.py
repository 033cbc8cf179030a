"""Histories as files, and whether today's code still replays them.

end = SagaTest(OrderFulfilment).service(inventory, payments, shipping).run(order)
end.save("tests/histories/paid.json")

def test_running_sagas_survive_this_code() -> None:
    check_histories("tests/histories", OrderFulfilment)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.model.events import Decision, Event, SagaStarted
from orchestrator.model.evolve import BrokenHistory, evolve
from orchestrator.model.replay import difference
from orchestrator.model.state import SagaState
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
    asks them with may have changed.
    """
    name = str(history) if isinstance(history, str | Path) else "the history"
    problem = _difference(saga, _decisions(history))
    if problem is not None:
        raise AssertionError(f"{name}: {problem}")


def check_histories(folder: str | Path, *sagas: type[Saga[Any, Any]]) -> int:
    """Replays every history (`*.json`) in a folder, its folders too, with the saga of its type; returns how many.

    Raises `AssertionError` that names each that does not replay, or if there is none.
    """
    files = sorted(Path(folder).rglob("*.json"))
    known = {saga.definition.name: saga for saga in sagas}
    problems = []
    for file in files:
        try:
            decisions = _decisions(file)
        except AssertionError as unreadable:
            problems.append(str(unreadable))
            continue
        saga_type = _started(decisions).saga_type
        problem = (
            _difference(known[saga_type], decisions)
            if saga_type in known
            else f"it is of a {saga_type}; given are {', '.join(known) or 'no sagas'}"
        )
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
            state = state.successor(decision.run)
            runs.append((state, []))
        for event in decision.events:
            evolve(state, event, decision.at_ms)
            runs[-1][1].append(event)
    return runs


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


def _started(decisions: Sequence[Decision]) -> SagaStarted:
    started = decisions[0].events[0] if decisions and decisions[0].events else None
    if not isinstance(started, SagaStarted):
        raise AssertionError("the history does not begin with SagaStarted")
    return started


def _difference(saga: type[Saga[Any, Any]], decisions: Sequence[Decision]) -> str | None:
    """What today's code does otherwise, None if nothing."""
    started = _started(decisions)
    if started.saga_type != saga.definition.name:
        return f"it is of a {started.saga_type}, not of a {saga.definition.name}"
    try:
        runs = runs_of(decisions)
    except BrokenHistory as broken:
        return f"it is no history of this software: {broken}"
    for state, _ in runs:
        found = difference(saga.definition, state)
        if found is not None:
            return found.message if len(runs) == 1 else f"run {state.run}: {found.message}"
    return None
