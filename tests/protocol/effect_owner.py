"""The owners' side of the effect channel: the engine's rules, the journal, what is sent, marked and sent again.

What is modelled. The journal accepts only the decisions of the newest owner (the other search shows that), so engine
and journal are one state, and a take-over is one step: what the new owner reads is what was decided. Each effect of an
open step is, for the newest owner, unsent, acknowledged, or settled (never to be sent again). Sending and its ack are
one step: all that depends on an ack is the mark, and how far the marks had come is chosen at the take-over, where they
are read.

Everything that goes wrong on the way is a *late copy*: of each issued command one may land at any time, once or never.
It stands for a produce error whose record lands all the same, for a lost ack (the copy lands, then the owner sends
again), and for an old owner that still sends what it had confirmed; a take-over lets a copy of everything unsent land
once more. The order of sends is free: an effect whose produce failed comes behind later ones anyhow.

Replies wait in a set until the engine takes them, in any order; one that can never count again is forgotten at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from .effect_rules import FAILURE, FREE, PROGRESS, RETRY, SUCCESS, UNDO, Rules, attempt_of, name

NEW, OPEN, DONE, REFUSED, UNKNOWN, UNDOING, UNDONE, PARKED = range(8)
SETTLED, UNSENT, ACKNOWLEDGED = range(3)
FORWARD, BACKWARD, ENDED = range(3)


class Step(NamedTuple):
    """One step as the journal shows it, and what its owner has still to send of it."""

    status: int = NEW
    attempt: int = 0  # the highest issued in this direction
    replies: int = 0
    sends: tuple[int, ...] = ()  # by attempt
    late: int = 0  # bit by command: a copy may still land
    epochs: tuple[tuple[int, int], ...] = ()  # (command, epoch of its decision), only where commands drop by epoch


class Owner(NamedTuple):
    """The engine's state of the saga. `top` is the highest epoch landed, only where commands drop by epoch."""

    phase: int
    takeovers: int
    copies: int  # how many late copies may still land
    top: int
    steps: tuple[Step, ...]


# progress or free, (verb, step, command), state after, command that lands or 0
OwnerMove = tuple[bool, tuple[str, int, int], Owner, int]


def begin(rules: Rules) -> Owner:
    steps = (Step(),) * rules.steps
    owner = Owner(FORWARD, rules.takeovers, rules.copies, 0, steps)
    first = range(rules.steps if rules.plan == "parallel" else 1)
    for index in first:
        owner = _set(owner, index, _issue(rules, owner, steps[index], OPEN, 1))
    return owner


def hear(rules: Rules, owner: Owner, index: int, cmd: int, outcome: int) -> Owner:
    """A reply lands. It is kept if the engine may ever act on it: success of any attempt, the rest of the highest."""
    step = owner.steps[index]
    if step.status != (UNDOING if cmd & UNDO else OPEN):
        return owner
    highest = attempt_of(cmd) == step.attempt
    if outcome == FAILURE and not cmd & UNDO:
        highest = highest or not rules.failure_of_highest_only
    if outcome != SUCCESS and not highest:
        return owner
    return _set(owner, index, step._replace(replies=step.replies | outcome))


def owner_moves(rules: Rules, owner: Owner) -> Iterator[OwnerMove]:
    for index, step in enumerate(owner.steps):
        yield from _send(rules, owner, index, step)
        if step.status == OPEN:
            yield from _take_reply(rules, owner, index, step)
        elif step.status == UNDOING:
            yield from _take_undo_reply(rules, owner, index, step)
        elif step.status in (DONE, UNKNOWN) and rules.plan == "free":
            yield FREE, ("undoes", index, 0), _set(owner, index, _issue(rules, owner, step, UNDOING, 1)), 0
        for cmd in range(1, 2 * UNDO):
            if step.late >> cmd & 1:
                yield FREE, ("late", index, cmd), *_land(rules, _spend(owner, index, cmd), index, cmd)
    if owner.takeovers:
        for after in _take_over(rules, owner):
            yield FREE, ("takes over", 0, 0), after, 0


def _spend(owner: Owner, index: int, cmd: int) -> Owner:
    """A late copy lands; with the last of them, what else was on its way is forgotten."""
    if owner.copies == 1:
        return owner._replace(copies=0, steps=tuple(step._replace(late=0) for step in owner.steps))
    step = owner.steps[index]
    return _set(owner._replace(copies=owner.copies - 1), index, step._replace(late=step.late & ~(1 << cmd)))


