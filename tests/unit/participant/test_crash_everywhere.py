"""A participant dies at every call it makes to the outside, before and after the call; the next one goes on.

What holds then: every command is answered, a key has one recorded outcome, no `do` has an effect after its `undo`.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from orchestrator.log.base import Failure
from orchestrator.log.memory_link import Link, Sent
from orchestrator.model.messages import Outcome
from orchestrator.participant.work import HeldExecutor, InlineExecutor, Work
from orchestrator.wire.commands import ReplyMessage

from .world import LETTERS, Member, World


class Killed(BaseException):
    """The process is gone."""


class Fuse:
    """Blows at the n-th call; odd numbers before the call happens, even ones after."""

    def __init__(self, blows_at: int) -> None:
        self.calls = 0
        self.blows_at = blows_at

    def wrap(self, target: Any, *names: str) -> Any:
        return Fused(self, target, names)


class Fused:
    def __init__(self, fuse: Fuse, target: Any, names: tuple[str, ...]) -> None:
        self._fuse, self._target, self._names = fuse, target, names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in self._names:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._count()
            result = found(*args, **kwargs)
            self._count()
            return result

        return call

    def _count(self) -> None:
        self._fuse.calls += 1
        if self._fuse.calls == self._fuse.blows_at:
            raise Killed


class Effects:
    """What handlers did outside, by unit, in order; and each success said with a number of its own."""

    def __init__(self, pick: random.Random | None = None) -> None:
        self.done: dict[tuple[str, int], list[str]] = {}
        self.runs = 0
        self.pick = pick

    def perform(self, work: Work) -> ReplyMessage:
        self.runs += 1
        command = work.command
        log = self.done.setdefault((command.saga_id, command.sequence), [])
        ending = "acts" if self.pick is None else self.pick.choice(["acts", "acts", "acts and forgets", "no", "later"])
        if ending == "no" and command.direction == "do" and "do" not in log:
            return ReplyMessage(Outcome.FAILURE, error_type="No")
        if ending == "later":
            return ReplyMessage(Outcome.RETRY, error_type="Later")
        log.append(command.direction)
        if ending == "acts and forgets":
            return ReplyMessage(Outcome.RETRY, error_type="Later")
        return ReplyMessage(Outcome.SUCCESS, b"%d" % self.runs)

    def check_order(self) -> None:
        for unit, log in self.done.items():
            if "undo" in log:
                assert "do" not in log[log.index("undo") :], (unit, log)


def check_replies(world: World, expected: set[tuple[str, int, str, int]]) -> None:
    said: dict[tuple[str, int, str], set[bytes]] = {}
    for told in world.told():
        if told.outcome == "success":
            said.setdefault((told.saga_id, told.sequence, told.direction), set()).add(told.payload)
    assert all(len(payloads) == 1 for payloads in said.values()), said
    answered = {(told.saga_id, told.sequence, told.direction, told.attempt) for told in world.told()}
    assert answered == expected


SCRIPT = [
    ("a", "do", 1),
    ("b", "do", 1),
    ("a", "do", 2),
    ("a", "undo", 1),
    ("a", "do", 3),
    ("c", "undo", 1),
    ("c", "do", 1),
    ("a", "undo", 2),
]


def fused_member(world: World, effects: Effects, fuse: Fuse) -> Member:
    executor = InlineExecutor(effects.perform)
    member = world.member(executor)
    member.engine = member.build(
        fuse.wrap(member.reader, "poll", "commit", "assign", "ask_ends", "ask_committed", "unassign"),
        fuse.wrap(member.appender, "poll", "append"),
        fuse.wrap(executor, "start", "poll"),
    )
    return member


def run_to_the_end(world: World, member: Member, end: int) -> bool:
    """Whether it lived until everything was committed."""
    try:
        for _ in range(400):
            member.step()
            world.now_ms += 10
            if world.committed() == end:
                return True
    except Killed:
        member.die()
        return False
    raise AssertionError("it stands still")


def test_dying_at_every_call() -> None:
    blows_at = 0
    lived = False
    while not lived:
        blows_at += 1
        world = World(lease_ms=100, handler_limit_ms=100)
        effects = Effects()
        for saga_id, direction, attempt in SCRIPT:
            world.send(saga_id, "undo" if direction == "undo" else "do", attempt=attempt)
        world.send_raw(b"junk")
        end = len(SCRIPT) + 1
        lived = run_to_the_end(world, fused_member(world, effects, Fuse(blows_at)), end)
        if not lived:
            # The second dies too, elsewhere; the third lives.
            run_to_the_end(world, fused_member(world, effects, Fuse(blows_at // 2 + 1)), end)
            run_to_the_end(world, fused_member(world, effects, Fuse(-1)), end)
        effects.check_order()
        check_replies(world, {(saga, 1, direction, attempt) for saga, direction, attempt in SCRIPT})
        assert world.log.records(LETTERS, 0)
    assert blows_at > 100
    assert effects.done == {("a", 1): ["do", "undo"], ("b", 1): ["do"], ("c", 1): ["undo"]}


class Storm(Link):
    """Delays appends, keeps their order, loses reports, delivers late, also after its client died."""

    def __init__(self, pick: random.Random) -> None:
        self.pick = pick
        self.queue: list[Sent] = []
        self.late: list[Any] = []
        self.deaf = 0

    def append(self, sent: Sent) -> None:
        self.queue.append(sent)
        self.move()

    def request(self, kind: str, perform: Any, fail: Any) -> None:
        if kind == "group":
            self.late.append(perform)
        elif self.pick.random() < 0.8:
            perform()
        elif self.pick.random() < 0.5:
            fail(Failure.UNKNOWN_OUTCOME)

    def move(self) -> None:
        """Some of what is under way arrives; the group's word may come much later than the group acted."""
        self.deaf -= 1
        while self.late and self.deaf < 0 and self.pick.random() < 0.1:
            self.late.pop(0)()
        while self.queue and self.pick.random() < 0.7:
            sent = self.queue.pop(0)
            luck = self.pick.random()
            if luck < 0.93:
                sent.land()
                sent.report()
            elif luck < 0.96:
                sent.land()
                sent.fail()
            elif luck < 0.98:
                sent.fail()
            else:
                sent.fail()
                # It lands later, behind what was sent meanwhile to other partitions; per partition order is kept.
                if all(other.topic != sent.topic for other in self.queue):
                    sent.land()


