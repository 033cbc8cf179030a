"""The participants' side of the effect channel, for one unit of order: the commands of one step, `do` then `undo`.

What is modelled. The unit's commands stand in the order in which they landed; the newest instance works on them one
after the other from the committed offset on. It answers from its memory, or runs the handler, which ends with success,
with failure (only if no execution under the key had an effect, that is what failure asserts), with `retry` and an
effect, or with `retry` and none; records the outcome; replies; may commit. Between any two of these an instance may be
*replaced*: one that died never acts again, one that was only revoked goes on as far as the rules let it. A commit may
come at any time after the reply, or never.

Why one unit is enough. Units share an instance and a committed offset. Here each has its own, so another unit can only
hold a commit back, which is a commit that comes later; a death takes all units at once, which is one for each.

The ledger. A record of the newest claim is accepted; once a new instance has claimed, records of older instances drop,
so what an old instance had not recorded by then is never recorded. The new one knows what was accepted. The lease is
taken at its word: a replaced instance starts no handler, and the new one starts none while an old one runs; whether
clocks and limits deliver that is not asked here. Answers from an old instance's memory go on all the same.

The SQL inbox. Effect and row are one commit, done at the handler's end; it looks at the row again, which is what a
unique key and its lock give. Instances are not told apart: everybody may start anything at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .effect_rules import FAILURE, FREE, OUTCOMES, PROGRESS, RETRY, SUCCESS, UNDO, Rules, attempt_of, name

IDLE, RUNNING, ENDED, RECORDED = range(4)
CLEAN, PRESENT, REVERSED = range(3)  # no effect of the do so far; one that no undo followed; undone after it
NEWEST, OLD, ASIDE, DEAD = range(4)  # ASIDE: a handler of the newest instance that runs beside its next command
NOWHERE = -1

DO_AFTER_UNDO, TWICE = 1, 2

Memory = tuple[int, int]  # what is known of do and of undo: outcome + WIDTH * attempt, or 0
WIDTH = 8


class Instance(NamedTuple):
    """Who works, at which command, how far."""

    role: int
    pos: int
    phase: int = IDLE
    cmd: int = 0
    outcome: int = 0
    joined: int = 0
    view: Memory = (0, 0)


class Unit(NamedTuple):
    """The commands not yet read by all, the instances, the memory, and the truth about the effect."""

    queue: tuple[int, ...]
    newest: Instance
    others: tuple[Instance, ...]
    memory: Memory
    effect: int
    replacements: int
    fault: int = 0


Replies = tuple[tuple[int, int], ...]
# progress or free, (verb, role, command, outcome), state after, replies that go out
UnitMove = tuple[bool, tuple[str, int, int, int], Unit, Replies]


def idle(rules: Rules) -> Unit:
    return Unit((), Instance(NEWEST, 0), (), (0, 0), CLEAN, rules.replacements)


def land(rules: Rules, unit: Unit, cmd: int) -> Unit:
    """A command is appended to the topic; where an undo goes to another service, that one acts at once."""
    if cmd & UNDO and not rules.undo_same_service:
        elsewhere = Instance(DEAD, NOWHERE, RECORDED, cmd, SUCCESS)
        unit = _act(rules, unit, cmd)
        return unit._replace(others=tuple(sorted((*unit.others, elsewhere))))
    return _tidy(rules, Unit((*unit.queue, cmd), *unit[1:]))


def unit_moves(rules: Rules, unit: Unit) -> Iterator[UnitMove]:
    yield from _work(rules, unit, unit.newest, None)
    for index, other in enumerate(unit.others):
        if index == 0 or other != unit.others[index - 1]:
            yield from _work(rules, unit, other, index)
    if unit.replacements:
        for committed in _commits(rules, unit):
            yield FREE, ("is replaced", NEWEST, 0, committed), _replace(rules, unit, committed), ()


def _commits(rules: Rules, unit: Unit) -> range:
    """Where a new instance may start: behind any command that is replied to, and so are all before it.

    Old instances may commit, too, ahead of the newest or behind it.
    """
    replied = unit.newest.pos - bool(unit.newest.joined)
    for other in unit.others:
        if other.role == ASIDE:
            replied = min(replied, other.pos)
        elif other.role == OLD:
            replied = max(replied, other.pos)
    if not rules.reply_before_commit and unit.newest.phase == RECORDED:
        replied += 1
    return range(replied + 1)


def _work(rules: Rules, unit: Unit, who: Instance, index: int | None) -> Iterator[UnitMove]:
    if who.phase == IDLE:
        yield from _take(rules, unit, who, index)
    elif who.phase == RUNNING:
        yield from _run(rules, unit, who, index)
    elif who.phase == ENDED:
        yield from _record(rules, unit, who, index)
    else:
        yield from _reply(rules, unit, who, index)


def _known(rules: Rules, view: Memory, cmd: int) -> int:
    """The recorded answer: success for every attempt, the rest up to its own; a do after an undo is refused."""
    if not cmd & UNDO and view[1] and rules.late_do_refused:
        return FAILURE
    record = view[1] if cmd & UNDO else view[0]
    outcome, attempt = record % WIDTH, record // WIDTH
    return outcome if outcome == SUCCESS or attempt_of(cmd) <= attempt else 0


def _noted(view: Memory, cmd: int, outcome: int) -> Memory:
    record = outcome + WIDTH * attempt_of(cmd)
    return (view[0], record) if cmd & UNDO else (record, view[1])


def _act(rules: Rules, unit: Unit, cmd: int) -> Unit:
    """The effect itself, outside of everything, and what is wrong about it."""
    if unit.effect == REVERSED and not cmd & UNDO:
        return unit._replace(fault=DO_AFTER_UNDO)
    effect = REVERSED if cmd & UNDO else PRESENT
    return unit._replace(effect=effect, fault=TWICE if rules.inbox and unit.effect == effect else unit.fault)


def _take(rules: Rules, unit: Unit, who: Instance, index: int | None) -> Iterator[UnitMove]:
    """Take the next command: answer it from memory, or start its handler if that is allowed."""
    if who.pos >= len(unit.queue):
        return
    kind = PROGRESS if index is None else FREE
    cmd = unit.queue[who.pos]
    outcome = _known(rules, unit.memory if rules.inbox else who.view, cmd)
    if outcome:
        after = _put(rules, unit, index, who._replace(pos=who.pos + 1))
        yield kind, ("answers", who.role, cmd, outcome), after, ((cmd, outcome),)
        return
    if cmd & UNDO and not rules.undo_always_runs and who.view[0] % WIDTH != SUCCESS:
        skipped = who._replace(phase=ENDED, cmd=cmd, outcome=SUCCESS)
        yield kind, ("skips the handler", who.role, cmd, 0), _put(rules, unit, index, skipped), ()
        return
    waits = who.role == OLD or any(other.role == OLD and other.phase == RUNNING for other in unit.others)
    if not waits or rules.inbox or not rules.lease:
        yield kind, ("starts", who.role, cmd, 0), _put(rules, unit, index, who._replace(phase=RUNNING, cmd=cmd)), ()


def _run(rules: Rules, unit: Unit, who: Instance, index: int | None) -> Iterator[UnitMove]:
    """The handler ends, or its process does; broken rules let the next command in meanwhile."""
    yield from _end(rules, unit, who, index)
    if who.role == OLD and rules.lease and not rules.inbox:
        yield PROGRESS, ("dies", OLD, who.cmd, 0), _put(rules, unit, index, None), ()
    if index is not None or who.pos + 1 >= len(unit.queue):
        return
    following = unit.queue[who.pos + 1]
    if not rules.attempts_wait and attempt_of(following) > attempt_of(who.cmd) and not who.joined:
        joined = who._replace(pos=who.pos + 1, joined=following)
        if not (following | who.cmd) & UNDO:
            yield FREE, ("joins", NEWEST, following, 0), _put(rules, unit, None, joined), ()
    if not rules.undo_waits and following & UNDO and not who.cmd & UNDO:
        yield FREE, ("starts beside", NEWEST, following, 0), _beside(rules, unit, who), ()


def _beside(rules: Rules, unit: Unit, who: Instance) -> Unit:
    """Let the newest instance start its next command while it is not through with this one."""
    newest = Instance(NEWEST, who.pos + 1, RUNNING, unit.queue[who.pos + 1], view=who.view)
    return _tidy(rules, unit._replace(newest=newest, others=(*unit.others, who._replace(role=ASIDE))))


def _end(rules: Rules, unit: Unit, who: Instance, index: int | None) -> Iterator[UnitMove]:
    """All ways in which a handler may end; with the inbox, only if nobody has put the row there meanwhile."""
    kind = PROGRESS if who.role in (NEWEST, ASIDE) else FREE
    known = _known(rules, unit.memory, who.cmd) if rules.inbox else 0
    if known:
        after = _put(rules, unit, index, who._replace(phase=RECORDED, outcome=known))
        yield kind, ("rolls back", who.role, who.cmd, known), after, ()
        return
    endings = [(SUCCESS, True), (RETRY, False)]
    if not who.cmd & UNDO and unit.effect == CLEAN:
        endings.append((FAILURE, False))
    if not rules.inbox:
        endings.append((RETRY, True))
    at_once = rules.inbox and rules.inbox_atomic
    for outcome, acts in endings:
        after = _act(rules, unit, who.cmd) if acts else unit
        if at_once and (outcome == SUCCESS or rules.inbox_keeps_failures):
            after = after._replace(memory=_noted(after.memory, who.cmd, outcome))
        ended = who._replace(phase=RECORDED if at_once else ENDED, outcome=outcome)
        verb = "ends with an effect" if acts else "ends with no effect"
        yield kind, (verb, who.role, who.cmd, outcome), _put(rules, after, index, ended), ()


def _record(rules: Rules, unit: Unit, who: Instance, index: int | None) -> Iterator[UnitMove]:
    """The outcome is accepted by the ledger; a dead instance's record, where it still counts, is all that is left."""
    kind = PROGRESS if who.role in (NEWEST, ASIDE) else FREE
    after = unit._replace(memory=_noted(unit.memory, who.cmd, who.outcome))
    if who.role == ASIDE and not rules.inbox:
        after = after._replace(newest=unit.newest._replace(view=_noted(unit.newest.view, who.cmd, who.outcome)))
    done = who._replace(phase=RECORDED, view=_noted(who.view, who.cmd, who.outcome))
    verb = ("records", who.role, who.cmd, who.outcome)
    yield kind, verb, _put(rules, after, index, None if who.role == DEAD else done), ()
    if not rules.ledger_first and who.role != DEAD:
        yield FREE, ("replies", who.role, who.cmd, who.outcome), unit, ((who.cmd, who.outcome),)
    if not rules.recorded_before_undo and index is None and not who.cmd & UNDO:
        following = unit.queue[who.pos + 1 : who.pos + 2]
        if following and following[0] & UNDO:
            yield FREE, ("starts beside", NEWEST, following[0], 0), _beside(rules, unit, who), ()