def _set(owner: Owner, index: int, step: Step) -> Owner:
    return owner._replace(steps=(*owner.steps[:index], step, *owner.steps[index + 1 :]))


def _issue(rules: Rules, owner: Owner, step: Step, status: int, attempt: int) -> Step:
    """Decide one more command; earlier attempts' failures and retries do not count any more."""
    cmd = attempt if status == OPEN else UNDO + attempt
    epochs = (*step.epochs, (cmd, rules.takeovers - owner.takeovers)) if rules.drops_by_epoch else ()
    earlier = step.sends if attempt > 1 else ()
    if rules.superseded:
        earlier = (SETTLED,) * len(earlier)
    kept = SUCCESS if rules.failure_of_highest_only else SUCCESS | FAILURE
    replies = step.replies & kept if attempt > 1 else 0
    late = step.late | 1 << cmd if owner.copies else 0
    return Step(status, attempt, replies, (*earlier, UNSENT), late, epochs)


def _close(owner: Owner, step: Step, status: int) -> Step:
    """The step leaves its direction; what was not sent is not open any more, but may be on its way."""
    late, undo = step.late, UNDO if step.status == UNDOING else 0
    for number, send in enumerate(step.sends, 1):
        if send == UNSENT:
            late |= 1 << (undo + number) if owner.copies else 0
    return step._replace(status=status, attempt=0, replies=0, sends=(), late=late)


def _land(rules: Rules, owner: Owner, index: int, cmd: int) -> tuple[Owner, int]:
    """What lands; nothing does where the topic holds a higher epoch and commands drop by epoch."""
    if not rules.drops_by_epoch:
        return owner, cmd
    epoch = dict(owner.steps[index].epochs)[cmd]
    return (owner, 0) if epoch < owner.top else (owner._replace(top=epoch), cmd)


def _send(rules: Rules, owner: Owner, index: int, step: Step) -> Iterator[OwnerMove]:
    """Send what is unsent. Without a take-over to come, being acknowledged makes no difference."""
    undo = UNDO if step.status == UNDOING else 0
    for number, send in enumerate(step.sends, 1):
        if send == UNSENT:
            new = ACKNOWLEDGED if owner.takeovers else SETTLED
            sends = (*step.sends[: number - 1], new, *step.sends[number:])
            sent = _set(owner, index, step._replace(sends=sends))
            yield PROGRESS, ("sends", index, undo + number), *_land(rules, sent, index, undo + number)


def _take_reply(rules: Rules, owner: Owner, index: int, step: Step) -> Iterator[OwnerMove]:
    """The outcomes of a do, and its timer. The policy may give up at any attempt, as a cancel does."""
    if step.replies & SUCCESS:
        yield from _decide(rules, owner, index, "is done", PROGRESS, _close(owner, step, DONE))
    if step.replies & FAILURE:
        yield from _decide(rules, owner, index, "is refused", PROGRESS, _close(owner, step, REFUSED))
    answered = bool(step.replies & RETRY)
    if step.attempt < rules.attempts:
        after = _set(owner, index, _issue(rules, owner, step, OPEN, step.attempt + 1))
        yield answered, ("tries again", index, step.attempt + 1), after, 0
    yield from _decide(rules, owner, index, "is unknown", answered, _close(owner, step, UNKNOWN))


def _take_undo_reply(rules: Rules, owner: Owner, index: int, step: Step) -> Iterator[OwnerMove]:
    """The outcomes of an undo, and its timer; when its attempts are used up the saga is parked."""
    if step.replies & SUCCESS:
        yield from _decide(rules, owner, index, "is undone", PROGRESS, _close(owner, step, UNDONE))
    answered = bool(step.replies & (FAILURE | RETRY))
    if step.attempt < rules.undo_attempts:
        after = _set(owner, index, _issue(rules, owner, step, UNDOING, step.attempt + 1))
        yield answered, ("tries again", index, UNDO + step.attempt + 1), after, 0
    elif answered:
        yield PROGRESS, ("is parked", index, 0), _set(owner, index, _close(owner, step, PARKED)), 0


