"""The fuzzer's world: several sagas on a few partitions, decided input by input and checked after every decision.

Each decision's events, read back from the journal, must make of a replica what the live state is; now and then a saga
is decided from its store, or by code that is replayed. What an input that is refused leaves behind is nothing.
"""

from __future__ import annotations

from collections import deque
from random import Random

from model.fuzz_entity import ENTITY, ENTITY_TYPE
from model.fuzz_plans import IDS, SAGA_TYPE, SIGNAL, plan_of, releases
from model.play import frozen
from orchestrator.checker.journal import History
from orchestrator.model import events as ev
from orchestrator.model import locks
from orchestrator.model import messages as msg
from orchestrator.model.decide import InputRejected, decide
from orchestrator.model.definition import Definition
from orchestrator.model.effects import Command, Message, effects_of
from orchestrator.model.evolve import evolve
from orchestrator.model.ids import partition_of
from orchestrator.model.messages import Outcome
from orchestrator.model.state import SagaState
from orchestrator.model.turn import Execution, Moment
from orchestrator.model.updates import UpdateRejected
from orchestrator.runtime.materialize import Gathered, changes_of, load_state
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStores
from orchestrator.wire.journal import DECISION_FINGERPRINT, Envelope, read_decision, write_decision

PARTITIONS = 3
_CONTINUES = 200
"""So many decisions that only go on where the last one stopped are too many."""
_NEVER_REJECTED = (
    msg.ChildEnded,
    msg.Called,
    msg.UndoChild,
    msg.ParentLeft,
    msg.TimerDue,
    msg.Continue,
    msg.CodeArrived,
    msg.Released,
)
"""What the engine itself sends, to sagas that must be able to take it."""
_WITHOUT_RUN = (ev.InputSent, ev.AttachRefused)


