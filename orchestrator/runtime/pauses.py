"""The rules of one owned partition, and the runs that are let go of once theirs stands no longer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.pauses import MAX_RULES, type_in
from orchestrator.model.turn import Execution
from orchestrator.store import keys
from orchestrator.store.base import Store

Standing = dict[str, tuple[str, str, int]]
"""Rule → by whom, why, since when (in milliseconds)."""


def note_rule(standing: Standing, event: ev.PauseRuleSet, at_ms: int) -> None:
    """Applies the event to the rules that stand."""
    if event.standing:
        standing[event.rule] = (event.by, event.reason, at_ms)
    else:
        standing.pop(event.rule, None)


class Pauses:
    """`standing` may be ahead of what is confirmed. `live` are the warm runs, which may be ahead of the store."""

    def __init__(self, store: Store, standing: Standing, live: Mapping[str, Execution]) -> None:
        self.standing = dict(standing)
        self._store = store
        self._live = live
        # What the owner before let go of, but not to the last run.
        self._to_release = deque(self._held(lambda rule: rule not in self.standing))

    @property
    def restless(self) -> bool:
        return bool(self._to_release)

    def set(self, given: msg.SetPauseRule, now_ms: int, types: Container[str]) -> tuple[ev.Event, ...]:
        """What is to be journaled. `types` are those that the owner has: a rule for another one stands, but says so."""
        reason = ""
        if given.standing == (given.rule in self.standing):
            reason = f"{given.rule} is {'paused already' if given.standing else 'not paused'}"
        elif given.standing and len(self.standing) >= MAX_RULES:
            reason = f"{MAX_RULES} rules stand already: lift some"
        events: list[ev.Event] = []
        if not reason:
            event = ev.PauseRuleSet(given.rule, given.standing, given.by, given.reason)
            note_rule(self.standing, event, now_ms)
            events.append(event)
            if not given.standing:
                self._to_release.extend(self._held(lambda rule: rule == given.rule))
            elif (named := type_in(given.rule)) and named not in types:
                reason = f"no worker has a saga of type {named}: {given.rule} stands and waits for one, or resume it"
        if given.reply_to is not None:
            events.append(ev.InputAnswered(given.reply_to, reason))
        return tuple(events)

    def released(self, limit: int) -> Iterator[str]:
        """The next saga ids whose rule stands no longer; some may be held by another one."""
        for _ in range(min(limit, len(self._to_release))):
            yield self._to_release.popleft()

    def _held(self, by: Callable[[str], bool]) -> list[str]:
        found = {key[1:].decode(): None for key, rule in self._store.scan(keys.PAUSED) if by(rule.decode())}
        for saga_id, execution in self._live.items():
            paused = execution.state.paused
            if paused is not None and paused.rule and by(paused.rule):
                found[saga_id] = None
        return list(found)