def _reply(rules: Rules, unit: Unit, who: Instance, index: int | None) -> Iterator[UnitMove]:
    kind = FREE if who.role == OLD else PROGRESS
    replies: Replies = ((who.cmd, who.outcome),)
    if who.joined:
        replies = (*replies, (who.joined, who.outcome))
    rest = None if who.pos == NOWHERE or who.role == ASIDE else Instance(who.role, who.pos + 1, view=who.view)
    yield kind, ("replies", who.role, who.cmd, who.outcome), _put(rules, unit, index, rest), replies


def _put(rules: Rules, unit: Unit, index: int | None, who: Instance | None) -> Unit:
    """The unit with one instance changed, or gone."""
    if index is None:
        assert who is not None
        return _tidy(rules, Unit(unit.queue, who, *unit[2:]))
    changed = () if who is None else (who,)
    others = (*unit.others[:index], *changed, *unit.others[index + 1 :])
    return _tidy(rules, Unit(unit.queue, unit.newest, others, *unit[3:]))


def _replace(rules: Rules, unit: Unit, committed: int) -> Unit:
    """A new instance claims, knows what is accepted by then, and starts at the committed offset."""
    old: list[Instance] = []
    for who in (unit.newest, *unit.others):
        if who.role in (OLD, DEAD):
            old.append(who)
        elif rules.zombies:
            old.append(who._replace(role=OLD, pos=NOWHERE if who.role == ASIDE else who.pos))
        elif who.phase == ENDED:
            old.append(who._replace(role=DEAD, pos=NOWHERE))
    newest = Instance(NEWEST, committed, view=(0, 0) if rules.inbox else unit.memory)
    left = unit.replacements - 1
    return _tidy(rules, unit._replace(replacements=left, newest=newest, others=tuple(old)))


