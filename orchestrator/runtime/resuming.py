"""What a new owner of a partition goes on with before anything new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.model import messages as msg
from orchestrator.model.definition import Definition
from orchestrator.model.effects import LocalCall, effects, local_calls
from orchestrator.runtime.effect_sender import EffectSender
from orchestrator.runtime.replica import Replica
from orchestrator.runtime.runs import Runs
from orchestrator.runtime.timers import Timers
from orchestrator.store import keys
from orchestrator.store.base import Store


def resend(replica: Replica, runs: Runs, sender: EffectSender, now_ms: int) -> int:
    """Sends again what is open, in journal order. Gives how many there were."""
    count = 0
    exceptions = set(replica.progress.at.effects_open)
    for offset, index, saga_id, run, event in replica.open_effects:
        execution = runs.find(saga_id)
        state = execution.state if execution is not None and execution.state.run == run else None
        for effect in effects(event, saga_id, state):
            if not isinstance(effect, LocalCall):
                sender.send(offset, index, effect, now_ms, below_mark=(offset, index) in exceptions)
                count += 1
    replica.open_effects.clear()
    return count


def calls_to_make(store: Store, runs: Runs) -> Iterator[LocalCall]:
    """Those of local steps that have no outcome."""
    for key, _ in list(store.scan(keys.LOCAL)):
        execution = runs.find(key[1:].decode())
        yield from local_calls(execution.state) if execution is not None else ()


def inputs_to_go_on(
    store: Store, runs: Runs, timers: Timers, definitions: Mapping[str, Definition]
) -> Iterator[msg.Input]:
    """For decisions of which a part is still due, then for runs whose code is here; each to be decided at once."""
    while (timer := timers.pop_due_at_once()) is not None:
        execution = runs.find(timer[1])
        if execution is not None and execution.state.continue_due:
            yield msg.Continue(execution.state.saga_id, execution.state.run)
    for key, _ in list(store.scan(keys.WAITING)):
        execution = runs.find(key[1:].decode())
        if execution is not None and execution.state.saga_type in definitions:
            yield msg.CodeArrived(execution.state.saga_id, execution.state.run)
