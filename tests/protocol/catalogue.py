"""What is searched: the protocols as they are, which must exhaust without a fault, and each rule broken on its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .effect_model import ALL, DO_AFTER_UNDO, LOST, REFUSED_EFFECT, TWO_EFFECTS, UNDONE_EFFECT, EffectModel
from .effect_rules import Rules
from .explorer import Outcome, explore
from .journal_model import CUT_OFF, EARLY, NOT_ACCEPTED, WRONG_BASE, JournalModel
from .rule import WITHOUT_CLAIMS, WITHOUT_MEMORY, WITHOUT_SEQ


@dataclass(frozen=True, slots=True)
class Case:
    """One search. With a `fault`, that is what it must find; without, nothing. `large` ones are not in the gate."""

    name: str
    model: JournalModel | Rules
    fault: str | None = None
    large: bool = False

    def search(self) -> Outcome:
        if isinstance(self.model, JournalModel):
            return explore(self.model)
        return explore(EffectModel(self.model, ALL if self.fault is None else frozenset({self.fault})))


JOURNAL = (
    Case("2 writers, in order", JournalModel()),
    Case("2 writers, any order", JournalModel(ordered=False)),
    Case("3 writers, in order", JournalModel(writers=3, decisions=2)),
    Case("a record lands twice", JournalModel(claims=2, twice=1)),
    Case("2 writers, in order, 4 claims", JournalModel(claims=4), large=True),
    Case("2 writers, in order, 4 claims, 3 in flight", JournalModel(claims=4, pipeline=3), large=True),
    Case("2 writers, any order, 4 claims", JournalModel(claims=4, ordered=False), large=True),
    Case("3 writers, in order, 3 decisions", JournalModel(writers=3), large=True),
    Case("3 writers, in order, 4 claims", JournalModel(writers=3, claims=4, decisions=2), large=True),
    Case("3 writers, any order", JournalModel(writers=3, ordered=False), large=True),
    Case("a record lands twice, 3 claims", JournalModel(twice=1), large=True),
    Case("a record lands twice, any order, 3 claims", JournalModel(twice=1, ordered=False, decisions=2), large=True),
)

JOURNAL_BROKEN = (
    Case("trust the ack alone", JournalModel(confirmation="any ack"), NOT_ACCEPTED),
    Case("contiguity as last + 1, not tied to seq", JournalModel(confirmation="after the last"), NOT_ACCEPTED),
    Case("claim + 1 + seq without the in-order prefix", JournalModel(confirmation="by offset"), NOT_ACCEPTED),
    Case("a claim nonce may repeat", JournalModel(nonce_repeats=True), NOT_ACCEPTED),
    Case(
        "a claim nonce may repeat, R forgets nonces",
        JournalModel(nonce_repeats=True, ordered=False, rule=WITHOUT_MEMORY),
        WRONG_BASE,
    ),
    Case("a claim lands twice, R forgets nonces", JournalModel(twice=1, rule=WITHOUT_MEMORY), WRONG_BASE),
    Case("no seq in R", JournalModel(rule=WITHOUT_SEQ), WRONG_BASE),
    Case("no claim record", JournalModel(rule=WITHOUT_CLAIMS, claim_record=False), WRONG_BASE),
    Case("no read to the claim", JournalModel(reads_to_claim=False), WRONG_BASE),
    Case("effects before confirmation", JournalModel(effects_early=True), EARLY),
    Case("truncation of an acknowledged record, in order", JournalModel(truncation=True), CUT_OFF),
    Case("truncation of an acknowledged record, any order", JournalModel(truncation=True, ordered=False), CUT_OFF),
)

ONE = Rules(copies=1)
ONCE = replace(ONE, attempts=1)
DIES = replace(ONE, zombies=False)
TWO = replace(DIES, plan="sequence", steps=2)
BIG = Rules(copies=1, undo_attempts=2)

CHANNEL = (
    Case("ledger", ONE),
    Case("SQL inbox", replace(ONE, inbox=True)),
    Case("ledger, superseded attempts are not sent again", replace(ONE, superseded=True)),
    Case("two steps in sequence, without late copies", replace(TWO, copies=0)),
    Case("two steps in sequence, 1 attempt", replace(TWO, attempts=1)),
    Case(
        "two steps in parallel, 1 attempt, one epoch, without late copies",
        replace(TWO, plan="parallel", attempts=1, takeovers=0, copies=0),
    ),
    Case("two steps in sequence", TWO, large=True),
    Case("two steps in sequence, SQL inbox", replace(TWO, inbox=True), large=True),
    Case("two steps in sequence, superseded not sent again", replace(TWO, superseded=True), large=True),
    Case("two steps in parallel, 1 attempt", replace(TWO, plan="parallel", attempts=1), large=True),
    Case("ledger, 2 late copies", Rules(), large=True),
    Case("SQL inbox, 2 late copies", Rules(inbox=True), large=True),
    Case("ledger, superseded not sent again, 2 late copies", Rules(superseded=True), large=True),
    Case("SQL inbox, superseded not sent again, 2 late copies", Rules(superseded=True, inbox=True), large=True),
    Case("ledger, 2 undo attempts", BIG, large=True),
    Case("ledger, 2 undo attempts, superseded not sent again", replace(BIG, superseded=True), large=True),
    Case("ledger, 3 epochs", replace(ONE, takeovers=2), large=True),
    Case("SQL inbox, 3 epochs", replace(ONE, takeovers=2, inbox=True), large=True),
    Case("ledger, 3 epochs, superseded not sent again", replace(ONE, takeovers=2, superseded=True), large=True),
    Case("ledger, 2 replacements", replace(ONE, replacements=2), large=True),
    Case("SQL inbox, 2 replacements", replace(ONE, replacements=2, inbox=True), large=True),
    Case("ledger, 3 attempts", replace(ONE, attempts=3, zombies=False), large=True),
)

CHANNEL_BROKEN = (
    Case("ledger and reply together instead of ledger first", replace(ONCE, ledger_first=False), REFUSED_EFFECT),
    Case("a lower attempt's failure refuses the step", replace(ONE, failure_of_highest_only=False), REFUSED_EFFECT),
    Case("a second attempt joins a running one", replace(ONE, attempts_wait=False), REFUSED_EFFECT),
    Case(
        "ledger without a claim, processes die",
        replace(ONCE, zombies=False, ledger_claims=False, replacements=2),
        REFUSED_EFFECT,
    ),
    Case("ledger without a claim, processes live on", replace(ONCE, ledger_claims=False), REFUSED_EFFECT),
    Case("a revoked participant goes on without a lease", replace(ONCE, lease=False), DO_AFTER_UNDO),
    Case("inbox that stores successes only", replace(ONCE, inbox=True, inbox_keeps_failures=False), REFUSED_EFFECT),
    Case("inbox row not in the effect's transaction", replace(ONCE, inbox=True, inbox_atomic=False), TWO_EFFECTS),
    Case("only effects whose step is open, applied to undo", replace(ONCE, undo_resent=False), LOST),
    Case(
        "sent again with the decision's epoch, commands dropped by epoch",
        replace(TWO, plan="parallel", drops_by_epoch=True, copies=0, replacements=0),
        LOST,
    ),
    Case("undo sent to another service than its do", replace(ONCE, undo_same_service=False), DO_AFTER_UNDO),
    Case("undo does not wait for a running do", replace(ONCE, undo_waits=False), DO_AFTER_UNDO),
    Case("undo waits for the do's end, not for its record", replace(ONCE, recorded_before_undo=False), DO_AFTER_UNDO),
    Case("undo skips its handler unless the do is known done", replace(ONCE, undo_always_runs=False), UNDONE_EFFECT),
    Case("a do after its undo is not refused", replace(ONCE, late_do_refused=False), DO_AFTER_UNDO),
    Case("a take-over sends nothing again", replace(ONCE, resends=False), LOST),
    Case("mark at hand-over", replace(ONCE, marks_acknowledged=False), LOST),
    Case("commit before reply", replace(ONCE, reply_before_commit=False), LOST),
)

CASES = (*JOURNAL, *JOURNAL_BROKEN, *CHANNEL, *CHANNEL_BROKEN)