def _tidy(rules: Rules, unit: Unit) -> Unit:
    """Forget what makes no difference any more: idle old instances, commands that nobody will read again."""
    queue, newest, others = unit[:3]
    if others:
        others = tuple(sorted(who for who in others if _matters(rules, unit, who)))
    if unit.replacements:
        return unit if others == unit.others else Unit(queue, newest, others, *unit[3:])
    first = min(newest.pos, *(who.pos for who in others if who.pos != NOWHERE), len(queue))
    if first:
        newest = newest._replace(pos=newest.pos - first)
        others = tuple(who if who.pos == NOWHERE else who._replace(pos=who.pos - first) for who in others)
    return Unit(queue[first:], newest, others, *unit[3:])


def _matters(rules: Rules, unit: Unit, who: Instance) -> bool:
    """May this instance still do anything that others notice?"""
    if who.phase in (RUNNING, RECORDED) or who.role == ASIDE:
        return True
    if who.phase == ENDED:
        return rules.inbox or not rules.ledger_claims
    if who.pos == NOWHERE:
        return False
    if rules.inbox or not rules.lease or unit.replacements:
        return True  # it may start a handler, or commit before the next replacement
    if who.view == (0, 0):
        return False
    return who.pos >= len(unit.queue) or _known(rules, who.view, unit.queue[who.pos]) != 0


