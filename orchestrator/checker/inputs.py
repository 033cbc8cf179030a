"""C10, nothing that came in is lost: what the positions have passed was decided, or is rightly passed over.

A decision names the record that it took. Other records between two positions of a topic were passed over right after
the decision before, for positions go along with the next one: so what their owner knew is what the journal says up to
there. By that and by the record alone these are rightly passed over:

- what is among the dead letters, or was there before under another place because nobody could decide it;
- what was taken before: an input known by its id since its saga was forgotten last, and of what partitions send each
  other all but the next number;
- a query, whose sender asks again;
- an update that the saga cannot take as it stands, or whose sender was told so (an owner that ends may take the answer
  with it); and one that is known, for which nobody new waits;
- a client that would wait and does already, or is one too many;
- a heartbeat of an attempt that is not under way;
- what a saga that has ended, or that nobody knows, hears of its children, of its parent and of what it asked for.

What is not in the evidence is not asked about, for inputs are deleted in time and offsets have gaps; nor what lies
beyond the last position, which the next owner will read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from orchestrator.checker.evidence import Evidence, Raw, Verdict
from orchestrator.log.base import Record
from orchestrator.model import messages as msg
from orchestrator.model.events import Decision, Status
from orchestrator.model.ids import partition_of
from orchestrator.model.starts import MAX_WAITERS
from orchestrator.model.state import SagaState, StepStatus
from orchestrator.wire import headers as h
from orchestrator.wire.dead_letters import place_of
from orchestrator.wire.inputs import INBOX, INTERNAL, OPERATIONS, REPLIES, ROLES, read_input, read_passage

if TYPE_CHECKING:
    from orchestrator.checker.journal import Accepted

_MOST_HEADERS = h.MAX_HEADER_BYTES + h.PASSAGE_BYTES
_HEARD_IN_VAIN = (msg.ChildEnded, msg.ParentLeft, msg.Called)
"""What one saga has for another that may have ended, or be forgotten, by then."""


class Inputs:
    """Follows the walk through the journal: `moved` comes before a decision is applied, `applied` after it."""

    def __init__(self, evidence: Evidence, accepted: Accepted, verdict: Verdict) -> None:
        self._partitions = evidence.partitions
        self._topics: dict[str, Raw] = {
            INBOX: evidence.inbox,
            REPLIES: evidence.replies,
            INTERNAL: evidence.internal,
            OPERATIONS: evidence.operations,
        }
        self._walks: dict[tuple[int, str], _Walk] = {}
        self._accepted = accepted
        self._verdict = verdict
        self._letters = _Letters(evidence.dead_letters)
        self._answers = evidence.answers
        self._told: set[str] | None = None
        self._known: dict[tuple[int, str, str], int] = {}
        """By partition, saga and id what was taken, with how often its saga had been forgotten by then."""
        self._runs: dict[str, str] = {}
        """By saga its newest run."""
        self._untold: dict[int, list[str]] = {}
        """By partition the updates of which nobody was told what became of them, and whose owner goes on."""

    def moved(
        self, partition: int, before: Mapping[str, int], now: Mapping[str, int], decision: Decision | None = None
    ) -> None:
        """Positions go on to where they are `now`, with a mark or with a decision that is not applied yet."""
        for role, position in now.items():
            first = max(before.get(role, -1), 0)
            if position <= first:
                continue
            own = decision.source_offset if decision is not None and decision.source == role else -1
            caused = decision is not None and (decision.events or decision.message_id)
            if caused and own == first == position - 1:
                continue
            for record in self._walk(partition, role).between(first, position):
                if record.offset == own and caused:
                    continue
                problem = self._problem_of(partition, role, record, taken=record.offset == own)
                if problem:
                    self._verdict.blame("C10", f"{role} {partition} at {record.offset} was passed over: {problem}")

    def applied(self, partition: int, decision: Decision) -> None:
        """What is known from here on."""
        saga_id = decision.saga_id
        if decision.run:
            self._runs[saga_id] = decision.run
        if decision.message_id:
            self._known[partition, saga_id, decision.message_id] = self._times_forgotten(saga_id)

    def claimed(self, partition: int) -> None:
        """The owner has ended: what it had answered may be lost."""
        self._untold.pop(partition, None)

    def ended(self, partition: int) -> None:
        """The partition's journal ends here."""
        for problem in self._untold.pop(partition, ()):
            self._verdict.blame("C10", problem)

    def _walk(self, partition: int, role: str) -> _Walk:
        walk = self._walks.get((partition, role))
        if walk is None:
            walk = self._walks[partition, role] = _Walk(iter(self._topics[role].get(partition, ())))
        return walk

    def _times_forgotten(self, saga_id: str) -> int:
        return len(self._accepted.forgotten.get(saga_id, ()))

    def _state_of(self, saga_id: str) -> SagaState | None:
        """Of the newest run, None where the saga is not known, or not any more."""
        run = self._runs.get(saga_id)
        if run is None:
            return None
        state = self._accepted.histories[saga_id, run].state
        return None if state.forgotten or state.phase is Status.NOT_STARTED else state

    def _problem_of(self, partition: int, role: str, record: Record, *, taken: bool) -> str:
        """Why a record may not be passed over, empty where it may. `taken`: by a decision in which nothing happened."""
        if self._letters.has(record):
            return ""
        try:
            headers = h.read_headers(record.headers, _MOST_HEADERS)
            if role == INTERNAL and not taken:
                passage = read_passage(headers)
                if passage.counter != self._accepted.taken[passage.source, partition] + 1:
                    return ""
                return f"it is number {passage.counter} from partition {passage.source}, which is the next"
            given = read_input(role, record, headers)
        except h.MalformedMessage as error:
            return f"nobody can read it ({error}), and it is not among the dead letters"
        what = f"{type(given).__name__} of {given.saga_id!r}"
        if not isinstance(given, msg.SetPauseRule) and partition_of(given.saga_id, self._partitions) != partition:
            return f"{what} belongs to another partition"
        if isinstance(given, msg.Query) or self._says_nothing(partition, given):
            return ""
        place = f"{role} {partition} at {record.offset}"
        if isinstance(given, msg.Update) and self._is_refused(partition, given, place):
            return ""
        return "" if self._letters.has_input(given) else what

    def _says_nothing(self, partition: int, given: msg.Input | msg.SetPauseRule) -> bool:
        """Whether there is nothing about it to decide."""
        saga_id, memory = given.saga_id, msg.memory_of(given)
        state = None if not saga_id else self._state_of(saga_id)
        if isinstance(given, msg.Update) and state is not None and given.update_id in state.updates:
            waits = state.asked.get(state.updates[given.update_id], ())
            return given.reply_to is None or given.reply_to in waits
        if memory and self._known.get((partition, saga_id, memory)) == self._times_forgotten(saga_id):
            return True
        if isinstance(given, _HEARD_IN_VAIN):
            return state is None or (state.ended and not isinstance(given, msg.ParentLeft))
        if state is None:
            return False
        if isinstance(given, msg.Attach):
            return not state.ended and (given.reply_to in state.waiters or len(state.waiters) >= MAX_WAITERS)
        return isinstance(given, msg.Reply) and _is_late_heartbeat(given, state)

    def _is_refused(self, partition: int, given: msg.Update, place: str) -> bool:
        """Whether its sender may have been told that an update is not taken.

        Where the reason is in the saga's code, or in what its owner has of it, the answer shows it, or the owner's end.
        """
        if given.reply_to is None:
            return False
        state = self._state_of(given.saga_id)
        if state is None and not given.saga_type:
            return True
        if state is not None and _takes_no_update(state, given):
            return True
        if self._told is None:
            self._told = set(_refused(self._answers))
        if given.reply_to.correlation_id not in self._told:
            self._untold.setdefault(partition, []).append(
                f"{place} was passed over: an update of {given.saga_id!r}, and nobody was told"
            )
        return True


