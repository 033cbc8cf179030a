"""What holds the mark back, and what is listed beside it."""

from orchestrator.log.base import Delivery, Failure, TopicSpec
from orchestrator.log.memory import MemoryLog
from orchestrator.model.effects import Answer
from orchestrator.model.messages import ReplyAddress
from orchestrator.runtime.effect_sender import RETRY_MS, STUCK_AFTER, EffectSender, Outgoing
from orchestrator.topics import TopicNames
from orchestrator.wire.tokens import TokenKeys

TOPICS = TopicNames()


class Sending:
    """A sender whose answers fail or not, as a test says."""

    def __init__(self) -> None:
        log = MemoryLog(lambda: 0)
        log.create(TopicSpec(TOPICS.answers, 2, 1, {}))
        self.appender = log.appender()
        self.now_ms = 0
        self.sender = EffectSender(self.appender, TOPICS, 0, 1, TokenKeys({"k": b"0" * 16}), self, lambda effect: True)

    def report(self, *failing: int) -> None:
        """Reports what was sent; of answers to these partitions, a failure."""
        for delivery in self.appender.poll():
            out: Outgoing = delivery.token[1]
            assert isinstance(out.effect, Answer)
            if out.effect.reply_to.partition in failing:
                delivery = Delivery(delivery.token, None, 0, Failure.UNKNOWN_OUTCOME)
            self.sender.delivered(out, delivery, self.now_ms)
        self.now_ms += RETRY_MS
        self.sender.tick(self.now_ms)


def answer(partition: int) -> Answer:
    return Answer("o-1", "1-1-0", ReplyAddress(TOPICS.answers, partition, "c"), "COMPLETED", b"")


def test_of_several_answers_to_one_end_each_that_fails_stays_listed() -> None:
    sending = Sending()
    for partition in (0, 1):
        sending.sender.send(7, 0, answer(partition), 0)
    for _ in range(STUCK_AFTER):
        sending.report(0, 1)
    assert (sending.sender.mark(9), sending.sender.stuck) == ((9, ((7, 0),)), 2)
    sending.report(1)
    assert (sending.sender.mark(9), sending.sender.stuck) == ((9, ((7, 0),)), 1)
    sending.report()
    assert (sending.sender.mark(9), sending.sender.stuck, sending.sender.pending) == ((9, ()), 0, 0)


def test_what_is_not_acknowledged_holds_the_mark_back_until_it_fails_again_and_again() -> None:
    sending = Sending()
    sending.sender.send(7, 0, answer(0), 0)
    assert sending.sender.mark(9) == (6, ())
    sending.report(0)
    assert sending.sender.mark(9) == (6, ())
    for _ in range(STUCK_AFTER):
        sending.report(0)
    assert sending.sender.mark(9) == (9, ((7, 0),))
