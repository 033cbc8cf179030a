"""What a participant sends: ledger records for its tenures, replies, dead letters. Nothing is ever given up silently.

A full appender is back-pressure: what it does not take waits here, in order, and the engine takes no more commands.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

from orchestrator.log.base import Delivery, Failure, RunAppender
from orchestrator.log.gathered import GatheredAppender
from orchestrator.model.messages import Outcome
from orchestrator.participant.counters import Counters
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.participant.work import Work
from orchestrator.wire.commands import ReplyMessage, reply_headers
from orchestrator.wire.dead_letters import dead_letter_headers

RESEND_INTERVAL_MS = 100
"""Before something of unknown fate is sent again. A reply that comes twice is absorbed by its owner."""

MAX_WAITING = 5_000
"""Records that wait here at which no more commands are taken."""

Resend = Callable[[Work], None]


class EngineFailed(Exception):
    """A client has become unusable; start a new process."""


class Outbound:
    """`answered(work)` is called when its reply, or the dead letter it became, is acknowledged."""

    def __init__(
        self,
        appender: RunAppender,
        settings: ParticipantSettings,
        dead_letters_topic: str,
        counters: Counters,
        now: Callable[[], int],
        answered: Callable[[Work], None],
    ) -> None:
        # Its bound is that of the commands in hand: nothing may be given up.
        self._appender = GatheredAppender(appender, sys.maxsize)
        self.blocked = False
        """Whether too much waits to be sent: the engine then takes no more commands."""
        self._settings = settings
        self._dead_letters_topic = dead_letters_topic
        self._counters = counters
        self._now = now
        self._tell = answered
        self._later: list[tuple[int, int, Resend, Work]] = []
        self._order = count()
        self.unanswered = 0
        """Replies and dead letters that are not acknowledged."""

    @property
    def busy(self) -> bool:
        return bool(self.unanswered or self._appender.pending)

    @property
    def due_ms(self) -> int | None:
        """When something is to be sent again."""
        return self._later[0][0] if self._later else None

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None,
        headers: list[tuple[str, bytes]],
        token: tuple[Callable[[Any, Delivery], None], Any],
    ) -> None:
        """A record for the next `flush`; `token` is a function and its first argument, before the delivery."""
        self._appender.append(topic, partition, value, token=token, key=key, headers=headers)

    def poll(self) -> bool:
        """Hands out what was delivered; whether there was any. Raises `EngineFailed`."""
        deliveries = self._appender.poll()
        for delivery in deliveries:
            if delivery.failure is Failure.FATAL:
                raise EngineFailed(f"{delivery.failure.value}: {delivery.detail}")
            function, argument = delivery.token
            function(argument, delivery)
        return bool(deliveries)

    def flush(self) -> None:
        """Sends what may leave, together; again what is due."""
        now_ms = self._now()
        while self._later and self._later[0][0] <= now_ms:
            _, _, send, work = heapq.heappop(self._later)
            send(work)
        self.blocked = not self._appender.send() or self._appender.waiting >= MAX_WAITING

    def reply(self, work: Work, reply: ReplyMessage) -> None:
        """Answers a command, where it asks for the answer."""
        work.reply = reply
        self.unanswered += 1
        self._send_reply(work)

    def heartbeat(self, work: Work) -> None:
        """Tells the saga that the work is under way, and how far it got."""
        command = work.command
        assert work.told is not None
        beat = ReplyMessage(Outcome.HEARTBEAT, work.told[0])
        headers = reply_headers(command, beat)
        key = command.saga_id.encode()
        self.append(
            command.reply_to, command.reply_partition, beat.payload, key, headers, (self._heartbeat_delivered, work)
        )

    def _heartbeat_delivered(self, work: Work, delivery: Delivery) -> None:
        if delivery.failure is not None or delivery.offset is None:
            work.told = None  # told again when the next one may be

    def settle(self, work: Work) -> None:
        """There is nothing to be told of it, or not yet."""
        work.done = True
        self._tell(work)

    def _send_reply(self, work: Work) -> None:
        command, reply = work.command, work.reply
        assert isinstance(reply, ReplyMessage)
        self.append(
            command.reply_to,
            command.reply_partition,
            reply.payload,
            command.saga_id.encode(),
            reply_headers(command, reply),
            (self._replied, work),
        )

    def _replied(self, work: Work, delivery: Delivery) -> None:
        if delivery.failure is None and delivery.offset is not None:
            self._answered(work)
            return
        self._counters.resent += 1
        assert isinstance(work.reply, ReplyMessage)
        if delivery.failure is Failure.TOO_LARGE and work.reply.payload:
            work.reply = too_large(len(work.reply.payload))
            self._send_reply(work)
        elif delivery.failure in (Failure.UNKNOWN_TOPIC, Failure.UNAUTHORIZED, Failure.TOO_LARGE):
            work.tries += 1
            if work.tries < self._settings.reply_tries:
                self.resend(work, self._send_reply, self._settings.retry_interval_ms)
            else:
                # The outcome is recorded. Who asks again, with a reply address that exists, is answered.
                self.unanswered -= 1
                self.bury(work, f"its reply cannot be sent: {delivery.detail}", delivery.failure.name)
        else:
            self.resend(work, self._send_reply, RESEND_INTERVAL_MS)

    def bury(self, work: Work, reason: str, error_class: str) -> None:
        """Makes the command a dead letter: key, value and headers untouched, and why it is here."""
        self._counters.dead_letters += 1
        self.unanswered += 1
        record = work.record
        headers = dead_letter_headers(
            record.topic, record.partition, record.offset, record.timestamp_ms, record.headers, reason, error_class
        )
        self._send_letter((work, headers, True))

    def _send_letter(self, letter: tuple[Work, list[tuple[str, bytes]], bool]) -> None:
        work, headers, whole = letter
        record = work.record
        partition = record.partition % self._settings.dead_letter_partitions
        value = record.value if whole else None
        self.append(self._dead_letters_topic, partition, value, record.key, headers, (self._buried, letter))

    def _buried(self, letter: tuple[Work, list[tuple[str, bytes]], bool], delivery: Delivery) -> None:
        work, headers, whole = letter
        if delivery.failure is None and delivery.offset is not None:
            self._answered(work)
            return
        self._counters.resent += 1
        if delivery.failure is Failure.TOO_LARGE and whole:
            # With the reason added it no longer fits: the reason and the place are worth more than the bytes.
            self._send_letter((work, headers, False))
            return
        interval_ms = RESEND_INTERVAL_MS if delivery.failure is None else self._settings.retry_interval_ms
        self.resend(work, lambda _: self._send_letter(letter), interval_ms)

    def resend(self, work: Work, send: Resend, interval_ms: int) -> None:
        """Has something sent again later."""
        heapq.heappush(self._later, (self._now() + interval_ms, next(self._order), send, work))

    def _answered(self, work: Work) -> None:
        self.unanswered -= 1
        work.done = True
        self._tell(work)


def too_large(size: int) -> ReplyMessage:
    """In place of a reply that cannot be sent. The effect may be there, so it is no failure."""
    message = f"the reply has {size} bytes; keep it elsewhere and reply with where"
    return ReplyMessage(Outcome.RETRY, error_type="ReplyTooLarge", error_message=message)