class _Walk:
    """Through one partition of one topic, once."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self._next = next(records, None)

    def between(self, first: int, end: int) -> Iterator[Record]:
        while self._next is not None and self._next.offset < end:
            record, self._next = self._next, next(self._records, None)
            if record.offset >= first:
                yield record


class _Letters:
    """The dead letters by where they stood, and by what they say."""

    def __init__(self, letters: Raw) -> None:
        self._letters = letters
        self._places = {place_of(dict(record.headers)) for records in letters.values() for record in records}
        self._inputs: list[object] | None = None

    def has(self, record: Record) -> bool:
        return (record.topic, record.partition, record.offset) in self._places

    def has_input(self, given: object) -> bool:
        """Whether the same stands there from another place."""
        if self._inputs is None:
            self._inputs = list(self._read())
        return given in self._inputs

    def _read(self) -> Iterator[object]:
        for letter in (letter for letters in self._letters.values() for letter in letters):
            place = place_of(dict(letter.headers))
            if place is None:
                continue
            topic, partition, offset = place
            record = letter._replace(topic=topic, partition=partition, offset=offset)
            for role in ROLES:
                try:
                    yield read_input(role, record, h.read_headers(record.headers, _MOST_HEADERS))
                except h.MalformedMessage:
                    continue


def _is_late_heartbeat(given: msg.Reply, state: SagaState) -> bool:
    if given.outcome is not msg.Outcome.HEARTBEAT or not state.is_own(given.run, given.sequence):
        return False
    step = state.steps.get(given.sequence)
    waited_for = step is not None and step.status is StepStatus.RUNNING and step.attempt == given.attempt
    return state.ended or given.undo or not waited_for


def _takes_no_update(state: SagaState, given: msg.Update) -> bool:
    """Whether the run is none that can be asked for this now."""
    other = given.saga_type not in ("", state.saga_type)
    held = bool(state.parked) or state.paused is not None or state.begin_ms is not None
    return other or state.ended or held or state.phase is not Status.RUNNING


def _refused(answers: Raw) -> Iterator[str]:
    """The correlation ids of what was refused."""
    for records in answers.values():
        for record in records:
            found = dict(record.headers)
            if found.get("saga-status") == b"REFUSED":
                yield found.get(h.CORRELATION_ID, b"").decode(errors="replace")
