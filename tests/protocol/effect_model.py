"""The effect channel put together: owners, one unit of order a step, commands one way and replies the other.

The two sides touch in two places only: a command lands in a unit's queue, a reply lands in the engine's set. So each
side's moves are worked out once for each of its own states and numbered; a state of the whole is the numbers packed
into one integer. That is an encoding, not a reduction: every interleaving is visited.

Faults, checked in every state:

- a `do` has an effect after its `undo` had one;
- a step is recorded refused, and an effect of it is there, now or later: nobody will undo it;
- a step is recorded undone (so a saga that ended undone), and an effect of its `do` that no undo followed is there;
- nothing is under way any more, and an open effect has no answer: a command or a reply was lost. Timeouts would hide
  that, so they do not count as being under way, nor does anything else that may fail to happen;
- with the SQL inbox, two effects under one key.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from .effect_owner import OPEN, REFUSED, UNDOING, UNDONE, Owner, OwnerMove, begin, hear, owner_moves, tell_owner
from .effect_rules import Rules
from .effect_unit import PRESENT, Unit, UnitMove, idle, land, tell_unit, unit_moves

T = TypeVar("T", bound=Hashable)

DO_AFTER_UNDO = "a do had an effect after its undo"
TWO_EFFECTS = "one key has two effects"
REFUSED_EFFECT = "a refused step has an effect, which nobody will undo"
UNDONE_EFFECT = "an undone step has an effect again"
LOST = "nothing is under way, and an open effect has no answer"
ALL = frozenset({DO_AFTER_UNDO, TWO_EFFECTS, REFUSED_EFFECT, UNDONE_EFFECT, LOST})

BITS = 21
MASK = (1 << BITS) - 1


class Numbers(Generic[T]):
    """Values numbered in the order in which they are met."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self.numbers: dict[T, int] = {}

    def of(self, value: T) -> int:
        number = self.numbers.get(value)
        if number is None:
            number = self.numbers[value] = len(self.values)
            assert number <= MASK
            self.values.append(value)
        return number


Replies = tuple[tuple[int, int], ...]
# Is progress due, is an effect open, the statuses; then each move: what it adds to the state, step, what lands, itself.
OwnerEntry = tuple[bool, bool, tuple[int, ...], list[tuple[int, int, int, OwnerMove]]]
# Is progress due, what is wrong, the effect; then each move: what it adds to the number, replies, itself.
UnitEntry = tuple[bool, int, int, list[tuple[int, Replies, UnitMove]]]


class EffectModel:
    """`seeks` narrows the search to some faults: a broken rule often breaks several promises."""

    def __init__(self, rules: Rules, seeks: frozenset[str] = ALL) -> None:
        self.rules = rules
        self.seeks = seeks
        self._width = BITS * rules.steps
        self._owners: Numbers[Owner] = Numbers()
        self._units: Numbers[Unit] = Numbers()
        self._owner_entries: dict[int, OwnerEntry] = {}
        self._unit_entries: dict[int, UnitEntry] = {}
        self._landings: dict[tuple[int, int], int] = {}
        self._hearings: dict[tuple[int, int, Replies], int] = {}

    def initial(self) -> int:
        state = self._owners.of(begin(self.rules))
        unit = self._units.of(idle(self.rules))
        for _ in range(self.rules.steps):
            state = state << BITS | unit
        return state

    def key(self, state: int) -> int:
        return state

    def steps(self, state: int) -> list[tuple[Hashable, int]]:
        number = state >> self._width
        after: list[tuple[Hashable, int]] = []
        for more, step, cmd, move in self._owner(number)[3]:
            if cmd:
                old = state >> BITS * step & MASK
                after.append((move, state + more + (self._land(old, cmd) - old << BITS * step)))
            else:
                after.append((move, state + more))
        for step in range(self.rules.steps):
            shift = BITS * step
            for more, replies, unit_move in self._unit(state >> shift & MASK)[3]:
                if replies:
                    heard = self._hear(number, step, replies) - number << self._width
                    after.append(((step, unit_move), state + heard + (more << shift)))
                else:
                    after.append(((step, unit_move), state + (more << shift)))
        return after

    def fault(self, state: int) -> str | None:
        due, is_open, statuses, _ = self._owner(state >> self._width)
        for step, status in enumerate(statuses):
            unit_due, wrong, effect, _ = self._unit(state >> BITS * step & MASK)
            if wrong:
                return self._sought(DO_AFTER_UNDO if wrong == 1 else TWO_EFFECTS)
            if effect == PRESENT and status in (REFUSED, UNDONE):
                return self._sought(REFUSED_EFFECT if status == REFUSED else UNDONE_EFFECT)
            due = due or unit_due
        return self._sought(LOST) if is_open and not due else None

    def _sought(self, fault: str) -> str | None:
        return fault if fault in self.seeks else None

    def _owner(self, number: int) -> OwnerEntry:
        found = self._owner_entries.get(number)
        if found is None:
            owner = self._owners.values[number]
            moves = list(owner_moves(self.rules, owner))
            entries = [(self._owners.of(move[2]) - number << self._width, move[1][1], move[3], move) for move in moves]
            statuses = tuple(step.status for step in owner.steps)
            is_open = OPEN in statuses or UNDOING in statuses
            found = (any(move[0] for move in moves), is_open, statuses, entries)
            self._owner_entries[number] = found
        return found

    def _unit(self, number: int) -> UnitEntry:
        found = self._unit_entries.get(number)
        if found is None:
            unit = self._units.values[number]
            moves = list(unit_moves(self.rules, unit))
            entries = [(self._units.of(move[2]) - number, move[3], move) for move in moves]
            found = (any(move[0] for move in moves), unit.fault, unit.effect, entries)
            self._unit_entries[number] = found
        return found

    def _land(self, number: int, cmd: int) -> int:
        found = self._landings.get((number, cmd))
        if found is None:
            found = self._landings[number, cmd] = self._units.of(land(self.rules, self._units.values[number], cmd))
        return found

    def _hear(self, number: int, step: int, replies: Replies) -> int:
        found = self._hearings.get((number, step, replies))
        if found is None:
            owner = self._owners.values[number]
            for cmd, outcome in replies:
                owner = hear(self.rules, owner, step, cmd, outcome)
            found = self._hearings[number, step, replies] = self._owners.of(owner)
        return found

    def describe(self, state: int, label: Hashable, after: int) -> str:
        assert isinstance(label, tuple)
        if len(label) == 4:
            return tell_owner(self._owners.values[state >> self._width], label)
        step, move = label
        where = f"step {step + 1}: " if self.rules.steps > 1 else ""
        return where + tell_unit(move)
