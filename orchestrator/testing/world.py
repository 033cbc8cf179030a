"""One saga in memory, on the engine's own core: the decisions of production, without broker and without waiting.

Before every input the saga's code is let go of and replayed from the recorded outcomes, so that code which is not
deterministic shows in its first test. In a run of many outcomes that is done at growing distances, and at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from orchestrator.errors import UpdateRejected as Refused
from orchestrator.model import messages as msg
from orchestrator.model.decide import InputRejected, decide
from orchestrator.model.definition import Definition, Request, StepRequest
from orchestrator.model.divergence import Divergence, name_of
from orchestrator.model.driver import Driver
from orchestrator.model.effects import Answer, Effect, Forward, LocalCall, Message, effects_of
from orchestrator.model.effects import Command as CommandEffect
from orchestrator.model.events import (
    Decision,
    Event,
    Recorded,
    Status,
    StepAttempted,
    StepInherited,
    StepKind,
    VersionChanged,
    WaitScheduled,
)
from orchestrator.model.ids import Direction, idempotency_key
from orchestrator.model.messages import Outcome
from orchestrator.model.state import SagaState, Step
from orchestrator.model.turn import Execution, Moment
from orchestrator.model.updates import UpdateRejected
from orchestrator.model.versions import of_run
from orchestrator.testing.flights import PERSON, SERVICE, TIMER, Flight, Happening, Sent
from orchestrator.testing.histories import state_of
from orchestrator.testing.journaled import check_journaled
from orchestrator.testing.others import Others
from orchestrator.testing.services import Effect as Done
from orchestrator.testing.services import Reaction, Services, message_of
from orchestrator.testing.stuck import in_circles
from orchestrator.wire.commands import ReplyMessage
from orchestrator.wire.history import read_history, write_history

MAX_INPUTS = 10_000
"""A saga that is not at its end after so many outcomes, timers and signals goes round in circles."""
ALWAYS_REPLAYED = 300
"""Up to so many outcomes of a run its code is replayed before each; then each distance is a tenth of what there is."""
MAX_ATTEMPTS = 1_000
"""A command that is tried so often never succeeds."""


class ExactDriver(Driver):
    """Holds the code to what it asked for before, to the byte: a request made of the clock or of chance differs.

    Not so for `others`: steps whose request is a person's, or an earlier run's.
    """

    others: Collection[int] = ()

    def check(self, step: Step, request: Request) -> None:
        Driver.check(self, step, request)
        if not isinstance(request, StepRequest) or step.sequence in self.others:
            return
        if request.payload != step.payload:
            name = name_of(request)
            raise self.difference(step.sequence, f"{name} {_text(step.payload)}", f"{name} {_text(request.payload)}")


class World:
    """One saga id from its start to its end. `watchers` are told what it has begun to wait for."""

    def __init__(
        self,
        definition: Definition,
        services: Services,
        saga_id: str,
        now_ms: int,
        incarnation: int = 1,
        *,
        replaying: bool = True,
    ) -> None:
        self.definition = definition
        self.services = services
        self.saga_id = saga_id
        self.started_ms = self.now_ms = now_ms
        self.incarnation = incarnation
        self.replaying = replaying
        """Whether the code is let go of and replayed before inputs."""
        self.max_inputs = MAX_INPUTS
        self._next_replay = 0
        """At so many outcomes of this run, beyond those where it always is."""
        self.taken: list[msg.Input] = []
        self.execution: Execution | None = None
        self.decisions: list[Decision] = []
        self.inputs = 0
        self.sent: list[Sent] = []
        self.flights: list[Flight] = []
        self.starts: list[msg.Start] = []
        """Sagas that this one has started beside it: its forks."""
        self._called: set[tuple[str, int, Direction, int]] = set()
        self._told = 0
        """The counter of the last message that another saga has heard."""
        self._others = Others(services, self.flights, now_ms)
        self._foreign: set[int] = set()
        """Steps of this run whose request is not what its code asked for."""
        self._known: dict[tuple[str, int, Direction, int], Sent] = {}
        self.watchers: list[Callable[[Happening], None]] = []
        self.tells_refusals = True
        """Whether an update that the saga refuses is an error of the test; where faults are drawn it is none."""

    @property
    def state(self) -> SagaState:
        assert self.execution is not None
        return self.execution.state

    # -- what happens next

    def post(
        self, given: msg.Input, due_ms: int, rank: int = PERSON, sent: Sent | None = None, *, repeat: bool = False
    ) -> None:
        """Puts an input on its way."""
        self.flights.append(Flight(due_ms, rank, given, sent, repeat))

    def upcoming(self) -> list[Flight]:
        """What may arrive next, in order: all that is due at the earliest time with the same rank."""
        timer = self._timer()
        flights = self.flights if timer is None else [*self.flights, timer]
        if not flights:
            return []
        first = min((flight.due_ms, flight.rank) for flight in flights)
        due = [flight for flight in flights if (flight.due_ms, flight.rank) == first]
        heard = next((flight for flight in due if flight.own), None)  # a saga hears itself in order
        return [flight for flight in due if flight is heard or not flight.own]

    def _timer(self) -> Flight | None:
        """The next timer. A saga that is parked for a person is not ended by its own; that is paused, it has none."""
        state = self.state
        if state.ended or state.paused is not None:
            return None
        own = () if state.parked else (0,)
        timed = (*own, *state.open, *state.undo_open)
        dues = [(due, sequence) for sequence in timed if (due := state.due_of(sequence)) is not None]
        if not dues:
            return None
        due_ms, sequence = min(dues)
        return Flight(due_ms, TIMER, msg.TimerDue(self.saga_id, state.run, sequence, due_ms))

    def arrive(self, flight: Flight) -> None:
        """Lets the time pass until then, and has it decided."""
        if flight in self.flights:
            self.flights.remove(flight)
        self.now_ms = max(self.now_ms, flight.due_ms)
        if flight.sent is not None and flight.sent.answered is None:
            flight.sent.answered = len(self.decisions)
        self.take(flight.input)

    # -- deciding

    def take(self, given: msg.Input) -> None:
        """Decides an input, and what did not fit into the decision's budget. Raises `AssertionError`.

        What comes from outside is taken once, by its message id.
        """
        message_id: str = getattr(given, "message_id", "")
        if message_id and any(decision.message_id == message_id for decision in self.decisions):
            return
        self.taken.append(given)
        self._decide(given, message_id)
        while self.execution is not None and self.state.continue_due:
            self._decide(msg.Continue(self.saga_id, self.state.run))

    def beside(self, start: msg.Start) -> World:
        """Another saga of this type with the same services, started now."""
        other = World(
            self.definition, self.services, start.saga_id, self.now_ms, self.incarnation, replaying=self.replaying
        )
        other.max_inputs = self.max_inputs
        other.take(start)
        return other

    def crash(self) -> None:
        """The owner is gone; the next one has what the journal holds, and sends again what is open."""
        assert self.execution is not None
        self.execution.detach()
        state = state_of(read_history(write_history(self.decisions)))
        self.execution = Execution(state)
        for decision in [each for each in self.decisions if each.run == state.run]:
            for _, effect in effects_of(decision, state):
                self.perform(effect)

    def expire(self) -> None:
        """The saga's own time is up, whatever it is at."""
        state = self.state
        if state.due_ms is not None:
            self.now_ms = max(self.now_ms, state.due_ms)
            self.take(msg.TimerDue(self.saga_id, state.run, 0, state.due_ms))

    def _decide(self, given: msg.Input, message_id: str = "") -> None:
        self.inputs += 1
        if self.inputs > self.max_inputs:
            raise AssertionError(in_circles(self.state, self.max_inputs))
        live = None if self.execution is None or self.execution.driver is None else self.state
        if self.execution is not None and self._is_replayed():
            self.replay()
        before = 0 if self.execution is None else self.state.sequence
        moment = Moment(self.now_ms, self.incarnation, self.inputs, 1, sent={"0": self._told})
        try:
            self.execution, events, run = decide(self.execution, self.definition, given, moment)
        except InputRejected as rejected:
            raise AssertionError(str(rejected)) from None
        except UpdateRejected as rejected:
            if not self.tells_refusals:
                return
            raise Refused(self.saga_id, rejected.reason) from None
        finally:
            if self.execution is not None and self._is_replayed():
                self.execution.detach()
        if live is not None:
            self._check_left(live, events)
        decision = Decision(self.saga_id, run, self.now_ms, events, message_id)
        check_journaled(self.definition.name, decision)
        if self.decisions and self.decisions[-1].run != run:
            self._foreign.clear()
            self._next_replay = 0
        self.decisions.append(decision)
        for event in events:
            if isinstance(event, StepInherited) or (isinstance(event, StepAttempted) and event.payload is not None):
                self._foreign.add(event.sequence)
            if isinstance(event, VersionChanged):
                self._foreign.update(range(1, before + 1))
            if isinstance(event, WaitScheduled):
                if event.sequence in self.state.open:
                    self.tell(event)
            elif isinstance(event, Recorded) and event.kind is StepKind.NOTE:
                self.tell(event)
        for _, effect in effects_of(decision, self.state):
            self.perform(effect)

    def _is_replayed(self) -> bool:
        """Whether the code is to be replayed where its run is now."""
        outcomes = len(self.state.outcomes)
        return self.replaying and (outcomes < ALWAYS_REPLAYED or outcomes >= self._next_replay)

    def _check_left(self, left: SagaState, events: tuple[Event, ...]) -> None:
        """Replays a run that was not replayed before this decision, if that was its code's last word."""
        goes_on = self.state is left and left.phase is Status.RUNNING
        other_code = any(isinstance(event, VersionChanged) for event in events)
        if self.replaying and not goes_on and not other_code:
            self._replayed(left).detach()

    def replay(self) -> None:
        """Brings the code to where it was. Raises `AssertionError` if it asks for something else this time."""
        assert self.execution is not None
        state = self.execution.state
        definition = of_run(self.definition, state)
        if state.phase is not Status.RUNNING or 0 in state.parked or state.migrates_from:
            return
        if definition is None or definition.version != state.version:
            return
        self._next_replay = len(state.outcomes) + len(state.outcomes) // 10
        self.execution.driver = self._replayed(state)

    def _replayed(self, state: SagaState) -> ExactDriver:
        """The code, brought to where a run is. Raises `AssertionError`."""
        definition = of_run(self.definition, state)
        assert definition is not None
        driver = ExactDriver(definition, state)
        driver.others = self._foreign
        try:
            driver.catch_up()
        except Divergence as difference:
            driver.detach()
            raise AssertionError(f"{self.definition.name} is not deterministic. {difference}") from None
        return driver

    def check_end(self) -> None:
        """Replays the code of a saga that has completed once more: its result has to be the same."""
        state = self.state
        if not self.replaying or state.phase is not Status.COMPLETED:
            return
        driver = self._replayed(state)
        driver.detach()
        if driver.error is not None or driver.result != state.result:
            again = repr(driver.error) if driver.error is not None else _text(driver.result)
            name, result = self.definition.name, _text(state.result)
            raise AssertionError(f"{name} is not deterministic. It ended with {result}, replayed with {again}")

    # -- effects

    def perform(self, effect: Effect) -> None:
        """Does what a confirmed decision asks for. Effects of a new kind get a line here."""
        if isinstance(effect, CommandEffect):
            self.send(effect)
        elif isinstance(effect, LocalCall):
            self.call(effect)
        elif isinstance(effect, Message):
            self.pass_on(effect)
        elif not isinstance(effect, Answer | Forward):
            raise AssertionError(f"the test kit does not know what to do about {effect!r}")

    def send(self, effect: CommandEffect) -> None:
        """Hands a command to its service; the answer is on its way from then on."""
        reaction = self.services.ask(effect, self.now_ms)
        known = self._known.get((effect.run, effect.sequence, effect.direction, effect.attempt))
        sent = self._note(effect, reaction) if known is None else known
        if effect.attempt > MAX_ATTEMPTS:
            raised = self.services.raised.get(sent.key)
            raise AssertionError(
                f"{sent.command!r} was tried {MAX_ATTEMPTS} times, and answered {sent.outcome} {sent.error}".rstrip()
            ) from raised
        if known is None:
            self.tell(sent)
        if effect.heartbeat_ms is not None and reaction.ran:
            beat = ReplyMessage(Outcome.HEARTBEAT, self.services.beats.pop(sent.key, b""))
            self.flights.append(Flight(self.now_ms, SERVICE, reply_of(effect, beat)))
        if isinstance(reaction.ending, ReplyMessage):
            reply = reply_of(effect, reaction.ending)
            self.post(reply, reaction.due_ms, SERVICE, sent, repeat=known is not None)

    def call(self, effect: LocalCall) -> None:
        """Calls the function of a local step; what came of it is on its way from then on."""
        reply = self.services.call(effect)
        call = (effect.run, effect.sequence, effect.direction, effect.attempt)
        if effect.attempt > MAX_ATTEMPTS:
            raised = self.services.raised.get(idempotency_key(*effect.unit, effect.direction))
            error = ": ".join(filter(None, (reply.error_type, reply.error_message)))
            raise AssertionError(
                f"{effect.function} was called {MAX_ATTEMPTS} times, and never came to an outcome. The last: {error}"
            ) from raised
        self.post(reply, self.now_ms, SERVICE, repeat=call in self._called)
        self._called.add(call)

    def pass_on(self, message: Message) -> None:
        """Another saga, or this one, is told something. What is sent again after a crash it has heard already."""
        if message.counter <= self._told:
            return
        self._told, given = message.counter, message.input
        if given.saga_id == self.saga_id:
            self.flights.append(Flight(self.now_ms, SERVICE, given, own=True))
        elif isinstance(given, msg.Start) and given.parent is None:
            if given.saga_type == self.definition.name:
                self.starts.append(given)
        else:
            self._others.hear(given, self.now_ms)

    def tell(self, happening: Happening) -> None:
        """Tells the watchers."""
        for watch in tuple(self.watchers):
            watch(happening)

    def answer(self, sent: Sent, ending: ReplyMessage) -> None:
        """A command that nobody answered is answered now."""
        effect = sent.effect
        self.services.remember(message_of(effect, self.now_ms), ending)
        sent.outcome = ending.outcome
        if ending.outcome is Outcome.SUCCESS:
            self.services.log.append(Done(sent.command, sent.key, sent.sequence, sent.direction))
        sent.answered = len(self.decisions)
        self.take(reply_of(effect, ending))

    def _note(self, effect: CommandEffect, reaction: Reaction) -> Sent:
        sent = Sent(
            reaction.command,
            reaction.command.request.model_validate_json(effect.payload),
            effect.direction,
            effect.sequence,
            effect.attempt,
            idempotency_key(effect.saga_id, effect.run, effect.sequence, effect.direction),
            self.elapsed,
            len(self.decisions) - 1,
            effect,
        )
        self.sent.append(sent)
        self._known[effect.run, effect.sequence, effect.direction, effect.attempt] = sent
        if isinstance(reaction.ending, ReplyMessage):
            sent.outcome = reaction.ending.outcome
            sent.error = ": ".join(filter(None, (reaction.ending.error_type, reaction.ending.error_message)))
        return sent

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return (self.now_ms - self.started_ms) / 1000

    def waiting(self) -> Iterator[Sent]:
        """Commands whose step waits for an answer that is not on its way."""
        state = self.state
        flying = [flight.sent for flight in self.flights]
        for sent in self.sent:
            if sent.effect.run != state.run:
                continue
            step = state.steps[sent.sequence]
            undo = sent.direction == "undo"
            open_ = sent.sequence in (state.undo_open if undo else state.open)
            latest = sent.attempt == (step.undo_attempt if undo else step.attempt)
            if open_ and latest and sent.outcome is None and not any(each is sent for each in flying):
                yield sent


def reply_of(effect: CommandEffect, ending: ReplyMessage) -> msg.Reply:
    """A service's answer as the engine's input."""
    return msg.Reply(
        effect.saga_id,
        effect.run,
        effect.sequence,
        effect.direction == "undo",
        effect.attempt,
        ending.outcome,
        ending.payload,
        ending.error_type,
        ending.error_message,
        ending.retry_after_ms,
    )


def _text(payload: bytes) -> str:
    return payload.decode(errors="replace")