class World:
    """All sagas, what is under way between them and to their service, and what all partitions know of code and rules.

    `log` holds what came in and what it led to.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_ms = 1_000_000
        self.runs: dict[str, Execution] = {}
        self.histories: dict[tuple[str, str], History] = {}
        self.commands: list[Command] = []
        self.releases = releases(self.random.choice((None, None, 400)))
        self.trouble = self.random.choice((0.1, 0.3, 0.5))
        """The share of the service's answers that are no success."""
        self.code = [self.random.randrange(1, len(self.releases)) for _ in range(PARTITIONS)]
        self.open_circuits: set[str] = set()
        self.rules: set[str] = set()
        self.log: list[str] = []
        self._offsets = [10] * PARTITIONS
        self._sent: list[dict[str, int]] = [{} for _ in range(PARTITIONS)]
        self._post: dict[tuple[int, int], deque[msg.Input]] = {}
        self._store = MemoryStores().open(0)
        self._unwritten = Gathered()
        self._replicas: dict[str, SagaState] = {}
        self._replica_store = MemoryStores().open(0)
        self._messages = 0

    def message_id(self) -> str:
        self._messages += 1
        return f"m-{self._messages}"

    def some_id(self) -> str:
        return self.random.choice(sorted(self.runs) or IDS)

    def states(self) -> list[SagaState]:
        """Of all sagas, by id."""
        return [execution.state for _, execution in sorted(self.runs.items())]

    def close(self) -> None:
        for execution in self.runs.values():
            execution.detach()

    # -- what may happen next; each says whether it did

    def deliver(self) -> bool:
        """One message from a partition to another arrives, the next on its way."""
        ways = sorted(way for way, messages in self._post.items() if messages)
        if ways:
            self.take(self._post[self.random.choice(ways)].popleft())
        return bool(ways)

    def reply(self, *, well: bool = False) -> bool:
        """The service answers one of its commands."""
        if not self.commands:
            return False
        command = self.commands.pop(self.random.randrange(len(self.commands)))
        chance = self.random.random()
        if well or chance >= self.trouble:
            self.take(reply_to(command, Outcome.SUCCESS, b'"x"'))
        else:
            outcome = Outcome.FAILURE if chance < self.trouble / 3 else Outcome.RETRY
            self.take(reply_to(command, outcome, error_type="E"))
        return True

    def fire(self, *, forgets: bool = True) -> bool:
        """Time passes until the next timer, of sagas that have ended only if it `forgets`. False: nothing changes."""
        timers = [
            (due_ms, state.saga_id, sequence)
            for state in self.states()
            for sequence in (0, *state.steps)
            if (due_ms := state.due_of(sequence)) is not None and (forgets or not state.ended or state.continue_due)
        ]
        if not timers:
            return False
        due_ms, saga_id, sequence = min(timers)
        self.now_ms = max(self.now_ms + 1, due_ms)
        self.take(msg.TimerDue(saga_id, self.runs[saga_id].state.run, sequence, due_ms))
        return saga_id not in self.runs or self.runs[saga_id].state.due_of(sequence) != due_ms

    def deploy(self, partition: int, code: int) -> None:
        """The partition's owner has other code from here on, or none (0)."""
        self.code[partition] = code
        for state in self.states():
            if partition_of(state.saga_id, PARTITIONS) == partition:
                self.runs[state.saga_id].detach()
                if code and state.phase is ev.Status.WAITING_FOR_CODE:
                    self.take(msg.CodeArrived(state.saga_id, state.run))

    def lift(self, rule: str) -> None:
        """The rule stands no longer, and whoever was paused by it is let go of."""
        self.rules.discard(rule)
        for state in self.states():
            if state.paused is not None and state.paused.rule == rule:
                self.take(msg.Released(state.saga_id, state.run))

    def signal(self, saga_id: str) -> None:
        self.take(msg.Signal(saga_id, self.message_id(), SIGNAL, b'"s"'))

    # -- deciding

    def take(self, given: msg.Input) -> None:
        """Decides an input and whatever follows from its budget."""
        self._decide(given)
        for _ in range(_CONTINUES):
            execution = self.runs.get(given.saga_id)
            if execution is None or not execution.state.continue_due:
                return
            self._decide(msg.Continue(given.saga_id, execution.state.run))
        raise AssertionError(f"{given.saga_id} goes on for ever")

    def write(self) -> None:
        """The owners' states go to the store; it holds what the replicas' store does, and all timers."""
        self._store.write(self._unwritten.changes(self._store))
        self._unwritten = Gathered()
        owned, replicated = dict(self._store.scan(b"")), dict(self._replica_store.scan(b""))
        differing = sorted(key for key, _ in owned.items() ^ replicated.items())
        assert not differing, f"the stores differ in {differing[:6]}"
        timers = {keys.read_timer(key) for key in owned if key.startswith(keys.TIMERS)}
        assert timers == {
            (due_ms, state.saga_id, sequence)
            for state in self.states()
            for sequence in (0, *state.steps)
            if (due_ms := state.due_of(sequence)) is not None
        }
        assert timers == {(state.due_of(s), state.saga_id, s) for state in self.states() for s in state.timed}

    def _decide(self, given: msg.Input) -> None:
        partition = partition_of(given.saga_id, PARTITIONS)
        self._log(given)
        execution = self._owned(given.saga_id)
        before = None if execution is None else frozen(execution.state)
        moment = Moment(
            self.now_ms,
            1,
            self._offsets[partition],
            PARTITIONS,
            open_circuits=self.open_circuits,
            paused=sorted(self.rules),
            sent=self._sent[partition],
        )
        try:
            decided, events, run = decide(execution, self._code_for(given, execution), given, moment)
        except (InputRejected, UpdateRejected) as rejected:
            self.log.append(f"    rejected: {rejected}")
            after = None if execution is None else frozen(execution.state)
            _check_rejected(given, changed=before != after)
            return
        self._offsets[partition] += 1
        self.log.append(f"    {run}: {' '.join(_told(event) for event in events)}")
        if decided is not None and decided.state.forgotten:
            self.runs.pop(given.saga_id, None)
        elif decided is not None:
            self.runs[given.saga_id] = decided
        state = None if decided is None else decided.state
        decision = ev.Decision(given.saga_id, run, self.now_ms, events)
        self._replicate(decision, state)
        self._send(partition, decision, state)

    def _log(self, given: msg.Input) -> None:
        self.log.append(f"{self.now_ms} {given}"[:230])
        if isinstance(given, msg.Start) and given.saga_type == SAGA_TYPE:
            self.log.append(f"    plan: {plan_of(given.payload)}")

    def _owned(self, saga_id: str) -> Execution | None:
        """The saga as its owner has it: as it was left, without its live code, or read from the store."""
        execution = self.runs.get(saga_id)
        if execution is None:
            return None
        if self.random.random() < 0.3:
            execution.detach()
        if saga_id not in self._unwritten.runs and self.random.random() < 0.2:
            execution.detach()
            stored = load_state(self._store, saga_id)
            assert stored is not None
            assert frozen(stored) == frozen(execution.state), "the store holds another state than the live one"
            execution = self.runs[saga_id] = Execution(stored)
        return execution

    def _code_for(self, given: msg.Input, execution: Execution | None) -> Definition | None:
        """What the owner finds by the saga's type, which of one that did not start only its start says."""
        known = "" if execution is None else execution.state.saga_type
        saga_type = known or (given.saga_type if isinstance(given, msg.Start | msg.Update) else "")
        code = self.code[partition_of(given.saga_id, PARTITIONS)]
        if saga_type == SAGA_TYPE:
            return self.releases[code]
        return {ENTITY_TYPE: ENTITY if code else None, locks.LOCK: locks.DEFINITION}.get(saga_type)

    def _replicate(self, decision: ev.Decision, state: SagaState | None) -> None:
        """A replica applies what the journal holds, and comes to the same state."""
        assert not any(isinstance(event, ev.ContinueDue) for event in decision.events[:-1]), "nothing comes between"
        body = write_decision(decision)
        assert len(body) < 800 * 1024, "the decision does not fit a record"
        read = read_decision(Envelope(2, body_fingerprint=DECISION_FINGERPRINT, body=body))
        assert read == decision
        saga_id, run = decision.saga_id, decision.run
        if not run:
            assert all(isinstance(event, _WITHOUT_RUN) for event in decision.events), "events of no run"
            return
        assert state is not None
        replica = self._replicas.get(saga_id)
        if replica is None or replica.run != run:
            replica = SagaState(saga_id, run) if replica is None else replica.successor(run)
            self._replicas[saga_id] = replica
        partition = partition_of(saga_id, PARTITIONS)
        history = self.histories.setdefault((saga_id, run), History(saga_id, run, partition, replica))
        for event in read.events:
            evolve(replica, event, read.at_ms)
            history.events.append(event)
        assert frozen(replica) == frozen(state), "a replica comes to another state"
        self._replica_store.write(changes_of(replica))
        if replica.forgotten:
            del self._replicas[saga_id]
        self._unwritten.run(state, self._offsets[partition])
        if self.random.random() < 0.3:
            self.write()

    def _send(self, partition: int, decision: ev.Decision, state: SagaState | None) -> None:
        sent = self._sent[partition]
        for _, effect in effects_of(decision, state):
            if isinstance(effect, Message):
                target = str(effect.target)
                assert effect.counter == sent.get(target, 0) + 1, "no number is left out"
                assert effect.target == partition_of(effect.input.saga_id, PARTITIONS)
                sent[target] = effect.counter
                self._post.setdefault((partition, effect.target), deque()).append(effect.input)
            elif isinstance(effect, Command):
                self.commands.append(effect)


def reply_to(command: Command, outcome: Outcome, payload: bytes = b"", error_type: str = "") -> msg.Reply:
    """What the service says to a command."""
    undo = command.direction == "undo"
    return msg.Reply(
        command.saga_id, command.run, command.sequence, undo, command.attempt, outcome, payload, error_type
    )


def _check_rejected(given: msg.Input, *, changed: bool) -> None:
    assert not changed, "what was rejected changed something"
    assert not isinstance(given, _NEVER_REJECTED), "what the engine sent was rejected"
    assert not isinstance(given, msg.Start) or given.parent is None, "a child's start was rejected"
    asked = isinstance(given, msg.Update) and given.saga_type and given.reply_to is None
    assert not asked, "what a saga asks another one for was rejected"


def _told(event: ev.Event) -> str:
    sequence = getattr(event, "sequence", None)
    return f"{type(event).__name__}({sequence})" if sequence else type(event).__name__
