"""The journal protocol as a model: writers that claim, decide and confirm on one log.

What is modelled. Each writer may at any time claim, whoever else owns the log: group membership, leases and clocks are
left out, so nothing depends on them. A claim or decision is handed to the writer's producer and *lands* later, or
never. The writer hears of it later, or never, or hears an error although the record lands afterwards: whatever is not
a report with the right offset ends the epoch, so all of these are one step, *claims again*, and what is in flight
stays there. A writer whose process dies leaves its queue behind, free of the order of its successor's queue. A writer
that lost the log and does not know it simply goes on.

What the state leaves out, and why nothing is lost by it.

- The log itself. Rule R folds over it, so a record's verdict is fixed when it lands; the model keeps R's state and the
  identity of the last accepted record (`head`). A decision bears the head it was decided on, as `prev_hash` does. If
  each accepted decision bears the head it follows, then by induction a head stands for one whole accepted sequence.
- Absolute offsets. Only `offset == claim + 1 + n` is ever asked: each owner keeps the distance from its claim to the
  end of the log, and stops counting where no decision of its epoch can fit any more.
- Names of nonces. A nonce is named when its claim lands, by the number of claims landed so far; nobody but its writer
  knows it before. Writers then differ in nothing but their place, and the key sorts them.
- The report of a claim. An owner that has decided nothing may do no more than a writer that waits for the report.
- The end of an epoch as a state. A writer that stopped and has not claimed yet can do nothing, and its leftovers land
  as they may while it still believes in its epoch.
- A record that is lost. In order, landing one record loses those before it; a record that never lands is lost.

Faults: an accepted decision that was decided on another sequence than the one it follows; a confirmed decision that R
drops (and its effects are outside by then); with both excluded, what a writer has read and confirmed is a prefix of
the one accepted sequence, so no two writers' confirmed histories disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from .rule import CLAIM, DECISION, START, RuleState, accept

Accept = Callable[[RuleState, str, int, int], tuple[RuleState, bool]]
# A claim in flight: (0, does its writer wait for it, head read before). A decision: (1, epoch, nonce, seq, head).
Item = tuple[int, ...]
# status, epoch, nonce, age, base, sent, confirmed, last, queue, unreported (seq, distance, accepted)
Writer = tuple[int, int, int, int, int, int, int, int, tuple[Item, ...], tuple[tuple[int, int, bool], ...]]
# R's state, head, claims landed, claims left, writers, queues of dead processes, last record if accepted, fault
State = tuple[RuleState, int, int, int, tuple[Writer, ...], tuple[tuple[Item, ...], ...], int, int]

OUT, CLAIMING, OWNER = 0, 1, 2
WIDTH = 16  # more than any epoch has decisions: the identity of decision n of epoch e is e * WIDTH + n + 1
FAULTS = (
    "",
    "an accepted decision was decided on another history than the one it follows",
    "a decision was confirmed, and its effects went out, but rule R drops it",
    "a confirmed decision is no longer in the log",
    "effects went out for a decision that rule R drops",
)
NOBODY: Writer = (OUT, 0, 0, 0, 0, 0, 0, 0, (), ())


def needs_no_seq(state: RuleState, kind: str, nonce: int, seq: int) -> tuple[RuleState, bool]:
    """R without seq: whatever bears the current nonce is accepted."""
    return accept(state, kind, nonce, seq if kind == CLAIM else state[1])


def needs_no_claim(state: RuleState, kind: str, nonce: int, seq: int) -> tuple[RuleState, bool]:
    """R without claims: the first decision of a new nonce takes over."""
    if seq == 0:
        state, _ = accept(state, CLAIM, nonce, 0)
    return accept(state, kind, nonce, seq)


def forgets_nonces(state: RuleState, kind: str, nonce: int, seq: int) -> tuple[RuleState, bool]:
    """R that lets a nonce become current again."""
    return accept((state[0], state[1], frozenset()), kind, nonce, seq)


@dataclass(frozen=True, slots=True)
class JournalModel:
    """The protocol under the given bounds; each switch breaks one rule.

    `claims` bounds the claims of all writers together, `decisions` those of one epoch, `pipeline` how many of them may
    be unconfirmed at once. `confirmation` is `in order` (the protocol), `any ack`, `after the last` or `by offset`.
    """

    writers: int = 2
    claims: int = 4
    decisions: int = 3
    pipeline: int = 2
    ordered: bool = True
    accept: Accept = accept
    confirmation: str = "in order"
    reads_to_claim: bool = True
    claim_record: bool = True
    nonce_repeats: bool = False
    effects_early: bool = False
    truncation: bool = False

    def initial(self) -> State:
        return (START, 0, 0, self.claims, (NOBODY,) * self.writers, (), 0, 0)

    def key(self, state: State) -> Hashable:
        rule, head, landed, left, writers, dead, tail, fault = state
        return rule, head, landed, left, tuple(sorted(writers)), tuple(sorted(dead)), tail, fault

    def fault(self, state: State) -> str | None:
        return FAULTS[state[7]] or None

    def steps(self, state: State) -> Iterator[tuple[Hashable, State]]:
        rule, head, landed, left, writers, dead, tail, fault = state
        for place, writer in enumerate(writers):
            if left:
                yield from self._claim(state, place)
            if writer[0] == OWNER:
                yield from self._own(state, place)
            for index in self._landable(writer[8]):
                kept = writer[8][index + 1 :] if self.ordered else writer[8][:index] + writer[8][index + 1 :]
                rest = (*writers[:place], (*writer[:8], kept, writer[9]), *writers[place + 1 :])
                before = (rule, head, landed, left, rest, dead, tail, fault)
                yield ("lands", place, writer[8][index]), self._land(before, place, writer[8][index])
        for place, queue in enumerate(dead):
            for index, item in enumerate(queue):
                others = dead[:place] + dead[place + 1 :]
                rest_dead = (*others, queue[index + 1 :]) if index + 1 < len(queue) else others
                before = (rule, head, landed, left, writers, rest_dead, tail, fault)
                yield ("lands late", place, item), self._land(before, None, item)
        if tail < 0:
            yield ("cut",), (*state[:7], 3)

    def _landable(self, queue: tuple[Item, ...]) -> Iterator[int]:
        """Out of order, equal records land alike: the first stands for all."""
        for index, item in enumerate(queue):
            if self.ordered or queue.index(item) == index:
                yield index

    def _claim(self, state: State, place: int) -> Iterator[tuple[Hashable, State]]:
        """Read to the end and hand over a claim; what was in flight before is not waited for any more."""
        rule, head, landed, left, writers, dead, tail, _ = state
        status, _, nonce, _, _, _, _, _, queue, _ = writers[place]
        kept = nonce if self.nonce_repeats else 0
        if not self.claim_record:
            epoch = landed + 1
            new: Writer = (OWNER, epoch, epoch, 0, head, 0, 0, 0, queue, ())
            yield ("begins", place), self._with(state, place, new, landed=epoch)
            return
        left_over = tuple((0, 0, item[2]) if item[0] == 0 else item for item in queue)
        claim = (0, 1, 0 if self.reads_to_claim else head)
        queue = (*left_over, claim) if self.ordered else tuple(sorted((*left_over, claim)))
        verb = "claims" if status == OUT else "claims again"
        yield (verb, place), self._with(state, place, (CLAIMING, 0, kept, 0, 0, 0, 0, 0, queue, ()))
        if self.ordered and left_over and not self.nonce_repeats:
            heir = (CLAIMING, 0, 0, 0, 0, 0, 0, 0, (claim,), ())
            after = (rule, head, landed, left - 1, (*writers[:place], heir, *writers[place + 1 :]))
            yield ("restarts", place), (*after, (*dead, left_over), tail, 0)

    def _with(self, state: State, place: int, writer: Writer, landed: int | None = None) -> State:
        """The state after one more claim was handed over."""
        rule, head, before, left, writers, dead, tail, fault = state
        changed = (*writers[:place], writer, *writers[place + 1 :])
        return (rule, head, before if landed is None else landed, left - 1, changed, dead, tail, fault)

    def _own(self, state: State, place: int) -> Iterator[tuple[Hashable, State]]:
        """Decide, or hear of a decision that landed."""
        rule, head, landed, left, writers, dead, tail, fault = state
        _, epoch, nonce, age, base, sent, confirmed, last, queue, unreported = writers[place]
        if sent < self.decisions and sent - confirmed < self.pipeline:
            item = (1, epoch, nonce, sent, base if sent == 0 else epoch * WIDTH + sent)
            more = (*queue, item) if self.ordered else tuple(sorted((*queue, item)))
            writer: Writer = (OWNER, epoch, nonce, age, base, sent + 1, confirmed, last, more, unreported)
            changed = (*writers[:place], writer, *writers[place + 1 :])
            yield ("decides", place, sent), (rule, head, landed, left, changed, dead, tail, fault)
        for index, (seq, distance, accepted) in enumerate(unreported):
            if not self._confirms(seq, distance, confirmed, last):
                continue
            rest = unreported[:index] + unreported[index + 1 :]
            writer = (OWNER, epoch, nonce, age, base, sent, confirmed + 1, distance, queue, rest)
            changed = (*writers[:place], writer, *writers[place + 1 :])
            end = -tail if tail == epoch * WIDTH + seq + 1 else tail
            yield (
                ("confirms", place, seq),
                (rule, head, landed, left, changed, dead, end, fault if accepted else 2),
            )

    def _confirms(self, seq: int, distance: int, confirmed: int, last: int) -> bool:
        """May the owner take this report, of a record `distance` behind its claim, for a confirmation?"""
        if self.confirmation == "any ack":
            return True
        if self.confirmation == "after the last":
            return distance == last + 1
        if self.confirmation == "by offset":
            return distance == seq + 1
        return seq == confirmed and distance == seq + 1

    def _land(self, state: State, place: int | None, item: Item) -> State:
        """The record reaches the log: everybody's distance grows, R gives its verdict."""
        rule, head, landed, left, writers, dead, tail, fault = state
        most = self.decisions + 1
        grown = [(*w[:3], min(w[3] + 1, most), *w[4:]) if w[0] == OWNER else w for w in writers]
        own = None if place is None else writers[place]
        if item[0] == 0:
            landed += 1
            nonce = own[2] if own is not None and own[2] and self.nonce_repeats else landed
            rule, _ = self.accept(rule, CLAIM, nonce, 0)
            if own is not None and place is not None:
                if item[1]:
                    base = head if self.reads_to_claim else item[2]
                    grown[place] = (OWNER, landed, nonce, 0, base, 0, 0, 0, own[8], ())
                elif self.nonce_repeats:
                    grown[place] = (*grown[place][:2], nonce, *grown[place][3:])
            return (rule, head, landed, left, tuple(grown), dead, 0, fault)
        _, epoch, nonce, seq, decided_on = item
        rule, accepted = self.accept(rule, DECISION, nonce, seq)
        if accepted:
            fault = fault if decided_on == head else 1
            head = epoch * WIDTH + seq + 1
        elif self.effects_early:
            fault = 4
        if own is not None and place is not None and own[0] == OWNER and own[1] == epoch:
            now = grown[place]
            grown[place] = (*now[:9], (*now[9], (seq, now[3], accepted)))
        return (rule, head, landed, left, tuple(grown), dead, head if accepted and self.truncation else 0, fault)

    def describe(self, state: State, label: Hashable, after: State) -> str:
        assert isinstance(label, tuple)
        verb, *rest = label
        if verb == "cut":
            return "the log loses its last record, which had been acknowledged"
        who = f"writer {rest[0] + 1}"
        if verb in ("claims", "claims again"):
            why = "" if verb == "claims" else "gives its epoch up (error, timeout, missing offset or gap), "
            return f"{who} {why}reads to the end and hands over a claim"
        if verb == "restarts":
            return f"{who} dies and starts again with a claim; what it had in flight may still land"
        if verb == "begins":
            return f"{who} reads to the end and takes over without a claim"
        if verb == "decides":
            return f"{who} decides r{rest[1]} and hands it over"
        if verb == "confirms":
            return f"{who} hears of r{rest[1]}, an offset with it, and confirms it"
        if verb == "lands late":
            who = "a dead process"
        item = rest[1]
        if item[0] == 0:
            return f"a claim of {who} lands" + ("" if after[0] != state[0] else "; rule R ignores it")
        kept = "accepted" if after[1] == item[1] * WIDTH + item[3] + 1 else "dropped by rule R"
        return f"r{item[3]} of {who}, epoch {item[1]}, lands: {kept}"
