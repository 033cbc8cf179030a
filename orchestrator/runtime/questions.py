"""Queries, and updates that are refused: asked of what is decided, told once a record behind shows who the owner is."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.model.definition import Definition
from orchestrator.model.effects import REFUSED, UPDATE_FAILED, Answer, Effect, accepted_address
from orchestrator.model.events import Refusal
from orchestrator.model.messages import Input, Query, SetPauseRule, Update
from orchestrator.model.queries import answer
from orchestrator.model.updates import UpdateRejected
from orchestrator.model.versions import of_run
from orchestrator.runtime.runs import Runs


class Questions:
    """The answers of one step, which share a mark. A next owner does not send them again: who asks, asks again."""

    def __init__(self, runs: Runs, definitions: Mapping[str, Definition]) -> None:
        self._runs = runs
        self._definitions = definitions
        self.answers: list[Answer] = []

    def ask(self, query: Query) -> None:
        """Asks a run, live or ended. Raises `StoreBroken`, `UnreadableRecord`."""
        execution = self._runs.find(query.saga_id)
        state = None if execution is None else execution.state
        definition = None if state is None else of_run(self._definitions.get(state.saga_type), state)
        self.answers.append(answer(definition, state, query))

    def fail(self, query: Query, reason: str) -> None:
        """A query that could not even be asked."""
        self.answers.append(Answer(query.saga_id, "", query.reply_to, REFUSED, b"", Refusal.QUERY_FAILED, reason))

    def refuse(self, rejected: UpdateRejected) -> bool:
        """Tells who asked for an update that it is not taken. False: nobody is to be told."""
        answers = rejected.answers()
        self.answers += answers
        return bool(answers)

    def is_settled(self, given: Input | SetPauseRule) -> bool:
        """Whether an input that was taken before needs no decision. An update that its run knows is asked about anew.

        Of one that a run before carried out nobody knows the result any more, and its sender is told that.
        """
        if not isinstance(given, Update):
            return True
        execution = self._runs.find(given.saga_id)
        if execution is not None and given.update_id in execution.state.updates:
            return False
        if given.reply_to is not None:
            run = "" if execution is None else execution.state.run
            for address in (accepted_address(given.reply_to), given.reply_to):
                words = "it was taken before, by an earlier run: what came of it stands in that one's history"
                self.answers.append(Answer(given.saga_id, run, address, UPDATE_FAILED, b"", "ResultGone", words))
        return True

    def take(self) -> list[tuple[int, Effect]]:
        """The answers as the effects of one record."""
        taken: list[tuple[int, Effect]] = list(enumerate(self.answers))
        self.answers = []
        return taken
