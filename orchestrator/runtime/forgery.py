"""Inputs that count only with what their owner signed: a reply, and a promise settled by token."""

from __future__ import annotations

from orchestrator.model import messages as msg
from orchestrator.runtime.runs import Runs
from orchestrator.wire.promises import is_genuine
from orchestrator.wire.tokens import TokenKeys


def forgery(given: msg.Input, token: str, keys: TokenKeys, runs: Runs) -> tuple[str, str] | None:
    """Why an input does not count, and the name of that; None where its token is right or none is needed."""
    if isinstance(given, msg.Settle):
        return ("the promise token is forged", "ForgedToken") if token and not is_genuine(keys, token) else None
    if not isinstance(given, msg.Reply):
        return None
    execution = runs.find(given.saga_id)
    step = execution.state.steps.get(given.sequence) if execution is not None else None
    if step is None or not step.is_command:
        return None  # decide says what is wrong with it
    right = keys.verify(token, given.saga_id, given.run, given.sequence, "undo" if given.undo else "do", step.service)
    return None if right else ("the reply token is missing or forged", "ForgedReply")
