"""The worker and the participant broken on purpose, in the processes of a run: crashes must find each of these.

Two are the simulation's. That effects wait for the acknowledgement of their decision is not to be seen here: a worker
hands over the decision first, so one that is killed never has its effects in a log without it.
"""

from __future__ import annotations

from typing import Any

from orchestrator.archive import shelf
from orchestrator.participant import commits, tenure
from orchestrator.runtime import partition
from tests.sim.mutants import MUTANTS as SIMULATED
from tests.sim.mutants import Mutant

_send_due = commits.Commits.send_due
_put = shelf.Shelf.put


def _commit_at_once(self: Any, partitions: Any, now_ms: int) -> None:
    """Positions move over what is not answered yet."""
    for each in partitions:
        for work in each.window:
            each.position = work.record.offset + 1
    _send_due(self, partitions, now_ms)


def _tell_unrecorded(self: Any, work: Any) -> None:
    """The outcome is told, and the ledger does not hear of it."""
    self.desk.accepted(work)


def _send_nothing_again(replica: Any, runs: Any, sender: Any, now_ms: int) -> int:
    replica.open_effects.clear()
    return 0


def _put_all_but_one(self: Any, first: int, end: int, records: Any) -> Any:
    """One record is lost on its way."""
    return _put(self, first, end, list(records)[:-1])


OWN = (
    Mutant("commit before the reply", ((commits.Commits, "send_due", _commit_at_once),)),
    Mutant("told, not recorded", ((tenure.Tenure, "record", _tell_unrecorded),)),
    Mutant("cut, not archived", ((shelf.Shelf, "put", _put_all_but_one),)),
    Mutant("effects are not sent again", ((partition, "resend", _send_nothing_again),)),
)
_CHOSEN = (
    "store before ack",
    "local steps forgotten at a take-over",
)

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant for mutant in (*SIMULATED, *OWN) if mutant in OWN or mutant.name in _CHOSEN
}


def break_by(name: str) -> None:
    """Breaks this process for good."""
    for owner, attribute, value in MUTANTS[name].replacements:
        setattr(owner, attribute, value)
