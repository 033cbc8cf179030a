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
- The first reading, up to the end. What it found is replaced by the reading up to the claim.
- The report of a claim. An owner that has decided nothing may do no more than a writer that waits for the report.
- The end of an epoch as a state. A writer that stopped and has not claimed yet can do nothing, and its leftovers land
  as they may while it still believes in its epoch.
- A record that is lost. In order, landing one record loses those before it; a record that never lands is lost.

Faults: an accepted decision that was decided on another sequence than the one it follows; a confirmed decision that R
drops (and its effects are outside by then). With both excluded, what a writer has read and confirmed is a prefix of
the one accepted sequence, so no two writers' confirmed histories disagree.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .rule import CLAIM, DECISION, RULE, Rule

WRONG_BASE = "an accepted decision was decided on another history than the one it follows"
NOT_ACCEPTED = "a decision was confirmed, and its effects went out, but rule R drops it"
CUT_OFF = "a confirmed decision is no longer in the log"
EARLY = "effects went out for a decision that rule R drops"
FAULTS = (None, WRONG_BASE, NOT_ACCEPTED, CUT_OFF, EARLY)

OUT, CLAIMING, OWNER = range(3)
WIDTH = 16  # more than an epoch has decisions

# A claim in flight: (0, does its writer wait for it, head read before it, its nonce if that has a name by now).
# A decision in flight: (1, epoch, nonce, seq, the head it was decided on).
Item = tuple[int, ...]
# A decision that landed and was not reported yet: seq, distance from the claim, is it accepted
Landed = tuple[int, int, bool]


class Writer(NamedTuple):
    """What one writer knows. `epoch` is the number of its claim among those landed."""

    status: int = OUT
    epoch: int = 0
    nonce: int = 0
    age: int = 0  # distance from its claim to the end of the log
    base: int = 0  # the head it found when it read up to its claim
    sent: int = 0
    confirmed: int = 0
    last: int = 0  # distance of the decision confirmed last
    queue: tuple[Item, ...] = ()
    landed: tuple[Landed, ...] = ()


class State(NamedTuple):
    """The log as rule R sees it, and what all processes know and have in flight."""

    rule: Any
    head: int  # the last accepted decision
    claims: int  # claims landed
    left: int  # claims that may still be handed over
    twice: int  # records that may still land twice
    writers: tuple[Writer, ...]
    dead: tuple[tuple[Item, ...], ...] = ()  # queues of dead processes
    tail: int = 0  # the log's last record if it is an accepted decision, negative once that is confirmed
    fault: int = 0


def identity(epoch: int, seq: int) -> int:
    return epoch * WIDTH + seq + 1


