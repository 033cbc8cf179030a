"""What people do about a saga under test: the verbs of `Client` and of the command line."""

from __future__ import annotations

from typing import Any, Self, TypeVar

from orchestrator.choices import chosen
from orchestrator.durations import Duration, milliseconds
from orchestrator.errors import DefinitionError, NotApplied
from orchestrator.model import messages as msg
from orchestrator.model.events import InputAbsorbed
from orchestrator.model.messages import Conflict, Override, Reuse
from orchestrator.model.versions import with_version
from orchestrator.saga import Saga
from orchestrator.service import Call, Command
from orchestrator.testing.world import World

R = TypeVar("R")

BY = "test"
"""Who cancels, ends and decides in a test."""


class Operating:
    """Part of `Running`. But for `cancel` and `terminate` all raise `NotApplied` where nothing is changed."""

    _world: World
    _saga: type[Saga[Any, Any]]

    def _message_id(self) -> str:
        raise NotImplementedError

    def _take(self, given: msg.Input) -> Self:
        raise NotImplementedError

    def cancel(self, reason: str = "") -> Self:
        """A client cancels."""
        return self._take(msg.Cancel(self._world.saga_id, self._message_id(), None, reason, BY))

    def terminate(self, reason: str = "") -> Self:
        """An operator ends it at once; nothing is undone."""
        return self._take(msg.Terminate(self._world.saga_id, self._message_id(), None, reason, BY))

    def pause(self, reason: str = "") -> Self:
        """A person keeps it where it is: what comes in is recorded, its code, timers and undo wait."""
        return self._operate(msg.Pause(self._world.saga_id, self._message_id(), None, reason, BY))

    def resume(self, reason: str = "") -> Self:
        """A person lets it go on."""
        return self._operate(msg.Resume(self._world.saga_id, self._message_id(), None, reason, BY))

    def compensate(self, reason: str = "") -> Self:
        """A person has all undone that it did, at once and without its code, also behind its pivot."""
        return self._operate(msg.Compensate(self._world.saga_id, self._message_id(), None, reason, BY))

    def retry(self, call: Call[Any, Any] | None = None) -> Self:
        """A person has what it is parked at tried again; a step, or its undo, with another request if one is given.

        Where nothing is parked, what is between two attempts is tried at once.
        """
        if call is None:
            return self._unpark(Override.RETRY)
        return self._unpark(Override.RETRY, self._stopped_at(call.command), call.payload())

    def skip(self) -> Self:
        """A person has what it is parked at left out."""
        return self._unpark(Override.SKIP)

    def set_result(self, command: Command[..., Any, R], reply: R) -> Self:
        """A person says how the step went that is parked."""
        return self._unpark(Override.SET_RESULT, self._stopped_at(command), command.encode(reply))

    def redrive(self, input: Any = ..., reason: str = "") -> Self:
        """A person has it go on where it failed, with the results that still stand; with another input if one is given.

        This, `restart` and `reset` begin another run of it: `finish` gives that one's end.
        """
        payload = None if input is ... else self._saga.encode_input(input)
        redrive = msg.Redrive(self._world.saga_id, self._message_id(), None, reason, BY, payload=payload)
        return self._operate(redrive)

    def reset(self, to: int, reason: str = "") -> Self:
        """A person has undone what it did from its step `to` on, the first is 1, and it goes on from there."""
        return self._operate(msg.Reset(self._world.saga_id, self._message_id(), to, None, reason, BY))

    def restart(self, input: Any = ..., reason: str = "") -> Self:
        """A person runs it again from its beginning, once it has ended; with another input if one is given."""
        payload = None if input is ... else self._saga.encode_input(input)
        return self._operate(msg.Restart(self._world.saga_id, self._message_id(), payload, None, reason, BY))

    def start_again(
        self, input: Any, *, reuse: Reuse | None = None, conflict: Conflict = Conflict.USE_EXISTING
    ) -> Self:
        """A client starts the id that is there, as `Client.start` does; like `redrive` where another run begins."""
        reuse, conflict = (
            None if reuse is None else chosen(Reuse, reuse, "reuse"),
            chosen(Conflict, conflict, "conflict"),
        )
        id, name, payload = self._world.saga_id, self._saga.definition.name, self._saga.encode_input(input)
        return self._operate(msg.Start(id, self._message_id(), name, payload, reuse=reuse, conflict=conflict))

    def reschedule(self, start_delay: Duration) -> Self:
        """A client moves the beginning of a saga that was `delayed` to so long after now."""
        delay_ms = milliseconds(start_delay)
        return self._operate(msg.Reschedule(self._world.saga_id, self._message_id(), None, delay_ms, by=BY))

    def move_version(self, saga: type[Saga[Any, Any]], reason: str = "") -> Self:
        """A worker has this version's code too, and a person has the saga go on with it and stay there.

        Where it has a `migrate` hook, it takes over what was done as soon as nothing is in flight. Raises
        `DefinitionError` where it is no version of this saga.
        """
        world, definition = self._world, saga.definition
        known = world.definition
        if definition.name != known.name:
            example = f"class {saga.__name__}(..., name={known.name!r}, version=...)"
            raise DefinitionError(f"{definition.name} is no version of {known.name}: {example}")
        world.definition = with_version(known, definition)
        try:
            self._operate(msg.MoveVersion(world.saga_id, self._message_id(), definition.version, None, reason, BY))
        except NotApplied:
            world.definition = known
            raise
        self._saga = saga
        return self

    def _unpark(self, action: Override, sequence: int = 0, payload: bytes | None = None) -> Self:
        return self._operate(
            msg.Unpark(self._world.saga_id, self._message_id(), action, sequence, payload, None, "", BY)
        )

    def _stopped_at(self, command: Command[..., Any, Any]) -> int:
        """The step that is parked or between two attempts, of this command or with this undo."""
        state = self._world.state
        for sequence in sorted(state.open | state.undo_open):
            step = state.steps[sequence]
            wanted = step.command if sequence in state.open else step.undo_command
            if step.service == command.service and wanted == command.name:
                return sequence
        raise AssertionError(f"{command!r} is not parked: {self!r}")

    def _operate(self, given: msg.Input) -> Self:
        decided = len(self._world.decisions)
        self._take(given)
        events = self._world.decisions[decided].events
        if events and isinstance(events[0], InputAbsorbed):
            raise NotApplied(self._world.saga_id, events[0].reason)
        return self