class Weather:
    """Members that come, die, freeze and are thrown out, and commands that are sent meanwhile, all from one seed."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed)
        self.world = World(lease_ms=300, handler_limit_ms=500, concurrency=4)
        self.effects = Effects(self.pick)
        self.sent: set[tuple[str, int, str, int]] = set()
        self.links: dict[Member, Storm] = {}
        self.attempts: dict[tuple[str, str], int] = {}
        self.slow: dict[Work, bool] = {}
        self.frozen: dict[Member, int] = {}

    def join(self) -> None:
        link = Storm(self.pick)
        member = self.world.member(HeldExecutor(), link=link)
        self.links[member] = link
        self.frozen[member] = 0

    def send(self, turn: int) -> None:
        saga_id = f"s{turn // 40}-{self.pick.randrange(4)}"
        direction = "undo" if self.pick.random() < 0.3 else "do"
        if (saga_id, "undo") in self.attempts and direction == "do" and self.pick.random() < 0.7:
            return
        attempt = self.attempts[saga_id, direction] = self.attempts.get((saga_id, direction), 0) + 1
        self.world.send(saga_id, "undo" if direction == "undo" else "do", attempt=attempt)
        self.sent.add((saga_id, 1, direction, attempt))

    def strike(self) -> None:
        """Perhaps something happens to a member."""
        living = [member for member in self.world.members if member.alive]
        luck = self.pick.random()
        if luck < 0.01 and living:
            victim = self.pick.choice(living)
            victim.die()
            # Its handlers die with it; some had their effect.
            for work in victim.held:
                if self.world.now_ms - work.started_ms <= 450 and self.pick.random() < 0.5:
                    self.effects.perform(work)
        elif luck < 0.05 and living:
            victim = self.pick.choice(living)
            self.links[victim].deaf = self.pick.choice([0, 0, 50, 200])
            self.world.log.expire(victim.reader)
            if not victim.held:
                self.frozen[victim] = self.links[victim].deaf - 20
        elif not living or (luck < 0.08 and len(living) < 3):
            self.join()

    def act(self, member: Member) -> None:
        """Handlers are quick, or take all the time they may; beyond that the process would have exited."""
        for work in member.held:
            if self.slow.setdefault(work, self.pick.random() < 0.3):
                ends = self.world.now_ms - work.started_ms > 450
            else:
                ends = self.pick.random() < 0.5
            if ends:
                member.finish(self.effects.perform(work), member.held.index(work))

    def turn(self, turn: int) -> None:
        if turn < 300 and self.pick.random() < 0.25:
            self.send(turn)
        if turn < 400:
            self.strike()
        for member, link in self.links.items():
            link.move()
            self.frozen[member] -= 1
            if member.alive and self.frozen[member] < 0:
                if self.pick.random() < 0.9:
                    member.step()
                self.act(member)
        self.world.now_ms += self.pick.choice([1, 10, 30])

    def clear_up(self) -> None:
        """No more faults, until everything is committed."""
        if not any(member.alive for member in self.links):
            self.join()
        for _ in range(4_000):
            if (self.world.committed() or 0) == len(self.sent):
                return
            for member, link in self.links.items():
                link.deaf = 0
                link.move()
                member.step()
                if member.alive:
                    self.act(member)
            self.world.now_ms += 20
        raise AssertionError("it stands still")


@pytest.mark.parametrize("seed", range(150))
def test_storms(seed: int) -> None:
    """Whatever the log delays and loses; for each seed the same way."""
    weather = Weather(seed)
    weather.join()
    for turn in range(600):
        weather.turn(turn)
    weather.clear_up()
    weather.effects.check_order()
    check_replies(weather.world, weather.sent)
