"""What is asked of an input before anything is decided: whether any honest sender could have sent it."""

from __future__ import annotations

from orchestrator.model import events as ev
from orchestrator.model import messages as msg
from orchestrator.model.budget import MAX_BYTES
from orchestrator.model.definition import Definition
from orchestrator.model.state import SagaState

MAX_SIGNALS = 1_000
"""Signals kept for one run until its code asks for them; of `MAX_BYTES` together, with their names."""


class InputRejected(Exception):
    """An input that no honest sender sends: it belongs among the dead letters. The message is the reason.

    `refusal` is to be journaled once the dead letter stands, under no message id: so who waits is answered, and the
    input is decided anew when it is sent again.
    """

    def __init__(
        self, reason: str, reply_to: msg.ReplyAddress | None = None, kind: ev.Refusal = ev.Refusal.REJECTED
    ) -> None:
        super().__init__(reason)
        self.refusal = None if reply_to is None else ev.AttachRefused(reply_to, kind, reason)


def check_step(input: msg.Reply | msg.SendFailed | msg.Unpark, state: SagaState) -> None:
    """Raises `InputRejected` for what no honest sender sends, before anything is held, absorbed or decided."""
    if not isinstance(input, msg.Unpark):
        step = state.steps.get(input.sequence)
        if step is None or not step.is_command:
            raise InputRejected(f"the saga has no step {input.sequence}")
        if not 0 < input.attempt <= (step.undo_attempt if input.undo else step.attempt):
            raise InputRejected(f"attempt {input.attempt} of step {input.sequence} was never issued")
    if not isinstance(input, msg.SendFailed) and len(input.payload or b"") > MAX_BYTES:
        reason = f"it carries {len(input.payload or b'')} bytes, at most {MAX_BYTES}; pass a reference"
        raise InputRejected(reason, getattr(input, "reply_to", None))


def check_settle(input: msg.Settle, state: SagaState, definition: Definition | None) -> None:
    """Raises `InputRejected` for a promise that the saga's code could never have made."""
    result = None if input.error_type else input.payload
    if definition is not None and (problem := definition.check_promise(input.name, result)) is not None:
        raise InputRejected(problem)
    size, most = len(input.payload), _room(state)
    if size > most:
        raise InputRejected(f"the result has {size} bytes, at most {most}; pass a reference")
    if input.name in state.promises:
        return
    kept = [len(name) + len(payload) + len(message) for name, (payload, _, message) in state.promises.items()]
    for held in state.mailbox:
        if isinstance(held, msg.Settle):
            kept.append(len(held.name) + len(held.payload) + len(held.error_message))
    size += len(input.name) + len(input.error_message)
    if len(kept) >= MAX_SIGNALS or sum(kept) + size > most:
        raise InputRejected(
            f"{len(kept)} promises of the saga are settled already; at most {MAX_SIGNALS} and {most} bytes are"
        )


def problem_of_held(input: msg.Input, definition: Definition | None) -> str | None:
    """Why the saga's code could never take what was held for it, None if it can."""
    if definition is None:
        return None
    if isinstance(input, msg.Signal):
        return definition.check_signal(input.name, input.payload)
    if isinstance(input, msg.Settle):
        return definition.check_promise(input.name, None if input.error_type else input.payload)
    return None


def check_signal_along(input: msg.Start, state: SagaState, definition: Definition | None) -> None:
    if input.signal is not None:
        try:
            check_signal(input.signal, input.signal_payload, state, definition)
        except InputRejected as rejected:
            raise InputRejected(str(rejected), input.reply_to) from None


def check_signal(name: str, payload: bytes, state: SagaState, definition: Definition | None) -> None:
    """Raises `InputRejected` for a signal that the saga's code could never take."""
    if definition is not None and (problem := definition.check_signal(name, payload)) is not None:
        raise InputRejected(problem)
    size, most = len(payload), _room(state)
    if size > most:
        raise InputRejected(f"the signal has {size} bytes, at most {most}; pass a reference")
    kept = [len(name) + len(payload) for name, payload in state.signals]
    kept += [len(held.name) + len(held.payload) for held in state.mailbox if isinstance(held, msg.Signal)]
    if len(kept) >= MAX_SIGNALS or sum(kept) + len(name) + size > most:
        raise InputRejected(
            f"{len(kept)} signals are kept for the saga already, and its code asks for none of them; "
            f"at most {MAX_SIGNALS} and {most} bytes are"
        )


def _room(state: SagaState) -> int:
    """Bytes of signals, and of promises, that are kept; fewer where the next run gets them with what it inherits."""
    return MAX_BYTES // 4 if state.keep else MAX_BYTES


def check_another_input(input: msg.Restart | msg.Redrive, definition: Definition | None) -> None:
    """Raises `InputRejected` for an input that its saga could not begin with."""
    payload = input.payload
    if payload is None:
        return
    if definition is not None and (problem := definition.check_input(payload)) is not None:
        raise InputRejected(f"the input does not fit the saga: {problem}", input.reply_to)
    if len(payload) > MAX_BYTES:
        raise InputRejected(
            f"the input has {len(payload)} bytes, at most {MAX_BYTES}; pass a reference", input.reply_to
        )


def check_start(input: msg.Start, state: SagaState, definition: Definition | None) -> None:
    """Raises `InputRejected` for what its saga could not begin with."""
    if definition is not None and (problem := definition.check_input(input.payload)) is not None:
        raise InputRejected(f"the input does not fit {input.saga_type}: {problem}", input.reply_to)
    if len(input.payload) > MAX_BYTES:
        reason = f"the input has {len(input.payload)} bytes, at most {MAX_BYTES}; pass a reference"
        raise InputRejected(reason, input.reply_to)
    check_signal_along(input, state, definition)
