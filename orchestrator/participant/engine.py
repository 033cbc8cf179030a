"""A participant without threads, waits or a clock of its own: `step` does whatever can be done now.

One command's way, in order:

1. Read. What is no command becomes a dead letter.
2. Judged by `rules.decide` when its unit is free: answered from memory, refused, to be run, or (a completion) to be
   recorded.
3. The handler starts when there is room and, with a ledger, while the lease holds; it ends.
4. With a ledger: the outcome is appended and confirmed. An inbox did this in the handler's own transaction.
5. The unit is free for the next command; the reply is appended and acknowledged. What is pending has none yet.
6. The offset commits when all before it are through.

A crash between any two leaves the command uncommitted, and whoever reads it next starts at 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from orchestrator.log import base as log
from orchestrator.log.base import Happening, Reader, Record, RunAppender
from orchestrator.participant import rules
from orchestrator.participant.commits import Commits
from orchestrator.participant.counters import Counters
from orchestrator.participant.outbound import EngineFailed, Outbound, too_large
from orchestrator.participant.partition import Partition
from orchestrator.participant.running import Running
from orchestrator.participant.settings import ParticipantSettings
from orchestrator.participant.tenure import Desk, LogStart, Tenure
from orchestrator.participant.work import Ended, Executor, Unit, Work, read_work
from orchestrator.topics import TopicNames
from orchestrator.wire.commands import ReplyMessage
from orchestrator.wire.headers import MalformedMessage

_ANSWERS = (log.Committed, log.Ends)
_ANSWERED = (rules.Answer, rules.Refuse)
_COMPLETED = (rules.Answer, rules.Ignore, rules.Reject)


class Engine:
    """One member of a service's group.

    `reader` belongs to the group `topics.group(service)` and is subscribed to `topics.commands(service)` only; reader
    and appender are used by nobody else. `ledger` False: the executor's handlers answer from a memory of their own (an
    SQL inbox). `now_ms` never goes back and measures leases; `wall_ms`, the same where it is not given, is compared
    with the times that commands carry. `new_nonce` gives 16 random bytes; `overdue` is told once of each handler that
    ran beyond its limit, and must end the process where there is a ledger.
    """

    def __init__(
        self,
        service: str,
        reader: Reader,
        appender: RunAppender,
        executor: Executor,
        now_ms: Callable[[], int],
        *,
        log_start: LogStart,
        new_nonce: Callable[[], bytes],
        overdue: Callable[[Work], None],
        topics: TopicNames | None = None,
        settings: ParticipantSettings | None = None,
        ledger: bool = True,
        owner: str = "",
        wall_ms: Callable[[], int] | None = None,
    ) -> None:
        names = topics or TopicNames()
        self.settings = settings or ParticipantSettings()
        self.counters = Counters()
        self.stopping = False
        self._commands_topic = names.commands(service)
        self._replies_topic = names.replies
        self._reader = reader
        self._executor = executor
        self._clock = now_ms
        self._wall = wall_ms or now_ms
        self._now_ms = now_ms()
        self._wall_ms = self._wall()
        self._log_start = log_start
        self._partitions: dict[int, Partition] = {}
        self._closing: dict[int, Partition] = {}
        """Taken away while handlers were running."""
        self._granted_again: set[int] = set()
        self._served = -1
        """The partition whose handler was started last."""
        self._commits = Commits(reader, self._commands_topic, self.settings, lambda: self._wall_ms)
        self._wound_up = False
        self._due_ms: int | None = None
        """When to step again if nothing happens; None: to be found out."""
        self._out = Outbound(
            appender, self.settings, names.dead_letters, self.counters, lambda: self._now_ms, self._answered
        )
        self._running = Running(self.settings, self.counters, self._out, overdue)
        self._desk = (
            None
            if not ledger
            else Desk(
                reader,
                self._out.append,
                log_start,
                names.ledger(service),
                owner,
                new_nonce,
                self.settings,
                self._accepted,
                self._held,
                self._lost,
                lambda: self._now_ms,
            )
        )

    # -- what the owner of the engine calls

    def step(self, limit: int = 500) -> bool:
        """Does what can be done now; whether there is more, though nothing new may come. Raises `EngineFailed`."""
        now_ms = self._now_ms = self._clock()
        happened = self._out.poll()
        finished = self._executor.poll()
        news = self._reader.poll(limit)
        if not (happened or finished or news) and self._due_ms is not None and now_ms < self._due_ms:
            return False
        self._due_ms = None
        self._wall_ms = self._wall()
        for ended in finished:
            self._finish(*ended)
        self._out.flush()
        if self._desk is not None:
            self._desk.flush()
        for happening in news:
            if type(happening) is Record:
                self._read(happening)
            else:
                self._hear(happening)
        for partition in self._partitions.values():
            self._advance(partition)
        self._start_ready()
        if self._desk is not None:
            self._desk.flush()
        if self._closing:
            for number in [number for number, closing in self._closing.items() if closing.quiet]:
                self._close(number)
        self._running.watch(now_ms)
        if self.stopping:
            self._wind_up()
        self._commits.send_due(self._partitions.values(), self._now_ms)
        self._out.flush()
        self._throttle()
        return len(news) >= limit

    def stop(self) -> None:
        """Takes no more commands. Step on until `stopped`, then close reader and appender."""
        self.stopping = True
        self._due_ms = None
        self._granted_again.clear()
        for partition in self._partitions.values():
            self._reader.unassign(self._commands_topic, partition.number)
            partition.close()

    @property
    def stopped(self) -> bool:
        """After `stop`: all that ran is recorded, answered and committed, and the ledger says so."""
        return self.stopping and not (self._partitions or self._closing or self._running or self._out.busy)

    @property
    def partitions(self) -> Mapping[int, Partition]:
        """What the group has granted, by number."""
        return self._partitions

    @property
    def running(self) -> int:
        """Handlers that run now."""
        return len(self._running)

    @property
    def due_ms(self) -> int:
        """When to step again if nothing happens until then."""
        if self._due_ms is None:
            self._due_ms = self._find_due_ms()
        return max(self._now_ms + 1, self._due_ms)

    def _find_due_ms(self) -> int:
        settings = self.settings
        moments = [self._now_ms + settings.renew_interval_ms]
        if self._out.due_ms is not None:
            moments.append(self._out.due_ms)
        moments += self._running.due_ms(self._now_ms)
        commit_ms = self._commits.due_ms
        if self._wound_up:
            moments.append(commit_ms)
        for partition in self._partitions.values():
            moments += partition.due_ms(self._now_ms, commit_ms)
        return min(moments)

    # -- partitions come and go

    def _hear(self, happening: Happening) -> None:
        if isinstance(happening, _ANSWERS):
            function, argument = happening.token
            function(argument, happening)
        elif isinstance(happening, log.Granted):
            for topic, number in happening.partitions:
                if topic == self._commands_topic and not self.stopping:
                    self._open(number)
        elif isinstance(happening, log.Revoked):
            for topic, number in happening.partitions:
                if topic == self._commands_topic:
                    self._granted_again.discard(number)
                    self._let_go(number)
        elif isinstance(happening, log.ReadFailed):
            self._read_failed(happening)

    def _open(self, number: int) -> None:
        if number in self._closing:
            # Its handlers of before must end first; their outcomes then stand in the ledger like anybody's.
            self._granted_again.add(number)
        elif number not in self._partitions:
            tenure = None if self._desk is None else Tenure(self._desk, number, self._now_ms)
            self._partitions[number] = Partition(number, tenure)

    def _let_go(self, number: int) -> None:
        partition = self._partitions.pop(number, None)
        if partition is not None:
            partition.close()
            self._closing[number] = partition

    def _close(self, number: int) -> None:
        """The last handler has ended: the next owner need not wait."""
        partition = self._closing.pop(number)
        if partition.tenure is not None:
            partition.tenure.release()
        if number in self._granted_again:
            self._granted_again.discard(number)
            self._open(number)

    def _advance(self, partition: Partition) -> None:
        if partition.closing:
            return
        tenure = partition.tenure
        if tenure is not None and not tenure.clear:
            tenure.advance(self._now_ms)
        partition.begin(self._reader, self._commands_topic, self._log_start, self._now_ms)

    def _read_failed(self, failed: log.ReadFailed) -> None:
        if failed.partition < 0:
            raise EngineFailed(f"{failed.failure.value}: {failed.detail}")
        partition = self._partitions.get(failed.partition)
        if partition is None or partition.closing:
            return
        if failed.topic != self._commands_topic:
            if partition.tenure is not None:
                partition.tenure.read_failed()
            return
        if partition.read_failed(failed.failure, self._now_ms + self.settings.retry_interval_ms):
            # Owners send again what they wait for, and the memory answers what was done.
            self.counters.repositioned += 1

    def _held(self, number: int) -> None:
        """The memory has become exact: goes on with what had to wait for that."""
        partition = self._partitions[number]
        tenure = partition.tenure
        assert tenure is not None
        unrecorded, tenure.unrecorded = tenure.unrecorded, deque()
        for work in unrecorded:
            # It ended; only what the ledger says by now can stand against its outcome.
            decision = rules.decide(work.command, tenure.view.memory.get(work.unit))
            if isinstance(decision, _ANSWERED):
                self._answer(work, decision)
            elif work.command.completion is None:
                tenure.record(work)
                continue
            elif self._settle(partition, work, decision):
                continue
            self._next(partition, work.unit)
        # What was judged to run is judged again: the memory may know better now.
        ready, partition.ready = partition.ready, deque()
        for work in ready:
            self._judge(partition, work)
        deferred, partition.deferred = partition.deferred, deque()
        for work in deferred:
            self._take(partition, work)

    def _lost(self, number: int, why: str) -> None:
        self.counters.epochs_lost += 1

    # -- commands

    def _read(self, record: Record) -> None:
        partition = self._partitions.get(record.partition)
        if partition is None or partition.closing:
            return
        if record.topic != self._commands_topic:
            if partition.tenure is not None:
                partition.tenure.read(record)
            return
        self.counters.commands += 1
        try:
            work = read_work(partition, record, self._replies_topic)
        except MalformedMessage as error:
            work = Work(partition, record, None)
            partition.window.append(work)
            self._out.bury(work, str(error), type(error).__name__)
            return
        partition.window.append(work)
        if partition.exact:
            self._take(partition, work)
        else:
            partition.deferred.append(work)

    def _take(self, partition: Partition, work: Work) -> None:
        waiting = partition.units.get(work.unit)
        if waiting is not None:
            waiting.append(work)
        elif self._decide(partition, work):
            partition.units[work.unit] = deque()

    def _decide(self, partition: Partition, work: Work) -> bool:
        """Whether the unit is busy with it from now on; otherwise it is through but for its reply."""
        tenure = partition.tenure
        if tenure is None:
            # The inbox judges, by its own rows; here only turns are kept.
            partition.ready.append(work)
            return True
        command = work.command
        decision = rules.decide(
            command,
            tenure.view.memory.get(work.unit),
            appended_ms=work.record.timestamp_ms,
            now_ms=self._wall_ms,
            retention_ms=self.settings.retention_ms,
        )
        if isinstance(decision, rules.Run):
            work.unsure = decision.unsure
            partition.ready.append(work)
            return True
        return self._settle(partition, work, decision)

    def _settle(self, partition: Partition, work: Work, decision: rules.Decision) -> bool:
        """Does what was decided where no handler runs. Whether the unit is busy with it until the memory has it."""
        if isinstance(decision, rules.Keep):
            assert partition.tenure is not None
            work.command = work.command.at_attempt(decision.attempt)
            work.reply = decision.reply
            work.mute = not decision.told
            partition.tenure.record(work)
            return True
        if isinstance(decision, rules.Answer):
            self.counters.duplicates += 1
            self._answer(work, decision)
        elif isinstance(decision, rules.Refuse):
            kind = decision.reply.error_type
            self.counters.refused[kind] = self.counters.refused.get(kind, 0) + 1
            self._answer(work, decision)
        elif isinstance(decision, rules.Ignore):
            self.counters.duplicates += 1
            self._out.settle(work)
        else:
            self._out.bury(work, "it completes what is not pending here, or its token is another", "NotPending")
        return False

    def _answer(self, work: Work, decision: rules.Answer | rules.Refuse) -> None:
        if isinstance(decision, rules.Answer) and decision.attempt:
            work.command = work.command.at_attempt(decision.attempt)
        self._out.reply(work, decision.reply)

    def _judge(self, partition: Partition, work: Work) -> None:
        """Judges the first of a busy unit again."""
        if not self._decide(partition, work):
            self._next(partition, work.unit)

    def _next(self, partition: Partition, unit: Unit) -> None:
        """The unit is free: its next command's turn."""
        waiting = partition.units[unit]
        while waiting:
            work = waiting.popleft()
            if self._decide(partition, work):
                return
        del partition.units[unit]

    def _start_ready(self) -> None:
        if self._out.blocked:
            return
        waiting = [partition for partition in self._partitions.values() if partition.ready]
        if not waiting:
            return
        # By turns, beginning after who was served last, so that a full partition cannot take all places.
        waiting.sort(key=lambda partition: (partition.number <= self._served, partition.number))
        while waiting and (room := self.settings.concurrency - len(self._running)) > 0:
            turn, rest = waiting[:room], waiting[room:]
            self._served = turn[-1].number
            waiting = rest + [partition for partition in turn if self._start(partition)]

    def _start(self, partition: Partition) -> bool:
        """Starts one handler; whether the partition has another that may start."""
        tenure = partition.tenure
        if tenure is not None and not tenure.may_start(self._now_ms):
            return False
        work = partition.ready.popleft()
        if tenure is not None and work.command.direction == "do" and rules.missed(work.command, self._wall_ms):
            # It waited too long here, and nothing ran.
            self._judge(partition, work)
            return bool(partition.ready)
        work.start_by_ms = None if tenure is None else tenure.lease_end_ms
        partition.running += 1
        self._running.start(work, self._now_ms)
        self._executor.start(work)
        return bool(partition.ready)

    def _finish(self, work: Work, reply: Ended, ran: bool) -> None:
        partition: Partition = work.partition
        self._running.end(work, reply)
        partition.running -= 1
        if reply is None:
            if not partition.closing:
                partition.ready.appendleft(work)
            return
        if isinstance(reply, _COMPLETED):
            self._settle(partition, work, reply)
            self._next(partition, work.unit)
            return
        if ran:
            self.counters.outcomes[reply.outcome or "pending"] += 1
            self.counters.handler_ms += self._now_ms - work.started_ms
        else:
            self.counters.duplicates += 1
        if not isinstance(reply, ReplyMessage):
            work.mute = True
        elif len(reply.payload) > self.settings.max_reply_bytes:
            reply = too_large(len(reply.payload))
        work.reply = reply
        if partition.tenure is not None:
            partition.tenure.record(work)
        else:
            self._accepted(work)

    def _accepted(self, work: Work) -> None:
        """The memory has it: now it may be told."""
        if work.mute:
            self._out.settle(work)
        else:
            assert isinstance(work.reply, ReplyMessage)
            self._out.reply(work, work.reply)
        self._next(work.partition, work.unit)

    def _answered(self, work: Work) -> None:
        work.partition.advance()

    # -- bounds and the end

    def _throttle(self) -> None:
        """Pauses what has enough in hand, and everything while the appender is full."""
        blocked = self._out.blocked
        bound = self.settings.window
        for partition in self._partitions.values():
            change = partition.throttle(blocked, bound)
            if change is not None:
                (self._reader.pause if change else self._reader.resume)(self._commands_topic, partition.number)

    def _wind_up(self) -> None:
        """Ends when nothing runs and nothing is unanswered: release, commit a last time, forget."""
        if self._out.busy or not all(partition.quiet for partition in self._partitions.values()):
            return
        if not self._wound_up:
            self._wound_up = True
            for partition in self._partitions.values():
                if partition.tenure is not None:
                    partition.tenure.release()
            self._commits.send_all(self._partitions.values(), self._now_ms)
        elif not self._commits.open or self._now_ms >= self._commits.due_ms:
            self._partitions.clear()
