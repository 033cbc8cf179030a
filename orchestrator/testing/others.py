"""The other sagas around one under test: its children, the entities it calls, the locks it takes.

How a child ends and what an entity answers says the test. Which ids children may have, and when they stop, is decided
as in production.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.model import children
from orchestrator.model import messages as msg
from orchestrator.model.events import Status
from orchestrator.model.locks import GIVE, LOCK
from orchestrator.model.messages import ChildCancellation, Leaving, Parent, ParentClose
from orchestrator.model.starts import may_start_anew
from orchestrator.model.state import SagaState
from orchestrator.testing.entities import answer_to
from orchestrator.testing.flights import SERVICE, Flight
from orchestrator.testing.locks import answer_of_lock
from orchestrator.testing.services import ChildEnding, Services

RUN = "child"
"""The run of every child."""


@dataclass(slots=True)
class Child:
    """A saga that was started as a child: `end` is what its parent hears of it, `status` how it has ended by then."""

    type: str
    parent: Parent
    end: Flight
    status: Status
    stopped: bool = False
    """It has ended before its time."""


class Others:
    """What they answer is put into `flights`. `began_ms`: when the saga under test was started."""

    def __init__(self, services: Services, flights: list[Flight], began_ms: int) -> None:
        self._services = services
        self._flights = flights
        self._began_ms = began_ms
        self._children: dict[str, Child] = {}

    def hear(self, told: msg.Input, now_ms: int) -> None:
        """One of them is told something: what comes of it is on its way from then on. Raises `AssertionError`."""
        if isinstance(told, msg.Start):
            self._start(told, now_ms)
        elif isinstance(told, msg.UndoChild):
            self._undo(told, now_ms)
        elif isinstance(told, msg.ParentLeft):
            self._leave(told, now_ms)
        elif isinstance(told, msg.Update):
            self._call(told, now_ms)

    # -- children

    def _start(self, start: msg.Start, now_ms: int) -> None:
        known = self._children.get(start.saga_id)
        if known is not None:
            state = SagaState(start.saga_id, RUN)
            state.saga_type, state.parent, state.phase = known.type, known.parent, known.status
            if self._is_under_way(known, now_ms):
                state.phase = Status.RUNNING
            problem = _why_taken(start, state)
            if problem is not None:
                self._fly(children.refusal(start, problem), now_ms)
                return
            self._stop(known, Status.TERMINATED, now_ms)
        assert start.parent is not None
        ending = self._services.child(start)
        end = self._fly(_ended(start.parent, ending, undo=False), now_ms + ending.takes_ms)
        if ending.status != children.REFUSED:
            self._children[start.saga_id] = Child(start.saga_type, start.parent, end, Status(ending.status))

    def _undo(self, asked: msg.UndoChild, now_ms: int) -> None:
        """One that is under way stops; then what it did is undone, and that alone is told."""
        child = self._children.get(asked.saga_id)
        if child is None:
            ending = ChildEnding(0, Status.FAILED)  # there is nothing of it
        elif not _is_same(child.parent, asked.parent):
            problem = f"saga {asked.saga_id} is not the parent's child any more"
            ending = ChildEnding(0, children.REFUSED, b"", "NotUndone", problem)
        else:
            self._withdraw(child)
            ending = self._services.undo_child(asked)
            if ending.status != children.REFUSED:
                child.status = Status(ending.status)
        self._fly(_ended(asked.parent, ending, undo=True), now_ms + ending.takes_ms)

    def _leave(self, left: msg.ParentLeft, now_ms: int) -> None:
        """A child that is under way ends now, unless its parent leaves it to itself."""
        child, how = self._children.get(left.saga_id), left.how
        if child is None or not _is_same(child.parent, left.parent) or how is Leaving.GONE:
            return
        close, cancellation = child.parent.close, child.parent.cancellation
        if how is Leaving.TERMINATE or (how is Leaving.CLOSED and close is ParentClose.TERMINATE):
            self._stop(child, Status.TERMINATED, now_ms)
        elif (how is Leaving.CLOSED and close is ParentClose.ABANDON) or (
            how is Leaving.LEFT and cancellation is ChildCancellation.ABANDON
        ):
            return
        else:
            self._stop(child, Status.CANCELED, now_ms)

    def _stop(self, child: Child, status: Status, now_ms: int) -> None:
        if self._is_under_way(child, now_ms):
            self._withdraw(child)
            error_type = "Terminated" if status is Status.TERMINATED else "Canceled"
            ended = _ended(child.parent, ChildEnding(0, status, b"", error_type), undo=False)
            child.end, child.status, child.stopped = self._fly(ended, now_ms), status, True

    def _withdraw(self, child: Child) -> None:
        """Its parent does not hear of its end, unless it has."""
        self._flights[:] = [flight for flight in self._flights if flight is not child.end]

    def _is_under_way(self, child: Child, now_ms: int) -> bool:
        """Until its parent has heard of its end."""
        flies = any(flight is child.end for flight in self._flights)
        return flies and not child.stopped and child.end.due_ms >= now_ms

    # -- entities and locks

    def _call(self, asked: msg.Update, now_ms: int) -> None:
        if asked.saga_type != LOCK and asked.caller is not None:
            self._fly(answer_to(asked, asked.caller, self._services.calls), now_ms)
        elif asked.saga_type == LOCK and asked.caller is not None:
            answer = answer_of_lock(asked, asked.caller, self._services.held, now_ms - self._began_ms)
            if answer is not None:
                in_ms, called = answer
                self._fly(called, now_ms + in_ms)
        elif asked.saga_type == LOCK and asked.name == GIVE:
            hold = asked.update_id.rpartition("/")[0]
            self._flights[:] = [flight for flight in self._flights if not _gives_key(flight, hold)]

    def _fly(self, given: msg.Input, due_ms: int) -> Flight:
        flight = Flight(due_ms, SERVICE, given)
        self._flights.append(flight)
        return flight


def _why_taken(start: msg.Start, state: SagaState) -> str | None:
    """Why a child cannot have an id that another one has or had; None: it can."""
    if start.saga_type != state.saga_type:
        return f"the id belongs to a saga of type {state.saga_type}"
    if may_start_anew(start, state):
        return None
    return f"the id has a saga that is {state.status}, and the start's policy refuses that"


def _is_same(one: Parent, other: Parent) -> bool:
    return (one.saga_id, one.run, one.sequence) == (other.saga_id, other.run, other.sequence)


def _ended(parent: Parent, ending: ChildEnding, *, undo: bool) -> msg.ChildEnded:
    """What a parent hears."""
    step = parent.saga_id, parent.run, parent.sequence
    said = ending.result, ending.error_type, ending.error_message
    return msg.ChildEnded(*step, undo, RUN, str(ending.status), "all", *said)


def _gives_key(flight: Flight, hold: str) -> bool:
    """Whether it is the answer to this taking of a lock's key."""
    called = flight.input
    return isinstance(called, msg.Called) and f"{called.saga_id}/{called.run}/{called.sequence}" == hold