def _decide(rules: Rules, owner: Owner, index: int, verb: str, kind: bool, step: Step) -> Iterator[OwnerMove]:
    """One decision: the step's outcome and what the saga does next, atomically."""
    owner = _set(owner, index, step)
    if rules.plan == "free":
        yield kind, (verb, index, 0), owner, 0
        return
    if owner.phase == FORWARD and all(other.status == DONE for other in owner.steps):
        yield kind, (verb + ", the saga completes", index, 0), owner._replace(phase=ENDED), 0
    yield kind, (verb, index, 0), _go_on(rules, owner), 0


def _go_on(rules: Rules, owner: Owner) -> Owner:
    """The next step; or, after a step that is not done or an abort after the last, undo in reverse order."""
    parallel = rules.plan == "parallel"
    if owner.phase == FORWARD:
        statuses = [step.status for step in owner.steps]
        if parallel and OPEN in statuses and REFUSED not in statuses and UNKNOWN not in statuses:
            return owner
        if NEW in statuses and set(statuses) <= {NEW, DONE}:
            index = statuses.index(NEW)
            return _set(owner, index, _issue(rules, owner, owner.steps[index], OPEN, 1))
        owner = owner._replace(phase=BACKWARD)
        for index, step in enumerate(owner.steps):
            if step.status == OPEN:
                owner = _set(owner, index, _close(owner, step, UNKNOWN))
    for index in reversed(range(len(owner.steps))):
        step = owner.steps[index]
        if step.status in (DONE, UNKNOWN):
            owner = _set(owner, index, _issue(rules, owner, step, UNDOING, 1))
        if owner.steps[index].status in (UNDOING, PARKED) and not parallel:
            return owner
    settled = all(step.status in (NEW, REFUSED, UNDONE) for step in owner.steps)
    return owner._replace(phase=ENDED) if settled else owner


def _take_over(rules: Rules, owner: Owner) -> Iterator[Owner]:
    """A new owner: what is open and not marked is unsent again; what the old one had not sent may land late."""
    choices = [list(_inherit(rules, owner, step)) for step in owner.steps]
    for steps in product(*choices):
        yield owner._replace(takeovers=owner.takeovers - 1, steps=steps)


def _inherit(rules: Rules, owner: Owner, step: Step) -> Iterator[Step]:
    """The step as its new owner has it, for each choice of what was marked among the acknowledged effects."""
    undo = UNDO if step.status == UNDOING else 0
    late, options = step.late, []
    for number, send in enumerate(step.sends, 1):
        if send == UNSENT:
            late |= 1 << (undo + number) if owner.copies else 0
        again = send != SETTLED and rules.resends and (rules.undo_resent or not undo)
        marked = send == ACKNOWLEDGED or not rules.marks_acknowledged
        options.append((UNSENT, SETTLED) if again and marked else (UNSENT,) if again else (SETTLED,))
    for sends in product(*options):
        yield step._replace(late=late, sends=sends)


def tell_owner(before: Owner, move: OwnerMove) -> str:
    """One move as a sentence."""
    _, (verb, index, cmd), after, landed = move
    many = len(after.steps) > 1
    of = f" of step {index + 1}" if many else ""
    if verb == "takes over":
        marked, unsent = [], []
        for place, step in enumerate(after.steps):
            for number, send in enumerate(step.sends, 1):
                cmd = number + (UNDO if step.status == UNDOING else 0)
                what = name(cmd) + (f" of step {place + 1}" if many else "")
                if send == UNSENT:
                    unsent.append(what)
                elif before.steps[place].sends[number - 1] == UNSENT:
                    marked.append(what)
        dropped = f"; not acknowledged, yet not to be sent again: {', '.join(marked)}" if marked else ""
        return f"a new owner takes over; to be sent again: {', '.join(unsent) or 'nothing'}{dropped}"
    if verb == "tries again":
        return f"the attempt is given up, {name(cmd)}{of} is decided"
    if verb == "undoes":
        return f"the undo{of} is decided"
    if cmd == 0:
        return f"the engine records: the step{f' {index + 1}' if many else ''} {verb}"
    fate = "it lands" if landed else "it lands and is dropped, a higher epoch stands before it"
    if verb == "sends":
        return f"the owner sends {name(cmd)}{of}: {fate}"
    return f"a copy of {name(cmd)}{of} was still on its way, from an old owner or after an error: {fate}"