WHO = ("the participant", "the replaced participant", "the earlier handler", "a dead participant, or another service,")


def tell_unit(move: UnitMove) -> str:
    """One move as a sentence."""
    _, (verb, role, cmd, outcome), _, _ = move
    who = WHO[role]
    if verb == "is replaced":
        verbs = "is" if outcome == 1 else "are"
        return f"{who} dies or is revoked; a new one starts, {outcome} of the commands {verbs} committed"
    if verb == "records":
        return f"{who} records {OUTCOMES[outcome]} of {name(cmd)}"
    if verb in ("answers", "replies"):
        return f"{who} {verb} {OUTCOMES[outcome]} to {name(cmd)}{' from memory' if verb == 'answers' else ''}"
    if verb.startswith("ends"):
        return f"{who} ends {name(cmd)} with {OUTCOMES[outcome]} and {verb.removeprefix('ends with ')}"
    return {
        "starts": f"{who} starts {name(cmd)}",
        "starts beside": f"{who} starts {name(cmd)} before it is through with the command before",
        "joins": f"{who} lets {name(cmd)} join the running handler",
        "rolls back": f"{who} finds the row of {name(cmd)} and rolls back",
        "skips the handler": f"{who} skips the handler of {name(cmd)}",
        "dies": f"{who} dies in {name(cmd)}",
    }[verb]
