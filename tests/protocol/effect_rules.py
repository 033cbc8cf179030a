"""What both sides of the effect channel agree on: commands, outcomes, bounds, and the rules that can be broken."""

from __future__ import annotations

from dataclasses import dataclass

# A command is its attempt, an undo has UNDO added: do@2 is 2, undo@1 is UNDO + 1.
UNDO = 8
SUCCESS, FAILURE, RETRY = 1, 2, 4
OUTCOMES = {SUCCESS: "success", FAILURE: "failure", RETRY: "retry"}

# PROGRESS must happen in the end unless something overtakes it; what is FREE may never happen.
PROGRESS, FREE = True, False


def name(cmd: int) -> str:
    return f"{'undo' if cmd & UNDO else 'do'}@{attempt_of(cmd)}"


def attempt_of(cmd: int) -> int:
    return cmd & (UNDO - 1)


@dataclass(frozen=True, slots=True)
class Rules:
    """The bounds of a search, the forms that are allowed, then the rules; a test turns one of the rules over.

    `plan` is `free`, `sequence` or `parallel`. Free: one step, whose undo may come at any time once the step is done
    or unknown, or never. Steps meet only in the engine's choice of when to start and when to undo, so this one stands
    for each step of any saga; several steps together are searched as well.
    """

    attempts: int = 2
    undo_attempts: int = 1
    takeovers: int = 1
    replacements: int = 1  # of the instance of each step's service
    copies: int = 2  # of each step's commands that land late

    plan: str = "free"
    steps: int = 1
    inbox: bool = False  # the memory is an SQL inbox, else a ledger
    zombies: bool = True  # a replaced instance lives on, else it is dead
    superseded: bool = False  # of an open effect only the highest attempt has to be sent, else all

    # the owner's rules
    failure_of_highest_only: bool = True
    resends: bool = True
    undo_resent: bool = True
    marks_acknowledged: bool = True
    undo_same_service: bool = True
    drops_by_epoch: bool = False

    # the participant's
    attempts_wait: bool = True
    undo_waits: bool = True
    recorded_before_undo: bool = True
    undo_always_runs: bool = True
    late_do_refused: bool = True
    reply_before_commit: bool = True
    ledger_first: bool = True
    ledger_claims: bool = True
    lease: bool = True
    inbox_keeps_failures: bool = True
    inbox_atomic: bool = True
