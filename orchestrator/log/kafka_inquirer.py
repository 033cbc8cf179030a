"""A thread that asks the broker for offsets, so that neither the engine nor the polling thread waits for an answer.

It has a consumer of its own that never joins the group: a consumer is not to be used by two threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from queue import Empty, SimpleQueue
from threading import Thread, Timer
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from orchestrator.log import base
from orchestrator.log.base import Ends, Failure
from orchestrator.log.kafka_config import ASKING, LOGGER
from orchestrator.log.kafka_failure import failure_of
from orchestrator.log.kafka_poller import Cursor

_TIMEOUT_S = 5.0
"""For one answer of the broker; after it the question failed as UNKNOWN_OUTCOME."""
_IDLE_S = 1.0
"""How often the thread looks after its client without being asked."""
_LOOKS = 5
_LOOK_S = 1.0
"""A partition is said to be missing after so many looks, so far apart: a new one is not known everywhere at once."""


class Asked(Enum):
    """Which offsets. Those of a log have the timestamp that stands for them in a question by time."""

    ENDS = -1
    STARTS = -2
    COMMITTED = 0


class Question:
    """Which offsets are asked for, of which partitions; the answer carries `token`."""

    __slots__ = ("asked", "partitions", "token")

    def __init__(self, asked: Asked, partitions: tuple[base.TopicPartition, ...], token: Any) -> None:
        self.asked = asked
        self.partitions = partitions
        self.token = token


class Inquirer:
    """Answers questions by `Ends`, handed to `post`, and hands cursors of partitions not to be seen to `give_up`.

    The thread starts with the first wish.
    """

    def __init__(
        self, config: Mapping[str, Any], post: Callable[[Ends], None], give_up: Callable[[Cursor, Failure], None]
    ) -> None:
        self._config = config
        self._post = post
        self._give_up = give_up
        self._wishes: SimpleQueue[Question | Cursor | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._looks: dict[Cursor, int] = {}
        """How often a partition was looked for and not found."""

    def ask(self, wish: Question | Cursor) -> None:
        """Takes a question, whose answer holds what was true after this call, or a cursor to be looked after."""
        self._wishes.put(wish)
        if self._thread is None:
            self._thread = Thread(target=self._run, name="kafka-inquirer", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread, after the answer it may be waiting for."""
        if self._thread is not None:
            self._wishes.put(None)
            self._thread.join()

    def _run(self) -> None:
        consumer = Consumer({**self._config, **ASKING})
        while (batch := self._batch()) is not None:
            try:
                # Serves the client's log lines, which would pile up.
                consumer.poll(0)
                self._fulfil(consumer, batch)
            except Exception:
                LOGGER.exception("asking for offsets failed")
        consumer.close()

    def _fulfil(self, consumer: Consumer, batch: list[Question | Cursor]) -> None:
        questions = [wish for wish in batch if isinstance(wish, Question)]
        for asked in Asked:
            alike = [question for question in questions if question.asked is asked]
            if alike:
                self._answer(consumer, asked, alike)
        cursors = [wish for wish in batch if isinstance(wish, Cursor)]
        if cursors:
            self._look(consumer, cursors)

    def _batch(self) -> list[Question | Cursor] | None:
        """All wishes there are, to be fulfilled by one request; none after a while. None: stop."""
        batch: list[Question | Cursor] = []
        try:
            wish = self._wishes.get(timeout=_IDLE_S)
            while wish is not None:
                batch.append(wish)
                wish = self._wishes.get_nowait()
        except Empty:
            return batch
        return None

    def _look(self, consumer: Consumer, cursors: list[Cursor]) -> None:
        """Looks whether partitions exist. A broker that does not answer says nothing about them."""
        _, failures, _ = _request(consumer, Asked.ENDS, {cursor.key for cursor in cursors})
        for cursor in cursors:
            looks = self._looks.pop(cursor, 0) + 1
            if failures.get(cursor.key) not in (Failure.UNKNOWN_TOPIC, Failure.UNAUTHORIZED):
                continue
            if looks >= _LOOKS:
                self._give_up(cursor, _why_unseen(consumer, cursor.topic))
            else:
                self._looks[cursor] = looks
                again = Timer(_LOOK_S, self._wishes.put, (cursor,))
                again.daemon = True
                again.start()

    def _answer(self, consumer: Consumer, asked: Asked, questions: list[Question]) -> None:
        found, failures, detail = _request(consumer, asked, {key for one in questions for key in one.partitions})
        for question in questions:
            mine = {key: found[key] for key in question.partitions if key in found}
            failure = next((failures[key] for key in question.partitions if key in failures), None)
            metadata = {key: _metadata(item) for key, item in mine.items()} if asked is Asked.COMMITTED else {}
            offsets = {key: item.offset for key, item in mine.items()}
            self._post(Ends(question.token, offsets, failure, metadata, detail if failure is not None else ""))


def _why_unseen(consumer: Consumer, topic: str) -> Failure:
    """Whether a topic is missing or may not be seen: of one that may not, the library also says that it is unknown."""
    try:
        error = consumer.list_topics(topic, _TIMEOUT_S).topics[topic].error
    except KafkaException:
        error = None
    hidden = error is not None and failure_of(error) is Failure.UNAUTHORIZED
    return Failure.UNAUTHORIZED if hidden else Failure.UNKNOWN_TOPIC


def _metadata(item: TopicPartition) -> str:
    try:
        return item.metadata or ""
    except UnicodeDecodeError:
        # Somebody else's: whoever may commit to the group may write any bytes.
        return ""


Answer = tuple[dict[base.TopicPartition, TopicPartition], dict[base.TopicPartition, Failure], str]
"""What was found, what failed and a detail of that."""


def _request(consumer: Consumer, asked: Asked, wanted: Iterable[base.TopicPartition]) -> Answer:
    keys = list(wanted)
    answer = _request_once(consumer, asked, keys)
    unknown = {topic for (topic, _), failure in answer[1].items() if failure is Failure.UNKNOWN_TOPIC}
    if not unknown:
        return answer
    # The library remembers for minutes what it once saw missing, and does not look again unless made to.
    try:
        for topic in unknown:
            consumer.list_topics(topic, _TIMEOUT_S)
    except KafkaException as error:
        return {}, dict.fromkeys(keys, failure_of(error.args[0])), error.args[0].str()
    return _request_once(consumer, asked, keys)


def _request_once(consumer: Consumer, asked: Asked, keys: list[base.TopicPartition]) -> Answer:
    found: dict[base.TopicPartition, TopicPartition] = {}
    failures: dict[base.TopicPartition, Failure] = {}
    detail = ""
    try:
        if asked is Asked.COMMITTED:
            answer = consumer.committed([TopicPartition(*key) for key in keys], _TIMEOUT_S)
        else:
            answer = consumer.offsets_for_times([TopicPartition(*key, asked.value) for key in keys], _TIMEOUT_S)
    except KafkaException as error:
        return {}, dict.fromkeys(keys, failure_of(error.args[0])), error.args[0].str()
    for item in answer:
        if item.error is not None:
            failures[item.topic, item.partition] = failure_of(item.error)
            detail = item.error.str()
        elif item.offset >= 0:
            found[item.topic, item.partition] = item
    return found, failures, detail