@dataclass(frozen=True, slots=True)
class JournalModel:
    """The protocol under the given bounds; each switch breaks one rule.

    `claims` bounds the claims of all writers together, `decisions` those of one epoch, `pipeline` how many of them may
    be unconfirmed at once, `twice` how many records land twice. `confirmation` is `in order` (the protocol), `any ack`,
    `after the last` or `by offset`.
    """

    writers: int = 2
    claims: int = 3
    decisions: int = 3
    pipeline: int = 2
    twice: int = 0
    ordered: bool = True
    rule: Rule = RULE
    confirmation: str = "in order"
    reads_to_claim: bool = True
    claim_record: bool = True
    nonce_repeats: bool = False
    effects_early: bool = False
    truncation: bool = False

    def initial(self) -> State:
        return State(self.rule.start, 0, 0, self.claims, self.twice, (Writer(),) * self.writers)

    def key(self, state: State) -> Hashable:
        return (*state[:5], tuple(sorted(state.writers)), tuple(sorted(state.dead)), *state[7:])

    def fault(self, state: State) -> str | None:
        return FAULTS[state.fault]

    def steps(self, state: State) -> Iterator[tuple[Hashable, State]]:
        for place, writer in enumerate(state.writers):
            if state.left:
                yield from self._claim(state, place, writer)
            if writer.status == OWNER:
                yield from self._decide(state, place, writer)
                yield from self._confirm(state, place, writer)
            for index, item in enumerate(writer.queue):
                before = writer.queue[:index]
                if self.ordered or item not in before:  # out of order equal records land alike
                    rest = writer.queue[index + 1 :] if self.ordered else before + writer.queue[index + 1 :]
                    after = self._set(state, place, Writer(*writer[:8], rest, writer.landed))
                    yield from self._land(after, place, item)
        for place, queue in enumerate(state.dead):
            for index, item in enumerate(queue):
                rest = queue[index + 1 :]
                dead = (*state.dead[:place], *((rest,) if rest else ()), *state.dead[place + 1 :])
                yield from self._land(State(*state[:6], dead, state.tail, state.fault), None, item)
        if state.tail < 0:
            yield ("cut", 0, 0), State(*state[:8], FAULTS.index(CUT_OFF))

    def _set(self, state: State, place: int, writer: Writer) -> State:
        writers = (*state.writers[:place], writer, *state.writers[place + 1 :])
        return State(*state[:5], writers, *state[6:])

    def _claim(self, state: State, place: int, writer: Writer) -> Iterator[tuple[Hashable, State]]:
        """Hand over a claim, with a new nonce; what was in flight before is not waited for any more."""
        rule, head, claims, left = state[:4]
        if not self.claim_record:
            begun = State(rule, head, claims + 1, left - 1, *state[4:])
            owner = Writer(OWNER, claims + 1, claims + 1, base=head, queue=writer.queue)
            yield ("begins", place, 0), self._set(begun, place, owner)
            return
        old = tuple((0, 0, item[2], 0) if item[0] == 0 else item for item in writer.queue)
        claim = (0, 1, 0 if self.reads_to_claim else head, 0)
        queue = self._queued(old, claim)
        after = State(rule, head, claims, left - 1, *state[4:])
        nonce = writer.nonce if self.nonce_repeats else 0
        verb = "claims" if writer.status == OUT else "claims again"
        yield (verb, place, 0), self._set(after, place, Writer(CLAIMING, nonce=nonce, queue=queue))
        if self.ordered and old and not self.nonce_repeats:
            heir = self._set(after, place, Writer(CLAIMING, queue=(claim,)))
            yield ("restarts", place, 0), State(*heir[:6], (*heir.dead, old), heir.tail, heir.fault)

    def _queued(self, queue: tuple[Item, ...], item: Item) -> tuple[Item, ...]:
        return (*queue, item) if self.ordered else tuple(sorted((*queue, item)))

    def _decide(self, state: State, place: int, writer: Writer) -> Iterator[tuple[Hashable, State]]:
        """The next decision follows what was read up to the claim, or the owner's decision before it."""
        status, epoch, nonce, age, base, sent, confirmed, last, queue, landed = writer
        if sent < self.decisions and sent - confirmed < self.pipeline:
            follows = identity(epoch, sent - 1) if sent else base
            queue = self._queued(queue, (1, epoch, nonce, sent, follows))
            after = Writer(status, epoch, nonce, age, base, sent + 1, confirmed, last, queue, landed)
            yield ("decides", place, sent), self._set(state, place, after)

    def _confirm(self, state: State, place: int, writer: Writer) -> Iterator[tuple[Hashable, State]]:
        """A report with an offset comes for a decision that landed."""
        for index, (seq, distance, accepted) in enumerate(writer.landed):
            if not self._confirms(seq, distance, writer):
                continue
            rest = writer.landed[:index] + writer.landed[index + 1 :]
            after = Writer(*writer[:6], writer.confirmed + 1, distance, writer.queue, rest)
            tail = -state.tail if state.tail == identity(writer.epoch, seq) else state.tail
            fault = state.fault if accepted else FAULTS.index(NOT_ACCEPTED)
            yield ("confirms", place, seq), State(*self._set(state, place, after)[:7], tail, fault)

    def _confirms(self, seq: int, distance: int, writer: Writer) -> bool:
        """May the owner take this report, of a record `distance` behind its claim, for a confirmation?"""
        if self.confirmation == "any ack":
            return True
        if self.confirmation == "after the last":
            return distance == writer.last + 1
        if self.confirmation == "by offset":
            return distance == 1 + seq
        return seq == writer.confirmed and distance == 1 + seq

    def _land(self, state: State, place: int | None, item: Item) -> Iterator[tuple[Hashable, State]]:
        """The record reaches the log, once, or a second time later on."""
        label = ("lands" if place is not None else "lands late", place or 0, item)
        after = self._land_claim(state, place, item) if item[0] == 0 else self._land_decision(state, place, item)
        yield label, after
        if state.twice:
            again = (0, 0, 0, after.claims) if item[0] == 0 else item
            dead = (*after.dead, (again,))
            yield ("lands twice", place or 0, item), State(*after[:4], state.twice - 1, after.writers, dead, *after[7:])

    def _grown(self, state: State) -> list[Writer]:
        """Everybody's claim is one record further from the end."""
        most = self.decisions + 1
        return [
            Writer(w.status, w.epoch, w.nonce, min(w.age + 1, most), *w[4:]) if w.status == OWNER else w
            for w in state.writers
        ]

    def _land_claim(self, state: State, place: int | None, item: Item) -> State:
        """The claim becomes current under R; its writer, if it still waits, reads up to it and owns the log."""
        rule, head, claims, left, twice, writers, dead, _, fault = state
        claims += 1
        nonce = item[3] or claims
        grown = self._grown(state)
        if place is not None:
            own = writers[place]
            if self.nonce_repeats and own.nonce:
                nonce = own.nonce
            if item[1]:
                base = head if self.reads_to_claim else item[2]
                grown[place] = Writer(OWNER, claims, nonce, base=base, queue=own.queue)
            elif self.nonce_repeats:
                grown[place] = grown[place]._replace(nonce=nonce)
        rule, _ = self.rule.accept(rule, CLAIM, nonce, 0)
        return State(rule, head, claims, left, twice, tuple(grown), dead, 0, fault)

    def _land_decision(self, state: State, place: int | None, item: Item) -> State:
        """R gives its verdict; an owner that waits for the record may hear of it from now on."""
        rule, head, claims, left, twice, writers, dead, _, fault = state
        _, epoch, nonce, seq, follows = item
        grown = self._grown(state)
        rule, accepted = self.rule.accept(rule, DECISION, nonce, seq)
        if accepted:
            fault = fault if follows == head else FAULTS.index(WRONG_BASE)
            head = identity(epoch, seq)
        elif self.effects_early:
            fault = FAULTS.index(EARLY)
        if place is not None and writers[place].status == OWNER and writers[place].epoch == epoch:
            own = grown[place]
            grown[place] = Writer(*own[:9], (*own.landed, (seq, own.age, accepted)))
        tail = head if accepted and self.truncation else 0
        return State(rule, head, claims, left, twice, tuple(grown), dead, tail, fault)

    def describe(self, state: State, label: Hashable, after: State) -> str:
        assert isinstance(label, tuple)
        verb, place, what = label
        who = f"writer {place + 1}"
        if isinstance(what, int):
            return {
                "cut": "the log loses its last record, which had been acknowledged",
                "claims": f"{who} reads to the end and hands over a claim",
                "claims again": f"{who} gives its epoch up (error, timeout, missing offset or gap), reads to the end "
                "and hands over a claim",
                "restarts": f"{who} dies and starts again with a claim; what it had in flight may still land",
                "begins": f"{who} reads to the end and takes over without a claim",
                "decides": f"{who} decides r{what} and hands it over",
                "confirms": f"{who} hears that r{what} landed, with an offset, and confirms it",
            }[verb]
        whose = "a dead process" if verb == "lands late" else who
        once_more = ", and will land once more" if verb == "lands twice" else ""
        if what[0] == 0:
            verdict = "for rule R nothing changes" if after.rule == state.rule else f"epoch {after.claims}"
            return f"a claim of {whose} lands{once_more}: {verdict}"
        verdict = "accepted" if after.head == identity(what[1], what[3]) != state.head else "dropped by rule R"
        return f"r{what[3]} of {whose}, epoch {what[1]}, lands{once_more}: {verdict}"
