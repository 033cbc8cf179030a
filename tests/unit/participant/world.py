"""A service's participants on a log in memory, with a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, NamedTuple

from orchestrator.log.base import Failure, TopicSpec
from orchestrator.log.memory import MemoryAppender, MemoryLog, MemoryReader
from orchestrator.log.memory_link import Link, Sent
from orchestrator.model.effects import Command
from orchestrator.model.ids import Direction, idempotency_key
from orchestrator.model.messages import Outcome
from orchestrator.participant.engine import Engine
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.participant.work import Ended, Executor, HeldExecutor, Work
from orchestrator.wire.commands import ReplyMessage, command_headers
from orchestrator.wire.completions import Address, completion_headers, read_token
from orchestrator.wire.headers import read_headers
from orchestrator.wire.ledger import Claim, Execution, Release, read_record

START_MS = 1_700_000_000_000
SERVICE = "payments"
COMMANDS, LEDGER, REPLIES, LETTERS = "payments.commands", "payments.ledger", "saga.replies", "saga.dead-letters"
SUCCESS = ReplyMessage(Outcome.SUCCESS, b'{"payment_id":"p-1"}')
DECLINED = ReplyMessage(Outcome.FAILURE, error_type="CardDeclined")
LATER = ReplyMessage(Outcome.RETRY, error_type="ConnectionError")


class Told(NamedTuple):
    """A reply as its owner reads it."""

    saga_id: str
    sequence: int
    direction: str
    attempt: int
    outcome: str
    error_type: str
    payload: bytes


class HoldingLink(Link):
    """Holds what `holds` says, until it is landed, reported or failed by hand."""

    def __init__(self, holds: Callable[[str], bool] = lambda _: False) -> None:
        self.holds = holds
        self.held: list[Sent] = []
        self.requests: list[tuple[str, Callable[[], None], Callable[[Failure], None]]] = []
        self.holds_request: Callable[[str], bool] = lambda _: False

    def append(self, sent: Sent) -> None:
        if self.holds(sent.topic):
            self.held.append(sent)
        else:
            super().append(sent)

    def request(self, kind: str, perform: Callable[[], None], fail: Callable[[Failure], None]) -> None:
        if self.holds_request(kind):
            self.requests.append((kind, perform, fail))
        else:
            perform()

    def release(self) -> None:
        """Everything held lands and is reported, in order; from now on nothing is held."""
        self.holds = lambda _: False
        held, self.held = self.held, []
        for sent in held:
            sent.land()
            sent.report()


class World:
    """Topics, the clock, members by name, and the commands that were sent."""

    def __init__(self, partitions: int = 1, **settings: Any) -> None:
        self.now_ms = START_MS
        self.log = MemoryLog(lambda: self.now_ms)
        for topic in (COMMANDS, LEDGER, REPLIES, LETTERS):
            self.log.create(TopicSpec(topic, partitions, 1, {}))
        self.settings = ParticipantSettings(**settings)
        self.members: list[Member] = []
        self.overdue: list[Work] = []
        self._owner = self.log.appender(bound=1_000_000)
        self._nonces = count(1)

    def new_nonce(self) -> bytes:
        return next(self._nonces).to_bytes(16, "big")

    def log_start(self, topic: str, partition: int) -> int | None:
        found = self.log.partitions.get((topic, partition))
        return None if found is None else found.start

    def send(
        self,
        saga_id: str = "order-7",
        direction: Direction = "do",
        *,
        attempt: int = 1,
        sequence: int = 1,
        partition: int = 0,
        run: str = "1-10-0",
        command: str = "",
        payload: bytes = b'{"order_id":"order-7","cents":500}',
        sent_at_ms: int | None = None,
        deadline_ms: int | None = None,
        reply_to: str = REPLIES,
        heartbeat_ms: int | None = None,
        details: bytes = b"",
    ) -> None:
        """An owner sends a command."""
        name = command or ("charge" if direction == "do" else "refund")
        message = Command(
            saga_id,
            run,
            "Order",
            sequence,
            direction,
            attempt,
            SERVICE,
            name,
            partition,
            payload,
            deadline_ms,
            None,
            heartbeat_ms,
            details,
        )
        headers = command_headers(
            message,
            epoch=3,
            reply_to=reply_to,
            reply_partition=0,
            token="k.00",
            sent_at_ms=self.now_ms if sent_at_ms is None else sent_at_ms,
        )
        self._owner.append(COMMANDS, partition, payload, token=None, key=saga_id.encode(), headers=headers)

    def complete(
        self, token: str, outcome: Outcome = Outcome.SUCCESS, payload: bytes = b'{"payment_id":"p-9"}', why: str = ""
    ) -> None:
        """Somebody completes pending work, as the client does."""
        self.send_completion(read_token(token), outcome, payload, why)

    def send_completion(
        self, address: Address, outcome: Outcome = Outcome.SUCCESS, payload: bytes = b"", why: str = ""
    ) -> None:
        """The same by what the token says."""
        headers, key = completion_headers(address, outcome, why), address.saga_id.encode()
        self._owner.append(COMMANDS, address.partition, payload, token=None, key=key, headers=headers)

    def send_raw(self, value: bytes | None, headers: Iterable[tuple[str, bytes]] = (), key: bytes = b"k") -> None:
        self._owner.append(COMMANDS, 0, value, token=None, key=key, headers=headers)

    def member(
        self, executor: Executor | None = None, *, link: Link | None = None, bound: int = 100_000, ledger: bool = True
    ) -> Member:
        member = Member(self, executor or HeldExecutor(), link, bound, ledger)
        self.members.append(member)
        return member

    def run(self, steps: int = 20, advance_ms: int = 20) -> None:
        """Every living member steps in turn; time goes on a little each round."""
        for _ in range(steps):
            for member in self.members:
                member.step()
            self.now_ms += advance_ms

    def pass_time(self, duration_ms: int, every_ms: int = 1_000) -> None:
        """Time passes, with a step of everybody now and then."""
        end_ms = self.now_ms + duration_ms
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self.now_ms + every_ms)
            for _ in range(3):
                for member in self.members:
                    member.step()

    def told(self, saga_id: str | None = None) -> list[Told]:
        """The replies, in the order of their topic."""
        replies = []
        for record in self.log.records(REPLIES, 0):
            found = read_headers(record.headers)
            assert record.key == found["saga-id"].encode()
            assert found["idempotency-key"] == idempotency_key(
                found["saga-id"],
                found["saga-run"],
                int(found["step"]),
                "undo" if found["direction"] == "undo" else "do",
            )
            if saga_id in (None, found["saga-id"]):
                replies.append(
                    Told(
                        found["saga-id"],
                        int(found["step"]),
                        found["direction"],
                        int(found["attempt"]),
                        found["outcome"],
                        found.get("error-type", ""),
                        record.value or b"",
                    )
                )
        return replies

    def outcomes(self, saga_id: str | None = None) -> list[tuple[str, int, str]]:
        """(direction, attempt, outcome) of the replies."""
        return [(told.direction, told.attempt, told.outcome) for told in self.told(saga_id)]

    def ledger(self, partition: int = 0) -> list[Claim | Execution | Release]:
        return [read_record(record.value) for record in self.log.records(LEDGER, partition)]

    def ledger_kinds(self, partition: int = 0) -> list[str]:
        return [type(body).__name__ for body in self.ledger(partition)]

    def committed(self, partition: int = 0) -> int | None:
        found = self.log.group(SERVICE).offsets.get((COMMANDS, partition))
        return None if found is None else found[0]


class Member:
    """One participant: its engine and the clients it was given."""

    def __init__(self, world: World, executor: Executor, link: Link | None, bound: int, ledger: bool) -> None:
        self.world = world
        self.executor = executor
        self.alive = True
        self.reader: MemoryReader = world.log.reader(SERVICE, [COMMANDS], link=link)
        self.appender: MemoryAppender = world.log.appender(link=link, bound=bound)
        self.engine = self.build(self.reader, self.appender, executor, ledger)

    def build(self, reader: Any, appender: Any, executor: Any, ledger: bool = True) -> Engine:
        world = self.world
        return Engine(
            SERVICE,
            reader,
            appender,
            executor,
            lambda: world.now_ms,
            log_start=world.log_start,
            new_nonce=world.new_nonce,
            overdue=world.overdue.append,
            settings=world.settings,
            ledger=ledger,
            owner=f"member-{len(world.members)}",
        )

    @property
    def held(self) -> list[Work]:
        assert isinstance(self.executor, HeldExecutor)
        return list(self.executor.held)

    def running(self) -> list[tuple[str, str, int]]:
        """(saga id, direction, attempt) of the handlers that run."""
        return [(work.command.saga_id, work.command.direction, work.command.attempt) for work in self.held]

    def finish(self, reply: Ended = SUCCESS, index: int = 0) -> None:
        assert isinstance(self.executor, HeldExecutor)
        self.executor.finish(self.held[index], reply)

    def step(self) -> None:
        if self.alive:
            self.engine.step()

    def die(self) -> None:
        """kill -9: it does nothing any more, and the group notices."""
        self.alive = False
        self.world.log.expire(self.reader)

    def stop(self, rounds: int = 100) -> None:
        """Ends in good order, as a runner does."""
        self.engine.stop()
        for _ in range(rounds):
            if self.engine.stopped:
                break
            self.world.run(1)
        assert self.engine.stopped
        self.appender.close(0)
        self.reader.close()
        self.alive = False
