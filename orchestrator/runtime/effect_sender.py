"""Sends what accepted events ask for, at least once, and knows what is not acknowledged.

An effect is done when its destination acknowledged it, not when it was handed over. The mark (`effects_sent`) is the
journal offset below which everything is done; an effect whose destination keeps failing is listed beside the mark, so
that one dead service pins nobody. Internal messages to one partition stay in order: after any error everything from the
first unacknowledged one on is sent again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.log.base import Appender, Delivery, Failure, LogFull
from orchestrator.model.effects import Answer, Command, Forward, Message, Outward
from orchestrator.topics import TopicNames
from orchestrator.wire import headers as h
from orchestrator.wire import inputs as wi
from orchestrator.wire.commands import command_headers
from orchestrator.wire.inputs import write_message
from orchestrator.wire.tokens import TokenKeys

STUCK_AFTER = 3
"""Failed sends after which an effect no longer holds the mark back."""
MAX_STUCK = 200
"""Beyond this many the mark waits: the list stands in every record."""
RETRY_MS = 500
STATUS = "saga-status"
UNDONE = "undone"

_INTERNAL = (Forward, Message)
_FINAL = (Failure.UNKNOWN_TOPIC, Failure.UNAUTHORIZED, Failure.TOO_LARGE)


@dataclass(slots=True, eq=False)
class Outgoing:
    """One effect under way."""

    offset: int
    index: int
    effect: Outward
    failures: int = 0
    stuck: bool = False
    acked: bool = False
    retry_at_ms: int = 0


class EffectSender:
    """The effects of one partition in one epoch.

    Delivery tokens are (`owner`, the effect). `still_open` says whether an effect of unknown fate must be sent again.
    """

    def __init__(
        self,
        appender: Appender,
        topics: TopicNames,
        partition: int,
        epoch: int,
        keys: TokenKeys,
        owner: Any,
        still_open: Callable[[Outward], bool],
        counters: Counter[str] | None = None,
    ) -> None:
        self._appender = appender
        self._topics = topics
        self._partition = partition
        self._epoch = epoch
        self._keys = keys
        self._owner = owner
        self.refusals: deque[tuple[Outgoing, str]] = deque()
        """Commands that Kafka will not take (their topic is missing, or may not be written), and why.

        Each holds the mark back until `settle`: its step is over only once that is journaled.
        """
        self._still_open = still_open
        self._offsets: deque[int] = deque()
        self._counts: dict[int, int] = {}
        self._stuck: Counter[tuple[int, int]] = Counter()
        """How many effects of an event keep failing: the end of a saga has one for each who waits."""
        self._waiting: deque[Outgoing] = deque()
        self._later: list[Outgoing] = []
        self._lanes: dict[int, _Lane] = {}
        self._broken = 0
        """How many lanes are."""
        self._open = 0
        self.counters: Counter[str] = Counter() if counters is None else counters

    @property
    def pending(self) -> int:
        """Effects that are not acknowledged."""
        return self._open

    @property
    def waiting(self) -> bool:
        """Whether some wait for room."""
        return bool(self._waiting)

    @property
    def restless(self) -> bool:
        """Whether `tick` may have something to do, now or later."""
        return bool(self._waiting or self._later or self._broken)

    def next_due_ms(self) -> int | None:
        """When `tick` has something to do that no report announces."""
        if not self.restless:
            return None
        moments = [out.retry_at_ms for out in self._later]
        moments += [lane.retry_at_ms for lane in self._lanes.values() if lane.broken and not lane.under_way]
        return min(moments, default=None)

    @property
    def stuck(self) -> int:
        """Effects whose destination keeps failing, listed beside the mark."""
        return self._stuck.total()

    def mark(self, confirmed: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """`effects_sent` and `effects_open` as they stand, `confirmed` being the last confirmed journal offset."""
        offsets, counts = self._offsets, self._counts
        while offsets and not counts.get(offsets[0]):
            counts.pop(offsets.popleft(), None)
        sent = offsets[0] - 1 if offsets else confirmed
        return sent, tuple(sorted(self._stuck)) if self._stuck else ()

    def send(self, offset: int, index: int, effect: Outward, now_ms: int, *, below_mark: bool = False) -> None:
        """Takes an effect of an accepted event, in journal order. `below_mark`: it is one of the listed exceptions."""
        out = Outgoing(offset, index, effect)
        self._open += 1
        if below_mark:
            out.stuck = True
            self._stuck[offset, index] += 1
        else:
            if not self._offsets or self._offsets[-1] != offset:
                self._offsets.append(offset)
            self._counts[offset] = self._counts.get(offset, 0) + 1
        if isinstance(effect, _INTERNAL):
            lane = self._lanes.setdefault(effect.target, _Lane())
            lane.entries.append(out)
            if lane.broken:
                return
            lane.under_way += 1
        self._produce(out, now_ms)

    def delivered(self, out: Outgoing, delivery: Delivery, now_ms: int) -> None:
        """What became of one send."""
        if isinstance(out.effect, _INTERNAL):
            self._lane_delivered(out.effect, out, delivery, now_ms)
        elif delivery.failure is None:
            self._done(out)
        elif delivery.failure in _FINAL:
            if isinstance(out.effect, Command):
                self.refusals.append((out, f"{delivery.failure.value}: {delivery.detail}".rstrip(": ")))
            else:
                self._done(out)
                self.counters["answers_dropped"] += 1
        else:
            self._failed(out, now_ms)

    def settle(self, out: Outgoing) -> None:
        """The refusal of a command is decided: it holds the mark back no longer."""
        self._done(out)

    def put_by(self, out: Outgoing) -> None:
        """The refusal of a command could not be decided: it is listed beside the mark, for the next owner to send."""
        self._list(out)
        self._open -= 1

    def tick(self, now_ms: int) -> None:
        """Sends what had to wait for room or for a destination."""
        while self._waiting and self._produce_now(self._waiting[0], now_ms):
            self._waiting.popleft()
        for lane in self._lanes.values() if self._broken else ():
            if lane.broken and not lane.under_way and lane.retry_at_ms <= now_ms:
                self._mend(lane, now_ms)
        if self._later:
            due = [out for out in self._later if out.retry_at_ms <= now_ms]
            if due:
                self._later = [out for out in self._later if out.retry_at_ms > now_ms]
                for out in due:
                    if self._still_open(out.effect):
                        self._produce(out, now_ms)
                    else:
                        self._done(out)

    def _produce(self, out: Outgoing, now_ms: int) -> None:
        if self._waiting or not self._produce_now(out, now_ms):
            self._waiting.append(out)

    def _produce_now(self, out: Outgoing, now_ms: int) -> bool:
        effect = out.effect
        try:
            if isinstance(effect, Command):
                self._append(
                    out, self._topics.commands(effect.service), effect.partition, effect, self._command(effect, now_ms)
                )
            elif isinstance(effect, Answer):
                self._append(out, effect.reply_to.topic, effect.reply_to.partition, effect, _answer_headers(effect))
            else:
                self._append(out, self._topics.internal, effect.target, effect, self._internal(effect))
        except LogFull:
            return False
        return True

    def _append(self, out: Outgoing, topic: str, partition: int, effect: Any, headers: list[tuple[str, bytes]]) -> None:
        if isinstance(effect, Message):
            value = write_message(effect.input)
        else:
            value = effect.value if isinstance(effect, Forward) else effect.payload
        key = effect.saga_id.encode()
        self._appender.append(topic, partition, value, key=key, headers=headers, token=(self._owner, out))

    def _command(self, command: Command, now_ms: int) -> list[tuple[str, bytes]]:
        token = self._keys.sign(command.saga_id, command.run, command.sequence, command.direction, command.service)
        return command_headers(
            command,
            epoch=self._epoch,
            reply_to=self._topics.replies,
            reply_partition=self._partition,
            token=token,
            sent_at_ms=now_ms,
        )

    def _internal(self, effect: Forward | Message) -> list[tuple[str, bytes]]:
        added: dict[str, str | int | None] = {
            h.SAGA_ID: effect.saga_id,
            wi.FORWARDED_FROM: effect.topic if isinstance(effect, Forward) else wi.SAGA,
            h.SOURCE_PARTITION: self._partition,
            wi.COUNTER: effect.counter,
        }
        return [*(effect.headers if isinstance(effect, Forward) else ()), *h.write_headers(added)]

    def _done(self, out: Outgoing) -> None:
        out.acked = True
        self._open -= 1
        if out.stuck:
            key = (out.offset, out.index)
            self._stuck[key] -= 1
            if not self._stuck[key]:
                del self._stuck[key]
        else:
            self._counts[out.offset] -= 1

    def _list(self, out: Outgoing) -> None:
        """It holds the mark back no longer, if the list has room for it."""
        if not out.stuck and len(self._stuck) < MAX_STUCK:
            out.stuck = True
            self._counts[out.offset] -= 1
            self._stuck[out.offset, out.index] += 1

    def _failed(self, out: Outgoing, now_ms: int) -> None:
        out.failures += 1
        self.counters["send_failures"] += 1
        if out.failures >= STUCK_AFTER:
            self._list(out)
        out.retry_at_ms = now_ms + RETRY_MS
        self._later.append(out)

    def _lane_delivered(self, forward: Forward | Message, out: Outgoing, delivery: Delivery, now_ms: int) -> None:
        lane = self._lanes[forward.target]
        lane.under_way -= 1
        if delivery.failure is None:
            out.acked = True
        else:
            self._broken += not lane.broken
            lane.broken = True
            self.counters["send_failures"] += 1
        while lane.entries and lane.entries[0].acked and not lane.broken:
            self._done(lane.entries.popleft())
        lane.retry_at_ms = now_ms + RETRY_MS

    def _mend(self, lane: _Lane, now_ms: int) -> None:
        """Nothing of a broken lane is on its way any more: all from the first unacknowledged one on goes again."""
        lane.broken = False
        self._broken -= 1
        while lane.entries and lane.entries[0].acked:
            self._done(lane.entries.popleft())
        for entry in lane.entries:
            entry.acked = False
            lane.under_way += 1
            self._produce(entry, now_ms)


class _Lane:
    """Internal messages to one partition, in order."""

    __slots__ = ("broken", "entries", "retry_at_ms", "under_way")

    def __init__(self) -> None:
        self.entries: deque[Outgoing] = deque()
        self.under_way = 0
        self.broken = False
        self.retry_at_ms = 0


def _answer_headers(answer: Answer) -> list[tuple[str, bytes]]:
    return h.write_headers(
        {
            h.SAGA_ID: answer.saga_id,
            h.SAGA_RUN: answer.run or None,
            h.CORRELATION_ID: answer.reply_to.correlation_id,
            STATUS: answer.status,
            UNDONE: answer.undone or None,
            h.ERROR_TYPE: answer.error_type or None,
            h.ERROR_MESSAGE: h.shorten(answer.error_message) if answer.error_message else None,
        }
    )
