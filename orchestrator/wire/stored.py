"""Runs, steps and the partition's own record as the local store holds them. Equal states give equal bytes.

The store is disposable and read only by the software that wrote it, so this is no contract: JSON arrays in the order of
the fields below, payloads as text of one character a byte. It costs a fifth of what Avro does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

import orjson

from orchestrator.model.events import Cause, InputHeld, RunFollows, Status, StepKind, Undone, UnknownCause
from orchestrator.model.messages import ChildCancellation, Parent, ParentClose, ReplyAddress
from orchestrator.model.retries import Jitter, RetryPolicy, RetryRule
from orchestrator.model.rule import NO_HASH
from orchestrator.model.state import OPEN, UNDO_NOW, UNDO_OPEN, Pause, SagaState, Step, StepStatus
from orchestrator.wire.avro import Codec, UnreadableRecord


class UnreadableEntry(UnreadableRecord):
    """An entry of the store that is damaged or of other software: the store is of no use, the journal is."""


_HELD = Codec(InputHeld)
_FOLLOWS = Codec(RunFollows)
_parent = attrgetter(*(field.name for field in fields(Parent)))

_STEP_PLAIN = (
    "status",
    "kind",
    "after",
    "service",
    "command",
    "partition",
    "undo_command",
    "pivot",
    "held",
    "since_ms",
    "started_ms",
    "schedule_to_start_ms",
    "heartbeat_ms",
    "start_to_close_ms",
    "deadline_ms",
    "due_ms",
    "attempt",
    "undo_attempt",
    "resolved",
    "ended",
    "resolved_at_ms",
    "cause",
    "error_type",
    "error_message",
    "cancel_sent",
    "terminate_sent",
    "run",
    "seed",
)
_step_plain = attrgetter(*_STEP_PLAIN)
_RUN_PLAIN = (
    "run",
    "saga_type",
    "phase",
    "started_by",
    "started_at_ms",
    "began_ms",
    "ended_at_ms",
    "traceparent",
    "baggage",
    "version",
    "pinned",
    "migrates_from",
    "ballast",
    "due_ms",
    "begin_ms",
    "not_begun_ms",
    "timeout_ms",
    "run_timeout_ms",
    "sequence",
    "continue_due",
    "pivot_done",
    "forced",
    "keep",
    "cancel",
    "cancel_resolved",
    "cancel_at_ms",
    "cause",
    "error_type",
    "error_message",
    "undone",
    "undos_done",
    "undos_skipped",
    "previous_run",
    "undo_asked",
    "stays",
    "parent_gone",
    "released",
)
_run_plain = attrgetter(*_RUN_PLAIN)
_POLICY = tuple(field.name for field in fields(RetryPolicy))
_policy_plain = attrgetter(*_POLICY[:-1])
_TYPES_AT, _JITTER_AT = _POLICY.index("non_retryable_error_types"), _POLICY.index("jitter")
_rule = attrgetter(*(field.name for field in fields(RetryRule)))


# Looking a member up by its value costs a tenth of calling its class.
_STATUSES: Mapping[str, StepStatus] = {each.value: each for each in StepStatus}
_KINDS: Mapping[str, StepKind] = {each.value: each for each in StepKind}
_CAUSES: Mapping[str | None, UnknownCause | None] = {None: None, **{each.value: each for each in UnknownCause}}
_JITTERS: Mapping[str, Jitter] = {each.value: each for each in Jitter}


def write_step(step: Step) -> bytes:
    undo_payload, retry, undo_retry = step.undo_payload, step.retry, step.undo_retry
    return orjson.dumps(
        (
            *_step_plain(step),
            step.payload.decode("latin-1"),
            step.result.decode("latin-1"),
            step.details.decode("latin-1"),
            None if undo_payload is None else undo_payload.decode("latin-1"),
            None if retry is None else _policy(retry),
            None if undo_retry is None else _policy(undo_retry),
        )
    )


def read_step(sequence: int, data: bytes) -> Step:
    """Raises `UnreadableEntry`."""
    *plain, payload, result, details, undo_payload, retry, undo_retry = _load(data, len(_STEP_PLAIN) + 6)
    step = Step(sequence, _STATUSES[plain[0]], 0)
    for name, value in zip(_STEP_PLAIN, plain, strict=True):
        setattr(step, name, value)
    step.status = _STATUSES[step.status]
    step.kind = _KINDS[step.kind]
    step.cause = _CAUSES[step.cause]
    step.payload = payload.encode("latin-1")
    step.result = result.encode("latin-1")
    step.details = details.encode("latin-1")
    step.undo_payload = None if undo_payload is None else undo_payload.encode("latin-1")
    step.retry = None if retry is None else _read_policy(retry)
    step.undo_retry = None if undo_retry is None else _read_policy(undo_retry)
    return step


def _policy(policy: RetryPolicy) -> tuple[Any, ...]:
    return (*_policy_plain(policy), [_rule(rule) for rule in policy.rules])


def _read_rule(error_type: str, initial: int, coefficient: float, maximum: int, most: int, jitter: str) -> RetryRule:
    return RetryRule(error_type, initial, coefficient, maximum, most, _JITTERS[jitter])


def _read_policy(values: list[Any]) -> RetryPolicy:
    values[_TYPES_AT] = tuple(values[_TYPES_AT])
    values[_JITTER_AT] = _JITTERS[values[_JITTER_AT]]
    values[-1] = tuple([_read_rule(*rule) for rule in values[-1]])
    return RetryPolicy(*values)


def write_run(state: SagaState) -> bytes:
    """A run but for its steps."""
    return orjson.dumps(
        (
            *_run_plain(state),
            state.payload.decode("latin-1"),
            state.result.decode("latin-1"),
            state.note.decode("latin-1"),
            [_address(waiter) for waiter in state.waiters],
            sorted(state.parked.items()),
            [_HELD.encode(InputHeld(held)).decode("latin-1") for held in state.mailbox],
            [(name, payload.decode("latin-1")) for name, payload in state.signals],
            None if state.follows is None else _FOLLOWS.encode(state.follows).decode("latin-1"),
            None if state.paused is None else tuple(state.paused),
            None if state.parent is None else _parent(state.parent),
            [(name, result.decode("latin-1"), *error) for name, (result, *error) in state.promises.items()],
            [(sequence, [_address(waiter) for waiter in waiters]) for sequence, waiters in state.asked.items()],
            [(sequence, _parent(caller)) for sequence, caller in state.callers.items()],
            sorted(state.keys),
        )
    )


def _address(waiter: ReplyAddress) -> tuple[str, int, str]:
    return waiter.topic, waiter.partition, waiter.correlation_id


def read_run(saga_id: str, data: bytes, steps: list[Step]) -> SagaState:
    """A run with its steps, in the order of their sequences. Raises `UnreadableEntry`."""
    *loaded, asked, callers, keys = _load(data, len(_RUN_PLAIN) + 14)
    *plain, payload, result, note, waiters, parked, mailbox, signals, follows, paused, parent, promises = loaded
    state = SagaState(saga_id, plain[0])
    for name, value in zip(_RUN_PLAIN, plain, strict=True):
        setattr(state, name, value)
    state.phase = Status(plain[2])
    state.cancel = None if state.cancel is None else Cause(state.cancel)
    state.cause = None if state.cause is None else Cause(state.cause)
    state.undone = None if state.undone is None else Undone(state.undone)
    state.payload = payload.encode("latin-1")
    state.result = result.encode("latin-1")
    state.note = note.encode("latin-1")
    state.waiters = [ReplyAddress(*waiter) for waiter in waiters]
    state.parked = dict(parked)
    state.mailbox = [_HELD.decode(held.encode("latin-1")).input for held in mailbox]
    state.signals = [(name, kept.encode("latin-1")) for name, kept in signals]
    state.follows = None if follows is None else _FOLLOWS.decode(follows.encode("latin-1"))
    state.paused = None if paused is None else Pause(*paused)
    state.parent = None if parent is None else _read_parent(*parent)
    state.promises = {name: (kept.encode("latin-1"), *error) for name, kept, *error in promises}
    state.asked = {sequence: [ReplyAddress(*waiter) for waiter in waiters] for sequence, waiters in asked}
    state.callers = {sequence: _read_parent(*caller) for sequence, caller in callers}
    state.keys = set(keys)
    _derive(state, steps)
    return state


def _read_parent(saga_id: str, run: str, sequence: int, close: str, cancellation: str) -> Parent:
    return Parent(saga_id, run, sequence, ParentClose(close), ChildCancellation(cancellation))


def _derive(state: SagaState, steps: list[Step]) -> None:
    """What the state keeps besides, from its steps."""
    outcomes: list[tuple[int, int]] = [(state.cancel_resolved, 0)] if state.cancel_resolved else []
    for step in steps:
        state.steps[step.sequence] = step
        if step.resolved:
            outcomes.append((step.resolved, step.sequence))
        if step.status in OPEN:
            state.open.add(step.sequence)
        elif step.status in UNDO_OPEN:
            state.undo_open.add(step.sequence)
        elif step.status in UNDO_NOW and step.undo_command is not None:
            state.undo_now.append(step.sequence)
        if step.kind is StepKind.LOCK and step.status is StepStatus.WAITED:
            state.locks.add(step.sequence)
        if step.kind is StepKind.UPDATE:
            state.updates[step.service] = step.sequence
        if step.is_called and not state.ended:
            state.local.add(step.sequence)
    outcomes.sort()
    state.outcomes = [sequence for _, sequence in outcomes]


@dataclass(slots=True)
class StoredPartition:
    """The partition as of journal offset `offset`: what a reader must know to go on from there.

    `record_hash` is the SHA-256 of the record at `offset`. `sent_*` is rule R's position right after `effects_sent`,
    from where effects are looked for again.
    """

    offset: int = -1
    record_hash: bytes = b""
    nonce: bytes = b""
    claim_offset: int = -1
    expected_seq: int = 0
    chain: bytes = NO_HASH
    incarnation: int = 0
    input_positions: Mapping[str, int] = field(default_factory=dict)
    internal_taken: dict[str, int] = field(default_factory=dict)
    internal_sent: dict[str, int] = field(default_factory=dict)
    effects_sent: int = -1
    effects_open: tuple[tuple[int, int], ...] = ()
    sent_nonce: bytes = b""
    sent_claim_offset: int = -1
    sent_expected_seq: int = 0
    clock_ms: int = 0
    circuits: dict[str, int] = field(default_factory=dict)
    """Services whose circuit is open, and since when."""
    paused: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """Rules that stand: by whom, why, since when."""

    @property
    def first_offset(self) -> int:
        """Where reading has to begin: at what the store can be checked against and what may hold open effects."""
        return max(0, min([self.offset, self.effects_sent + 1, *(offset for offset, _ in self.effects_open)]))


_partition = attrgetter(*StoredPartition.__slots__)
_HEX = {StoredPartition.__slots__.index(name) for name in ("record_hash", "nonce", "chain", "sent_nonce")}


def write_partition(stored: StoredPartition) -> bytes:
    values = [value.hex() if at in _HEX else value for at, value in enumerate(_partition(stored))]
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS)


def read_partition(data: bytes) -> StoredPartition:
    """Raises `UnreadableEntry`."""
    values = _load(data, len(StoredPartition.__slots__))
    for at in _HEX:
        values[at] = bytes.fromhex(values[at])
    stored = StoredPartition(*values)
    stored.effects_open = tuple((offset, index) for offset, index in stored.effects_open)
    return stored


def _load(data: bytes, length: int) -> list[Any]:
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UnreadableEntry(f"damaged entry in the store: {error}") from None
    if not isinstance(values, list) or len(values) != length:
        raise UnreadableEntry("an entry of the store is of another version")
    return values
