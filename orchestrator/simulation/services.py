"""Simulated services: handlers that act by the script in the command, and a record of every effect they had."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.checker.evidence import ServiceEffect
from orchestrator.model.messages import Outcome
from orchestrator.participant import rules
from orchestrator.participant.work import Finished, Work
from orchestrator.wire.commands import CommandMessage, ReplyMessage

RUN_MS = (0, 1, 5, 30)
HANG_MS = (1_200, 8_000, 8_000)
"""A little longer than the shortest timeout, or longer than any."""
LATER_MS = 40
"""When a service wants to be asked again that says so."""
NEVER_MS = 1 << 60
_ANSWERED = (rules.Answer, rules.Refuse)


class Database:
    """What one service has done, and, where it commits the key with the effect, its inbox: it outlives every crash."""

    def __init__(self, service: str, *, inbox: bool) -> None:
        self.service = service
        self.inbox: dict[tuple[str, str, int], rules.Entry] | None = {} if inbox else None
        self.executions: set[tuple[str, int, Outcome]] = set()
        """(key, attempt, outcome) of every handler that ended."""
        self.failed_first: set[str] = set()


class ScriptedExecutor:
    """Runs handlers over virtual time: an effect happens when its handler ends, never if the process died before.

    `delay_ms` says how long one takes, told whether it hangs.
    """

    def __init__(
        self,
        database: Database,
        effects: list[ServiceEffect],
        now_ms: Callable[[], int],
        delay_ms: Callable[[bool], int],
    ) -> None:
        self._database = database
        self._effects = effects
        self._now_ms = now_ms
        self._delay_ms = delay_ms
        self._running: list[tuple[int, Work]] = []
        self.due_ms = NEVER_MS
        """When the next handler ends."""
        self.duplicates = 0

    def start(self, work: Work) -> None:
        outcome = _scripted(work.command)
        ends_ms = self._now_ms() + self._delay_ms(outcome in "hg")
        self._running.append((ends_ms, work))
        self.due_ms = min(self.due_ms, ends_ms)

    @property
    def longest_ms(self) -> int:
        """For how long a handler that should have ended by now was kept from it."""
        return max((self._now_ms() - at for at, _ in self._running), default=0)

    def poll(self) -> Sequence[Finished]:
        now_ms = self._now_ms()
        for _, work in self._running:
            if work.command.heartbeat_ms and work.command.sequence % 2:
                # Half of the handlers say how far they are, the others fall silent.
                work.tell(b"%d" % (now_ms - work.started_ms))
        if self.due_ms > now_ms:
            return ()
        ended = [work for at, work in self._running if at <= now_ms]
        self._running = [(at, work) for at, work in self._running if at > now_ms]
        self.due_ms = min((at for at, _ in self._running), default=NEVER_MS)
        return [self._perform(work) for work in ended]

    def _perform(self, work: Work) -> Finished:
        command = work.command
        inbox = self._database.inbox
        if inbox is None:
            return Finished(work, self._noted(command, self._act(command, transactional=False)))
        decision = rules.decide(command, inbox.get(command.unit))
        if isinstance(decision, _ANSWERED):
            self.duplicates += 1
            return Finished(work, decision.reply, False)
        reply = self._noted(command, self._act(command, transactional=True))
        undo = command.direction == "undo"
        inbox[command.unit] = rules.record(inbox.get(command.unit), undo, command.attempt, reply)
        return Finished(work, reply)

    def _noted(self, command: CommandMessage, reply: ReplyMessage) -> ReplyMessage:
        self._database.executions.add((command.idempotency_key, command.attempt, reply.outcome))
        return reply

    def _act(self, command: CommandMessage, *, transactional: bool) -> ReplyMessage:
        outcome = _scripted(command)
        if outcome == "v" and command.idempotency_key not in self._database.failed_first:
            self._database.failed_first.add(command.idempotency_key)
            outcome = "f"
        if outcome in "fg":
            return ReplyMessage(Outcome.FAILURE, error_type="Refused")
        if outcome in "rw" or (outcome == "e" and transactional):
            after_ms = LATER_MS if outcome == "w" else None
            return ReplyMessage(Outcome.RETRY, error_type="Busy", retry_after_ms=after_ms)
        self._effects.append(
            ServiceEffect(
                len(self._effects),
                self._database.service,
                command.idempotency_key,
                command.saga_id,
                command.run,
                command.sequence,
                command.direction,
            )
        )
        if outcome == "e":
            return ReplyMessage(Outcome.RETRY, error_type="Unsure")
        return ReplyMessage(Outcome.SUCCESS, b'"ok"')


def _scripted(command: CommandMessage) -> str:
    do, undo = command.payload.decode().split("/")
    script = undo if command.direction == "undo" else do
    return script[min(command.attempt, len(script)) - 1]
