"""What becomes of a command, given what its unit has recorded: pure functions, the same for ledger and SQL inbox.

The unit of order is (saga, run, sequence); its memory is one `Entry`. The rules, as in the design:

(a) A recorded success answers every attempt. A recorded failure or retry answers only attempts up to its own: a higher
    one is a question that was not asked yet, and runs again.
(b) After an `undo` was seen, whatever its outcome, a `do` runs no more. An `undo` runs unless its own success (or, by
    (a), an outcome of this attempt) is recorded, whether the `do` is known or not. It waits until a running `do` ended.
(c) A command too old to be judged does not run: the memory of an `undo` that came before it may be gone by now.
(d) What is recorded as pending answers every attempt by silence, and remembers the highest: that is the one which its
    completion answers. An `undo` does not wait for it. Behind the `undo` a completion is recorded and told to nobody.

What a refused command is answered: always `retry`. `failure` would assert that no execution under the key had an
effect, and a memory that lacks the unit, or holds it as ended by `retry`, cannot assert that. `retry` asserts nothing:
if the step is still open its owner sends the next attempt, with a new `sent-at`, which is judged afresh; if the step is
undone or ended the answer is only recorded. So refusing costs at most a round trip, and can lose no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from hmac import compare_digest
from typing import NamedTuple

from orchestrator.model.messages import Outcome
from orchestrator.wire.commands import CommandMessage, Ending, Postponed, ReplyMessage


class Recorded(NamedTuple):
    """What counts for one direction of a unit, and the attempt it came from."""

    attempt: int
    reply: Ending


class Entry(NamedTuple):
    """What a unit's memory holds. `undone`: an `undo` was seen, even if the outcome recorded for it says `retry`."""

    do: Recorded | None = None
    undo: Recorded | None = None
    undone: bool = False


class Answer(NamedTuple):
    """It is recorded: reply without running anything, to `attempt` if that is another one than the command's own."""

    reply: ReplyMessage
    attempt: int = 0


class Refuse(NamedTuple):
    """It must not run, and nothing recorded answers it."""

    reply: ReplyMessage


@dataclass(frozen=True, slots=True)
class Run:
    """Run the handler. `unsure`: an earlier execution under this key ended in a way that may have had an effect."""

    unsure: bool


class Keep(NamedTuple):
    """To be recorded for `attempt` without running anything; its owner hears of it if `told`."""

    attempt: int
    reply: Ending
    told: bool


@dataclass(frozen=True, slots=True)
class Ignore:
    """There is nothing to be done, and nothing to be said yet."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A completion of what is not pending here: a dead letter."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The unit is busy: judge the command when its turn comes."""


Decision = Answer | Refuse | Run | Keep | Ignore | Reject | Wait

RUN, RUN_UNSURE, IGNORE, REJECT, WAIT = Run(False), Run(True), Ignore(), Reject(), Wait()
UNDONE = Refuse(ReplyMessage(Outcome.RETRY, error_type="Undone", error_message="the step's undo was seen before"))
EXPIRED = Refuse(
    ReplyMessage(Outcome.RETRY, error_type="Expired", error_message="sent longer ago than the memory can judge")
)
OVERDUE = Refuse(
    ReplyMessage(Outcome.RETRY, error_type="DeadlineExceeded", error_message="the deadline passed before it was run")
)
NOTHING = Entry()


def decide(
    command: CommandMessage,
    entry: Entry | None,
    *,
    busy: bool = False,
    appended_ms: int = 0,
    now_ms: int = 0,
    retention_ms: int | None = None,
) -> Decision:
    """What becomes of `command`. `retention_ms`: how long the memory keeps an entry; None: for ever."""
    if busy:
        return WAIT
    if command.completion is not None:
        return _complete(command, command.completion, entry or NOTHING)
    undo = command.direction == "undo"
    known: Recorded | None = None
    if entry is not None:
        known = entry.undo if undo else entry.do
        if known is not None and (known.reply.outcome is Outcome.SUCCESS or command.attempt <= known.attempt):
            return IGNORE if isinstance(known.reply, Postponed) else Answer(known.reply)
        if not undo and entry.undone:
            return UNDONE
        if known is not None and isinstance(known.reply, Postponed):
            return Keep(command.attempt, known.reply, False)
    if retention_ms is not None and too_old(command, appended_ms, now_ms, retention_ms):
        return EXPIRED
    if not undo and missed(command, now_ms):
        return OVERDUE
    return RUN_UNSURE if known is not None and known.reply.outcome is Outcome.RETRY else RUN


def _complete(command: CommandMessage, completion: ReplyMessage, entry: Entry) -> Decision:
    """The first completion of what is pending counts; a repeat is answered, for the first may not have been."""
    undo = command.direction == "undo"
    known = entry.undo if undo else entry.do
    if known is None:
        return REJECT
    undone = entry.undone and not undo
    if isinstance(known.reply, Postponed):
        genuine = compare_digest(known.reply.token, command.reply_token)
        return Keep(known.attempt, completion, not undone) if genuine else REJECT
    return IGNORE if undone else Answer(known.reply, known.attempt)


def too_old(command: CommandMessage, appended_ms: int, now_ms: int, retention_ms: int) -> bool:
    """Rule (c): older than half the retention, at its append or now.

    A late `do` was sent before the undo it must not follow. If it is younger than half the retention then so is the
    undo's entry; the other half is for clocks that differ. Without `sent-at` the append counts as the sending.
    """
    sent_ms = command.sent_at_ms or appended_ms
    return 2 * (max(appended_ms, now_ms) - sent_ms) > retention_ms


def missed(command: CommandMessage, now_ms: int) -> bool:
    """Whether nobody waits for a `do` any more. An `undo` has to happen whenever; its deadline never stops it."""
    return command.deadline_ms is not None and now_ms > command.deadline_ms


def record(entry: Entry | None, undo: bool, attempt: int, reply: Ending) -> Entry:
    """The memory after one more outcome: success stays, else the highest attempt counts. Repeating one is harmless."""
    entry = entry or NOTHING
    known = entry.undo if undo else entry.do
    success = Outcome.SUCCESS
    if known is not None and (
        known.reply.outcome is success or (known.attempt > attempt and reply.outcome is not success)
    ):
        return entry
    recorded = Recorded(attempt, reply)
    return Entry(entry.do, recorded, True) if undo else Entry(recorded, entry.undo, entry.undone)


def soften(reply: ReplyMessage) -> ReplyMessage:
    """A failure found without running the handler, where an earlier execution may have had its effect: `retry`."""
    return reply._replace(outcome=Outcome.RETRY) if reply.outcome is Outcome.FAILURE else reply
